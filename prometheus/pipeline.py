"""The telemetry watching itself: what is lost, what is nearly full, and whether anybody would be told."""

from obslib import names
from prometheus import foreign, links, recorded
from prometheus.durations import Clock
from prometheus.policy import Policy, Server
from prometheus.promql import BY_SERVICE, INSTANCE, ON_INSTANCE, ON_SERVICE, SERVICE, lines
from prometheus.rules import INFO, PAGE, PIPELINE, TICKET, WATCHDOG, Alert, Group

_NEARLY_FULL = "0.8"
_MIN_SERIES = 20_000


def groups(policy: Policy, clock: Clock) -> list[Group]:
    """The same for every policy but for the server's limits."""
    lost = [
        _lost("SpansDropped", names.SPANS_DROPPED, names.LABEL_REASON, "loses spans", TICKET, clock),
        _lost("LogLinesDropped", names.LOG_LINES_DROPPED, names.LABEL_REASON, "loses log lines", TICKET, clock),
        _lost(
            "TelemetryErrors", names.INTERNAL_ERRORS, names.LABEL_SIGNAL, "has errors in its telemetry", TICKET, clock
        ),
        _lost(
            "LabelBudgetSpent", names.LABEL_SETS_OVERFLOWED, names.LABEL_METRIC, "has spent a label budget", INFO, clock
        ),
        _name_disagrees(clock),
    ]
    return [
        Group(name="obslib_lost", rules=lost),
        Group(name="obslib_scraping", rules=[*_scraping(policy.server, clock), _platform(clock), _growth(clock)]),
        Group(name="obslib_alerting", rules=[_rules_fail(clock), _reload(clock), _delivery(clock), _watchdog()]),
    ]


def _alert(
    name: str,
    expression: str,
    severity: str,
    *,
    summary: str,
    description: str,
    clock: Clock | None = None,
    lasting: str = "",
) -> Alert:
    return Alert(
        name=name,
        expression=lines(expression),
        lasting=clock(lasting) if clock and lasting else None,
        severity=severity,
        kind=PIPELINE,
        summary=summary,
        description=description,
        dashboard=links.PIPELINE,
        runbook="pipeline",
    )


def _lost(name: str, metric: str, label: str, what: str, severity: str, clock: Clock) -> Alert:
    return _alert(
        name,
        f"sum by ({SERVICE}, {label}) (increase({metric}[{clock('5m')}])) > 0",
        severity,
        clock=clock,
        lasting="5m",
        summary=f"{{{{ $labels.service }}}} {what} ({{{{ $labels.{label} }}}})",
        description=f"{{{{ $value | humanize }}}} in {clock('5m')}; {label}: {{{{ $labels.{label} }}}}.",
    )


def _name_disagrees(clock: Clock) -> Alert:
    own = names.RESOURCE_SERVICE_NAME.replace(".", "_")
    renamed = f'label_replace({names.TARGET_INFO}, "{names.LABEL_SERVICE}", "$1", "{own}", "(.+)")'
    return _alert(
        "ServiceNameDisagrees",
        f"""
            count by ({INSTANCE}) ({names.TARGET_INFO})
            unless {ON_INSTANCE}
            count by ({INSTANCE}) ({renamed})
        """,
        TICKET,
        clock=clock,
        lasting="10m",
        summary="{{ $labels.instance }} calls its service something else",
        description="What Prometheus calls {{ $labels.service }} has another service.name in its traces and logs: "
        "links from one to the other lead nowhere.",
    )


def _scraping(server: Server, clock: Clock) -> list[Alert]:
    return [
        _alert(
            "ScrapeNearSampleLimit",
            _of_services(
                f"max by (job, {INSTANCE}) ({foreign.SCRAPE_SAMPLES}) / {server.sample_limit} > {_NEARLY_FULL}"
            ),
            TICKET,
            clock=clock,
            lasting="10m",
            summary="{{ $labels.instance }} has nearly as many series as Prometheus takes",
            description=f"It has {{{{ $value | humanizePercentage }}}} of {server.sample_limit}: beyond that the whole "
            "scrape is thrown away, and the replica counts as down.",
        ),
        _alert(
            "ScrapeSlow",
            _of_services(
                f"max by (job, {INSTANCE}) (avg_over_time({foreign.SCRAPE_DURATION}[{clock('5m')}])) "
                f"> {_NEARLY_FULL} * {clock.seconds(server.scrape_timeout)}"
            ),
            TICKET,
            clock=clock,
            lasting="10m",
            summary="Scrapes of {{ $labels.instance }} take nearly as long as they may",
            description="{{ $value | humanizeDuration }} on average, and Prometheus waits "
            f"{clock(server.scrape_timeout)}.",
        ),
    ]


