"""The row about what a service does after its response."""

from grafana_foundation_sdk.models.dashboard import Panel

from grafana.panels import Row, bars, time_series
from grafana.promql import INSTANCES, RANGE, quantile, rate, total
from grafana.queries import Query
from obslib import names


def row() -> Row:
    """Part of Service."""
    return Row(title="After the response", panels=[ended(), durations(), failed()])


def ended() -> Panel:
    count = f"{names.BACKGROUND_TASK_DURATION}_count"
    return time_series(
        "Background tasks",
        "Tasks that ended, a second. When it falls and requests do not: tasks hang, or nobody starts them any more.",
        "ops",
        Query(
            expression=total(rate(count, INSTANCES), by=names.LABEL_FUNCTION), legend=f"{{{{{names.LABEL_FUNCTION}}}}}"
        ),
    )


def durations() -> Panel:
    return time_series(
        "Background tasks, p95",
        "How long they take. When it rises: they compete with requests for the same process; consider a queue.",
        "s",
        Query(
            expression=quantile(0.95, names.BACKGROUND_TASK_DURATION, INSTANCES, by=names.LABEL_FUNCTION),
            legend=f"{{{{{names.LABEL_FUNCTION}}}}}",
        ),
    )


def failed() -> Panel:
    count = f"{names.BACKGROUND_TASK_DURATION}_count"
    failures = rate(count, INSTANCES, f'{names.LABEL_ERROR_TYPE}!=""', window=RANGE)
    return bars(
        "Background tasks that failed",
        "Failures a second in the time that is shown; no caller was told. When there are any: the log has the stack.",
        "ops",
        Query(expression=total(failures, by=names.LABEL_FUNCTION), legend=f"{{{{{names.LABEL_FUNCTION}}}}}"),
    )
