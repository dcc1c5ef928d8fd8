"""Telemetry pipeline: can the other dashboards be believed?"""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana import limits, losses, uids
from grafana.boards import board
from grafana.panels import Row, number, time_series
from grafana.promql import BY_INSTANCE, BY_SERVICE, NAMESPACES, RANGE, WINDOW, rate, select, total
from grafana.queries import Query
from grafana.thresholds import above, below
from obslib import names
from prometheus import foreign

_SCRAPING = limits.server()
_SERVICE = "{{service}}"
_INSTANCE = "{{service}} {{instance}}"


def dashboard() -> Dashboard:
    """From the library to the alert."""
    return board(
        uids.PIPELINE,
        "Can the other dashboards be believed?",
        [
            Row(
                title="Now",
                panels=[unscraped(), lost_spans(), lost_lines(), internal_errors(), rule_failures(), reload()],
            ),
            losses.row(),
            Row(title="Scraping", panels=[targets(), durations(), samples()]),
            Row(title="Prometheus", panels=[head(), churn(), rules(), missed(), exemplars()]),
            Row(title="Trace storage", panels=[spans_in(), spans_out()]),
            Row(title="Alerting", panels=[alertmanagers(), undelivered(), notifications()]),
        ],
    )


def unscraped() -> Panel:
    return number(
        "Targets down",
        "Addresses that Prometheus knows and cannot scrape. When red: the process is gone, or too busy to answer.",
        "none",
        Query(expression=f"count({select(foreign.UP, NAMESPACES)} == 0) or vector(0)"),
        limits=above(1),
    )


def lost_spans() -> Panel:
    return _lost(
        "Spans lost", names.SPANS_DROPPED, "When red: see below for which reason; queue_full is too much load."
    )


def lost_lines() -> Panel:
    return _lost("Log lines lost", names.LOG_LINES_DROPPED, "When red: whatever reads stdout is too slow, or stuck.")


def internal_errors() -> Panel:
    return _lost(
        "Telemetry errors", names.INTERNAL_ERRORS, "No request has noticed. When red: report it, with the log line."
    )


def _lost(title: str, metric: str, advice: str) -> Panel:
    return number(
        title,
        f"In the time that is shown. {advice}",
        "none",
        Query(expression=total(f"increase({select(metric, NAMESPACES)}[{RANGE}])")),
        limits=above(1),
        decimals=0,
    )


def rule_failures() -> Panel:
    return number(
        "Rules that failed",
        "Evaluations in the time that is shown. When red: alerts may not fire; Prometheus' log names the rule.",
        "none",
        Query(expression=total(f"increase({foreign.RULE_FAILURES}[{RANGE}])")),
        limits=above(1),
        decimals=0,
    )


def reload() -> Panel:
    return number(
        "Configuration loaded",
        "1: Prometheus runs with the files that are there. When red: it runs with the ones before; run promtool check.",
        "none",
        Query(expression=f"min({foreign.CONFIG_RELOADED})"),
        limits=below(1),
    )


def targets() -> Panel:
    return time_series(
        "Targets up",
        "By service. When a line falls without a scaling mark: its processes die, or the target file is old.",
        "none",
        Query(expression=total(select(foreign.UP, NAMESPACES), by=BY_SERVICE), legend=_SERVICE),
        stacked=True,
    )


def durations() -> Panel:
    return time_series(
        "Scrape time of timeout",
        "When red: the next scrape may be missed, and with it everything; look at the series of that service.",
        "percentunit",
        Query(
            expression=f"max by ({BY_INSTANCE}) ({select(foreign.SCRAPE_DURATION, NAMESPACES)})"
            f" / {float(_SCRAPING.scrape_timeout.seconds):g}",
            legend=_INSTANCE,
        ),
        limits=above(limits.SCRAPE_SHARE),
    )


def samples() -> Panel:
    return time_series(
        "Series of sample limit",
        "At 100 % the whole scrape is refused. When red: a label has got out of hand; count series by name.",
        "percentunit",
        Query(
            expression=f"max by ({BY_INSTANCE}) ({select(foreign.SCRAPE_SAMPLES, NAMESPACES)})"
            f" / {_SCRAPING.sample_limit}",
            legend=_INSTANCE,
        ),
        limits=above(limits.SCRAPE_SHARE),
    )