def _of_services(expression: str) -> str:
    """Only of the policy's services: what else this Prometheus scrapes may have other limits."""
    return f"{expression} and {ON_SERVICE} {recorded.POLICY}"


def _platform(clock: Clock) -> Alert:
    return _alert(
        "PlatformDown",
        # A target without `service` is somebody else's.
        f"""
            count {BY_SERVICE} ({foreign.UP}{{{names.LABEL_SERVICE}!=""}})
            unless {ON_SERVICE}
            {recorded.POLICY}
            unless {ON_SERVICE}
            count {BY_SERVICE} ({foreign.UP} == 1)
        """,
        TICKET,
        clock=clock,
        lasting="5m",
        summary="{{ $labels.service }} does not answer scrapes",
        description="It is no service of the policy, but something services or their telemetry stand on.",
    )


def _growth(clock: Clock) -> Alert:
    series = f"max by ({INSTANCE}) ({foreign.HEAD_SERIES})"

    def doubles(window: str) -> str:
        predicted = f"predict_linear({foreign.HEAD_SERIES}[{clock(window)}], {clock.seconds('1d')})"
        return f"max by ({INSTANCE}) ({predicted}) > {ON_INSTANCE} 2 * {series}"

    return _alert(
        "SeriesGrowthPredicted",
        # A deploy is a step, after which the last half hour is level.
        f"\nand {ON_INSTANCE}\n".join((doubles("6h"), doubles("30m"), f"{series} > {_MIN_SERIES}")),
        TICKET,
        clock=clock,
        lasting="1h",
        summary="Prometheus will hold twice as many series tomorrow",
        description="{{ $value | humanize }} series within a day, if it goes on so: a label has got out of hand.",
    )


def _rules_fail(clock: Clock) -> Alert:
    window = clock("5m")
    return _alert(
        "RuleEvaluationFailing",
        f"""
            sum by ({INSTANCE}, rule_group) (increase({foreign.RULE_FAILURES}[{window}])) > 0
            or
            sum by ({INSTANCE}, rule_group) (increase({foreign.RULE_ITERATIONS_MISSED}[{window}])) > 0
        """,
        PAGE,
        clock=clock,
        lasting="5m",
        summary="Prometheus does not evaluate {{ $labels.rule_group }}",
        description="{{ $value | humanize }} evaluations failed or were skipped in "
        f"{window}: the alerts of the group cannot fire.",
    )


def _reload(clock: Clock) -> Alert:
    return _alert(
        "ConfigReloadFailed",
        f"""
            max by ({INSTANCE}) ({foreign.CONFIG_RELOADED}) == 0
            or
            max by ({INSTANCE}) ({foreign.ALERTMANAGER_CONFIG_RELOADED}) == 0
        """,
        TICKET,
        clock=clock,
        lasting="5m",
        summary="{{ $labels.instance }} refuses its configuration",
        description="It goes on with the last one that was good; what was changed since has no effect.",
    )


def _delivery(clock: Clock) -> Alert:
    # A group that fails is tried again with its next interval, a quarter of an hour for tickets: twice is no accident.
    twice = clock("35m")
    return _alert(
        "AlertDeliveryFailing",
        f"""
            (
              sum by ({INSTANCE}) (increase({foreign.NOTIFICATIONS_FAILED}[{twice}])) > 1.5
              and {ON_INSTANCE}
              sum by ({INSTANCE}) (increase({foreign.NOTIFICATIONS_FAILED}[{clock("16m")}])) > 0
            )
            or {ON_INSTANCE}
            sum by ({INSTANCE}) (increase({foreign.NOTIFICATIONS_DROPPED}[{clock("5m")}])) > 0
            or {ON_INSTANCE}
            max by ({INSTANCE}) ({foreign.ALERTMANAGERS}) < 1
        """,
        PAGE,
        clock=clock,
        lasting="5m",
        summary="Alerts do not reach anybody",
        description="Alertmanager cannot deliver, or Prometheus has none to deliver to. This alert may not arrive "
        "either: the missing Watchdog will tell.",
    )


def _watchdog() -> Alert:
    return _alert(
        "Watchdog",
        "vector(1)",
        WATCHDOG,
        summary="Alerting works",
        description="Fires always. Whoever receives it raises the alarm when it stops coming.",
    )
