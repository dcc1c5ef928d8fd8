"""The row about what services lose of their own telemetry."""

from grafana_foundation_sdk.models.dashboard import Panel

from grafana.panels import Row, time_series
from grafana.promql import BY_INSTANCE, BY_SERVICE, NAMESPACES, label_of, rate, select, total
from grafana.queries import Query
from grafana.thresholds import above
from obslib import names

_SERVICE = "{{service}}"


def row() -> Row:
    """Part of Telemetry pipeline."""
    return Row(
        title="What services lose",
        panels=[spans(), spans_dropped(), lines_dropped(), errors(), overflowed(), workers_missed(), names_agree()],
    )


def spans() -> Panel:
    return time_series(
        "Spans exported",
        "A second, by service. When it falls and requests do not: see what was dropped, and whether Jaeger is up.",
        "ops",
        Query(expression=total(rate(names.SPANS_EXPORTED, NAMESPACES), by=BY_SERVICE), legend=_SERVICE),
    )


def spans_dropped() -> Panel:
    return time_series(
        "Spans dropped",
        "A second, by reason. When export_failed: the collector is away. When queue_full: sample less, or send faster.",
        "ops",
        Query(
            expression=total(rate(names.SPANS_DROPPED, NAMESPACES), by=f"{BY_SERVICE}, {names.LABEL_REASON}"),
            legend=f"{_SERVICE} {{{{{names.LABEL_REASON}}}}}",
        ),
    )


def lines_dropped() -> Panel:
    return time_series(
        "Log lines dropped",
        "A second, by reason. When buffer_full: stdout's reader is slower than the service writes; errors go last.",
        "ops",
        Query(
            expression=total(rate(names.LOG_LINES_DROPPED, NAMESPACES), by=f"{BY_SERVICE}, {names.LABEL_REASON}"),
            legend=f"{_SERVICE} {{{{{names.LABEL_REASON}}}}}",
        ),
    )


def errors() -> Panel:
    return time_series(
        "Telemetry errors by signal",
        "A second, by signal; requests go on. When one signal has some: its data has holes since then.",
        "ops",
        Query(
            expression=total(rate(names.INTERNAL_ERRORS, NAMESPACES), by=f"{BY_SERVICE}, {names.LABEL_SIGNAL}"),
            legend=f"{_SERVICE} {{{{{names.LABEL_SIGNAL}}}}}",
        ),
    )


def overflowed() -> Panel:
    return time_series(
        "Label budgets spent",
        "Observations a second that went to _OTHER, by metric. When not zero: a label has values nobody expected.",
        "ops",
        Query(
            # A metric is named once it has overflowed.
            expression=_zero_before_the_first(
                total(rate(names.LABEL_SETS_OVERFLOWED, NAMESPACES), by=f"{BY_SERVICE}, {names.LABEL_METRIC}")
            ),
            legend=f"{_SERVICE} {{{{{names.LABEL_METRIC}}}}}",
        ),
    )


def workers_missed() -> Panel:
    late, torn = (
        _zero_before_the_first(total(rate(metric, NAMESPACES), by=BY_SERVICE))
        for metric in (names.WORKER_ANSWERS_MISSED, names.WORKER_SNAPSHOTS_REJECTED)
    )
    return time_series(
        "Workers not heard",
        "A second: late for a scrape, or their file torn. When late: a worker is too busy, and its numbers are older.",
        "ops",
        Query(expression=late, legend=f"{_SERVICE} late"),
        Query(expression=torn, legend=f"{_SERVICE} torn"),
    )


def names_agree() -> Panel:
    info = select(names.TARGET_INFO, NAMESPACES)
    own = f'label_replace({info}, "{names.LABEL_SERVICE}", "$1", "{label_of(names.RESOURCE_SERVICE_NAME)}", "(.+)")'
    differing = f"count(group by ({BY_INSTANCE}) ({info}) unless group by ({BY_INSTANCE}) ({own}))"
    return time_series(
        "Names that disagree",
        "Replicas whose traces and logs name another service than Prometheus does. When red: links lead nowhere.",
        "none",
        Query(expression=f"{differing} or vector(0)", legend="replicas"),
        limits=above(1),
    )


def _zero_before_the_first(expression: str) -> str:
    """Zero for each service that uses obslib, where the counter is only made when it first counts."""
    return f"{expression} or on ({BY_SERVICE}) 0 * group by ({BY_SERVICE}) ({select(names.BUILD_INFO, NAMESPACES)})"
