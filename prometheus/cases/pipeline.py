"""Losses, limits, failing rules and alerts nobody receives."""

from obslib import names
from prometheus import foreign
from prometheus.cases.case import Case, constant, fires, quiet, rising, series, up, written
from prometheus.policy import Policy, Service

_STEPS = 30
_LOST = (
    ("SpansDropped", names.SPANS_DROPPED, names.LABEL_REASON, names.DROPPED_QUEUE_FULL),
    ("LogLinesDropped", names.LOG_LINES_DROPPED, names.LABEL_REASON, names.DROPPED_BUFFER_FULL),
    ("TelemetryErrors", names.INTERNAL_ERRORS, names.LABEL_SIGNAL, "traces"),
    ("LabelBudgetSpent", names.LABEL_SETS_OVERFLOWED, names.LABEL_METRIC, "orders"),
)
_PROMETHEUS = {"job": "platform", "service": "prometheus", "instance": "prometheus"}


def cases(policy: Policy) -> list[Case]:
    """The same for every policy, about its first service."""
    service = next(iter(policy.services.values()))
    return [
        *[case for row in _LOST for case in _lost(service, *row)],
        *_name(service),
        *_samples(policy, service),
        *_scrape(policy, service),
        *_platform(),
        *_own(
            "RuleEvaluationFailing",
            {written(foreign.RULE_FAILURES, **_PROMETHEUS, rule_group="g"): rising(1, _STEPS)},
            {written(foreign.RULE_FAILURES, **_PROMETHEUS, rule_group="g"): "7x30"},
        ),
        *_own(
            "RuleEvaluationFailing",
            {written(foreign.RULE_ITERATIONS_MISSED, **_PROMETHEUS, rule_group="g"): rising(1, _STEPS)},
            {written(foreign.RULE_ITERATIONS_MISSED, **_PROMETHEUS, rule_group="g"): "0x30"},
            what="skipped",
        ),
        *_own(
            "ConfigReloadFailed",
            {written(foreign.CONFIG_RELOADED, **_PROMETHEUS): constant(0, _STEPS)},
            {written(foreign.CONFIG_RELOADED, **_PROMETHEUS): constant(1, _STEPS)},
        ),
        *_own(
            "ConfigReloadFailed",
            {written(foreign.ALERTMANAGER_CONFIG_RELOADED, **_PROMETHEUS): constant(0, _STEPS)},
            {written(foreign.ALERTMANAGER_CONFIG_RELOADED, **_PROMETHEUS): constant(1, _STEPS)},
            what="Alertmanager",
        ),
        *_own(
            "AlertDeliveryFailing",
            {written(foreign.ALERTMANAGERS, **_PROMETHEUS): constant(0, _STEPS)},
            {written(foreign.ALERTMANAGERS, **_PROMETHEUS): constant(1, _STEPS)},
            what="nobody to deliver to",
        ),
        *_own(
            "AlertDeliveryFailing",
            {written(foreign.NOTIFICATIONS_FAILED, **_PROMETHEUS, integration="webhook"): rising(1, _STEPS)},
            {written(foreign.NOTIFICATIONS_FAILED, **_PROMETHEUS, integration="webhook"): "3x30"},
            what="refused",
        ),
        Case(
            name="a ticket that cannot be delivered is tried four times an hour: that is enough to be told",
            series={written(foreign.NOTIFICATIONS_FAILED, **_PROMETHEUS, integration="slack"): "0x14 1x14 2x14 3x30"},
            checks=[
                quiet("AlertDeliveryFailing", "25m"),
                fires("AlertDeliveryFailing", "40m", service="prometheus"),
                quiet("AlertDeliveryFailing", "70m"),
            ],
        ),
        Case(
            name="one message that was lost once, and then was not, pages nobody",
            series={written(foreign.NOTIFICATIONS_FAILED, **_PROMETHEUS, integration="slack"): "0x14 1x90"},
            checks=[quiet("AlertDeliveryFailing", f"{minute}m") for minute in (16, 22, 30, 45)],
        ),
        Case(
            name="the watchdog fires with no data at all",
            series={},
            checks=[fires("Watchdog", "0m"), fires("Watchdog", "20m")],
        ),
    ]


def slow(policy: Policy) -> list[Case]:
    """What takes hours to tell."""
    del policy

    def holds(instance: str) -> str:
        return written(foreign.HEAD_SERIES, **{**_PROMETHEUS, "instance": instance})

    def grows(first: int, a_minute: float) -> str:
        return rising(a_minute, 9 * 60, start=first)

    alert = "SeriesGrowthPredicted"
    return [
        Case(
            name="series that will have doubled within a day, as if a label had got out of hand, are noticed",
            series={
                holds("leaks"): grows(30_000, 120),
                holds("doubles"): grows(30_000, 23),
                holds("not-quite-doubles"): grows(30_000, 19),
                holds("just-large"): grows(20_500, 25),
                holds("not-quite-large"): grows(17_000, 25),
                holds("fills-slowly"): grows(30_000, 5),
                holds("has-just-begun"): grows(0, 20),
                # Every replica is another for ten minutes, and then there are the old ones' series and the new ones'.
                holds("is-deployed-to"): f"30000x120 30000+3000x10 60000x{9 * 60 - 130}",
            },
            checks=[
                quiet(alert, "60m"),
                *(fires(alert, "70m", instance=large) for large in ("leaks", "doubles", "just-large")),
                *(quiet(alert, "70m", instance=other) for other in ("not-quite-doubles", "not-quite-large")),
                *(quiet(alert, "8h", instance=other) for other in ("fills-slowly", "has-just-begun")),
                *(quiet(alert, f"{minute}m", instance="is-deployed-to") for minute in range(130, 260, 10)),
                fires(alert, "8h", instance="leaks", service="prometheus"),
            ],
        ),
    ]