def head() -> Panel:
    return time_series(
        "Series in memory",
        "What Prometheus' memory follows. When it grows for days: find the metric with count by (__name__).",
        "short",
        Query(expression=total(foreign.HEAD_SERIES, by=names.LABEL_INSTANCE), legend="{{instance}}"),
    )


def churn() -> Panel:
    return time_series(
        "New series",
        "A second. When it stays above zero between deploys: a label changes with every request or restart.",
        "ops",
        Query(expression=total(rate(foreign.HEAD_SERIES_CREATED), by=names.LABEL_INSTANCE), legend="{{instance}}"),
    )


def rules() -> Panel:
    by = foreign.LABEL_RULE_GROUP
    return time_series(
        "Rule time of interval",
        "By group. When red: evaluations will be missed, and alerts come late; look for a rule over a long range.",
        "percentunit",
        Query(
            expression=f"max by ({by}) ({foreign.RULE_GROUP_DURATION}) / max by ({by}) ({foreign.RULE_GROUP_INTERVAL})",
            legend=f"{{{{{by}}}}}",
        ),
        limits=above(limits.SCRAPE_SHARE),
    )


def missed() -> Panel:
    return time_series(
        "Evaluations missed",
        "By group of rules. When red: Prometheus is overloaded; recorded series have holes, and alerts reset.",
        "none",
        Query(
            expression=total(f"increase({foreign.RULE_ITERATIONS_MISSED}[{WINDOW}])", by=foreign.LABEL_RULE_GROUP),
            legend=f"{{{{{foreign.LABEL_RULE_GROUP}}}}}",
        ),
        limits=above(1),
    )


def exemplars() -> Panel:
    return time_series(
        "Exemplars",
        "Kept, and series that have one. When zero: Prometheus runs without exemplar-storage, and no dot has a trace.",
        "short",
        Query(expression=total(foreign.EXEMPLARS_STORED), legend="kept"),
        Query(expression=total(foreign.EXEMPLAR_SERIES), legend="series"),
    )


def spans_in() -> Panel:
    return time_series(
        "Spans received",
        "A second, accepted and refused. When refused rises: the storage is full; sample less at the services.",
        "ops",
        Query(expression=total(rate(foreign.RECEIVED_SPANS)), legend="accepted"),
        Query(expression=total(rate(foreign.REFUSED_SPANS)), legend="refused"),
        width=12,
    )


def spans_out() -> Panel:
    return time_series(
        "Spans stored",
        "A second, stored and failed. When failed rises: traces have holes; look at Jaeger's log and its disk.",
        "ops",
        Query(expression=total(rate(foreign.SENT_SPANS)), legend="stored"),
        Query(expression=total(rate(foreign.SEND_FAILED_SPANS)), legend="failed"),
        width=12,
    )


def alertmanagers() -> Panel:
    return time_series(
        "Alertmanagers known",
        "To Prometheus. When red: alerts fire and nobody is told; look at its target file.",
        "none",
        Query(expression=f"min({foreign.ALERTMANAGERS})", legend="known"),
        limits=below(1),
    )


def undelivered() -> Panel:
    return time_series(
        "Alerts not delivered",
        "From Prometheus to Alertmanager. When red: Alertmanager is down or slow; pages are lost meanwhile.",
        "none",
        Query(expression=total(f"increase({foreign.NOTIFICATIONS_DROPPED}[{WINDOW}])"), legend="dropped"),
        limits=above(1),
    )


def notifications() -> Panel:
    by = foreign.LABEL_INTEGRATION
    return time_series(
        "Notifications",
        "From Alertmanager to people and programs, sent and failed. When failed: test the receiver with amtool.",
        "ops",
        Query(expression=total(rate(foreign.NOTIFICATIONS_SENT), by=by), legend=f"{{{{{by}}}}} sent"),
        Query(expression=total(rate(foreign.NOTIFICATIONS_FAILED), by=by), legend=f"{{{{{by}}}}} failed"),
    )