def _lost(service: Service, alert: str, metric: str, label: str, value: str) -> list[Case]:
    lost = series(metric, service, **{label: value})
    return [
        Case(
            name=f"{alert}: what goes on being lost is noticed",
            series={lost: f"0x10 {rising(1, 20)}"},
            checks=[quiet(alert, "10m", service=service.name), fires(alert, "25m", service=service.name)],
        ),
        Case(
            name=f"{alert}: what was lost once, long ago or just now, is not",
            series={lost: "7x10 8x20"},
            checks=[quiet(alert, at, service=service.name) for at in ("5m", "12m", "25m")],
        ),
    ]


def _name(service: Service) -> list[Case]:
    called = names.RESOURCE_SERVICE_NAME.replace(".", "_")
    return [
        Case(
            name="a service whose resource has another name is found out",
            series={series(names.TARGET_INFO, service, **{called: "somebody-else"}): constant(1, _STEPS)},
            checks=[fires("ServiceNameDisagrees", "20m", service=service.name)],
        ),
        Case(
            name="one replica of two that has another name is found out",
            series={
                series(names.TARGET_INFO, service, "a", **{called: service.name}): constant(1, _STEPS),
                series(names.TARGET_INFO, service, "b", **{called: "somebody-else"}): constant(1, _STEPS),
            },
            checks=[
                quiet("ServiceNameDisagrees", "20m", instance="a"),
                fires("ServiceNameDisagrees", "20m", service=service.name, instance="b"),
            ],
        ),
        Case(
            name="a service that calls itself what Prometheus calls it is left alone",
            series={series(names.TARGET_INFO, service, **{called: service.name}): constant(1, _STEPS)},
            checks=[quiet("ServiceNameDisagrees", "20m", service=service.name)],
        ),
    ]


def _samples(policy: Policy, service: Service) -> list[Case]:
    samples = written(foreign.SCRAPE_SAMPLES, job="services", **service.identity, instance="one")
    limit = policy.server.sample_limit
    return [
        Case(
            name="nine tenths of the samples that Prometheus takes are nearly too many",
            series={samples: constant(round(0.9 * limit), _STEPS)},
            checks=[quiet("ScrapeNearSampleLimit", "5m"), fires("ScrapeNearSampleLimit", "20m", service=service.name)],
        ),
        Case(
            name="half of them are not, and what is scraped beside the services may have another limit",
            series={
                samples: constant(round(0.5 * limit), _STEPS),
                written(foreign.SCRAPE_SAMPLES, job="others", instance="other"): constant(2 * limit, _STEPS),
            },
            checks=[quiet("ScrapeNearSampleLimit", "20m")],
        ),
    ]


def _scrape(policy: Policy, service: Service) -> list[Case]:
    duration = written(foreign.SCRAPE_DURATION, job="services", **service.identity, instance="one")
    timeout = float(policy.server.scrape_timeout.seconds)
    return [
        Case(
            name="a scrape that takes nine tenths of its time will soon fail",
            series={duration: constant(0.9 * timeout, _STEPS)},
            checks=[quiet("ScrapeSlow", "5m"), fires("ScrapeSlow", "20m", service=service.name)],
        ),
        Case(
            name="one slow scrape among quick ones will not",
            series={duration: f"0.01x9 {timeout:g} 0.01x20"},
            checks=[quiet("ScrapeSlow", at) for at in ("11m", "20m")],
        ),
    ]


def _platform() -> list[Case]:
    platform = Service(name="jaeger")
    return [
        Case(
            name="what services stand on is a ticket when it is down, no page",
            series={up(platform): constant(0, _STEPS)},
            checks=[
                quiet("PlatformDown", "3m", service="jaeger"),
                fires("PlatformDown", "10m", service="jaeger"),
                quiet("ServiceDown", "20m", service="jaeger"),
            ],
        ),
        Case(
            name="and nothing while it is up, and of what belongs to somebody else",
            series={
                up(platform): constant(1, _STEPS),
                written(foreign.UP, job="others", instance="other"): constant(0, _STEPS),
            },
            checks=[quiet("PlatformDown", "20m")],
        ),
    ]


def _own(alert: str, bad: dict[str, str], good: dict[str, str], *, what: str = "") -> list[Case]:
    about = f"{alert}{f', {what}' if what else ''}"
    return [
        Case(
            name=f"{about}: told after some minutes",
            series=bad,
            checks=[quiet(alert, "3m"), fires(alert, "20m", service="prometheus")],
        ),
        Case(name=f"{about}: quiet while it is well", series=good, checks=[quiet(alert, "20m")]),
    ]
