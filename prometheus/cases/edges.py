"""
Each limit from both sides: a little more and the alert fires when its wait is over; a little less and it is silent.

In steps of twenty seconds, so that a wait is seen to the step.
"""

from collections.abc import Iterator
from typing import Final

from obslib import names
from prometheus import foreign
from prometheus.cases.case import Case, answers, errors, fires, quiet, series, up, written
from prometheus.policy import Policy, Service

STEP_SECONDS: Final = 20
_STEPS: Final = 120
_GIB: Final = 1024**3

Labels = dict[str, str]

_PROMETHEUS: Final = {"job": "platform", "service": "prometheus", "instance": "prometheus"}
#: A rate is known from the second sample on.
_RATE: Final = STEP_SECONDS
#: A rate of nothing before is whole only when its window of five minutes is full.
_WINDOW: Final = 300 - STEP_SECONDS


def _at(value: float) -> str:
    return f"{value:g}x{_STEPS}"


def _per_step(per_step: float) -> str:
    return f"0+{per_step:g}x{_STEPS}"


def _over(
    alert: str, given: dict[str, str], labels: Labels, *, true_after: int = 0, wait: int, about: str = ""
) -> Case:
    """
    The alert fires.

    Args:
        alert: which.
        given: what makes it.
        labels: of the alert.
        true_after: how many seconds after the beginning its condition is true.
        wait: how many seconds it has to be.
        about: which of several limits.

    """
    due = true_after + wait
    before, after = max(0, due - STEP_SECONDS), due + (3 if true_after == _WINDOW else 1) * STEP_SECONDS
    return Case(
        name=f"{alert}: {about or 'a little over the limit'}, as soon as it has lasted",
        interval=f"{STEP_SECONDS}s",
        series=given,
        checks=[quiet(alert, f"{before}s", **labels), fires(alert, f"{after}s", **labels)],
    )


def _under(alert: str, given: dict[str, str], labels: Labels, *, about: str = "") -> Case:
    return Case(
        name=f"{alert}: {about or 'a little under the limit'}, for however long",
        interval=f"{STEP_SECONDS}s",
        series=given,
        checks=[quiet(alert, at, **labels) for at in ("400s", "800s", "1500s", "2000s")],
    )


def of_causes(policy: Policy) -> list[Case]:
    """What is in causes.yml, for the first service with each signal."""
    service = next(iter(policy.services.values()))
    found = [*_cpu(service), *_lag(service), *_memory(service), *_descriptors(service), *_waiting(service)]
    for alert, metric, labels in (
        ("DependencyFailing", names.HTTP_CLIENT_REQUEST_DURATION, {names.LABEL_SERVER_ADDRESS: "payments"}),
        ("DatabaseFailing", names.DB_CLIENT_OPERATION_DURATION, {names.LABEL_DB_SYSTEM: "postgresql"}),
    ):
        found += _failing(alert, metric, service, labels)
    crowded = [s for s in policy.scaling() if s.scaling and s.scaling.in_flight_per_replica]
    queued = [s for s in policy.scaling() if s.scaling and s.scaling.backlog]
    return [
        *found,
        *(case for crowd in crowded[:1] for case in _crowd(crowd)),
        *(c for q in queued[:1] for c in _queue(q)),
    ]


def _crowd(service: Service) -> Iterator[Case]:
    assert service.scaling is not None
    assert service.scaling.in_flight_per_replica is not None
    target = float(service.scaling.in_flight_per_replica)

    def busy(times: float) -> dict[str, str]:
        return {up(service): _at(1), series(names.HTTP_SERVER_ACTIVE_REQUESTS, service): _at(times * target)}

    yield _over("ConcurrencySaturated", busy(2.1), service.identity, wait=120)
    yield _under("ConcurrencySaturated", busy(1.9), service.identity)


def _cpu(service: Service) -> Iterator[Case]:
    def using(cores: float) -> dict[str, str]:
        return {
            series(names.PROCESS_CPU_LIMIT, service): _at(2),
            series(foreign.PROCESS_CPU, service): _per_step(STEP_SECONDS * cores),
        }

    yield _over("CpuSaturated", using(0.93), service.identity, true_after=_WINDOW, wait=600)
    yield _under("CpuSaturated", using(0.87), service.identity)


def _lag(service: Service) -> Iterator[Case]:
    def late(within: dict[str, float]) -> dict[str, str]:
        name = f"{names.ASYNCIO_EVENT_LOOP_LAG}_bucket"
        return {series(name, service, le=le): _per_step(20 * share) for le, share in {**within, "+Inf": 1}.items()}

    # The 95th percentile by the rule of three: 114 ms, and 92 ms.
    over = late({"0.05": 0.9, "0.1": 0.945, "0.25": 1})
    under = late({"0.05": 0.9, "0.1": 0.96, "0.25": 1})
    yield _over("EventLoopLagHigh", over, service.identity, true_after=_RATE, wait=120)
    yield _under("EventLoopLagHigh", under, service.identity)


def _memory(service: Service) -> Iterator[Case]:
    def growing(first: float, an_hour: float, born: float) -> dict[str, str]:
        """Shares of the limit, at first and more each hour."""
        per_step = an_hour * _GIB * STEP_SECONDS / 3600
        return {
            series(foreign.PROCESS_MEMORY, service): f"{first * _GIB:.0f}+{per_step:.0f}x{_STEPS}",
            series(names.PROCESS_MEMORY_LIMIT, service): _at(_GIB),
            series(foreign.PROCESS_START, service): _at(born),
        }

    alert = "MemoryExhaustionPredicted"
    # 50 % and 48 % more an hour are 60 % after 750 s; a limit is reached within the hour from the beginning.
    used = growing(0.5, 0.48, -3600)
    yield _over(alert, used, service.identity, true_after=760, wait=600, about="six tenths are used")
    # Twenty minutes old at the beginning, and half an hour after ten minutes.
    young = growing(0.62, 0.48, -1200)
    yield _over(alert, young, service.identity, true_after=620, wait=600, about="half an hour old")
    filling = growing(0.62, 0.4, -3600)
    yield _over(alert, filling, service.identity, true_after=_RATE, wait=600, about="full within the hour")
    yield _under(alert, growing(0.61, 0.2, -3600), service.identity, about="not full within the hour")


def _descriptors(service: Service) -> Iterator[Case]:
    def opened(count: int) -> dict[str, str]:
        return {
            series(foreign.PROCESS_OPEN_FDS, service): _at(count),
            series(foreign.PROCESS_MAX_FDS, service): _at(1000),
        }

    yield _over("FdExhaustion", opened(830), service.identity, wait=300)
    yield _under("FdExhaustion", opened(770), service.identity)


def _waiting(service: Service) -> Iterator[Case]:
    pool = series(names.DB_CLIENT_CONNECTION_PENDING_REQUESTS, service, **{names.LABEL_POOL: "orders"})
    threads = series(names.ANYIO_THREAD_LIMITER_WAITING, service)
    for alert, waiting in (("ConnectionPoolExhausted", pool), ("ThreadsExhausted", threads)):
        yield _over(alert, {waiting: _at(1)}, service.identity, wait=120)
        yield _under(alert, {waiting: _at(0)}, service.identity)


def _failing(alert: str, metric: str, service: Service, labels: dict[str, str]) -> Iterator[Case]:
    def calls(good: float, bad: float) -> dict[str, str]:
        """In five minutes."""
        return {
            series(f"{metric}_count", service, **labels, **{names.LABEL_ERROR_TYPE: error}): _per_step(count / 15)
            for error, count in (("", good), ("TimeoutError", bad))
        }

    yield _over(alert, calls(890, 110), service.identity, true_after=_RATE, wait=120)
    yield _under(alert, calls(910, 90), service.identity)
    yield _over(alert, calls(5, 5.4), service.identity, true_after=_WINDOW, wait=120, about="just enough errors")
    yield _under(alert, calls(5, 4.6), service.identity, about="not quite enough errors")


def _queue(service: Service) -> Iterator[Case]:
    assert service.scaling is not None
    backlog = service.scaling.backlog
    assert backlog is not None
    most = service.scaling.max_replicas * float(backlog.jobs_per_replica)
    queue = series(backlog.metric, Service(name=backlog.reported_by, namespace=service.namespace))

    def long(times: float) -> dict[str, str]:
        return {up(service): _at(1), queue: _at(times * most)}

    yield _over("QueueBacklog", long(2.1), service.identity, wait=900)
    yield _under("QueueBacklog", long(1.9), service.identity, about="as long all the time, and not too long")


def of_the_edge(policy: Policy) -> list[Case]:
    """What is in edge.yml, for the first service that is measured there, and the first that is probed."""
    measured = [s for s in policy.promising() if s.objectives and s.objectives.edge and s.objectives.availability]
    probed = [s for s in policy.services.values() if s.edge and s.edge.probed]
    return [*(c for s in measured[:1] for c in _disagreement(s)), *(c for s in probed[:1] for c in _probes(s))]


def _disagreement(service: Service) -> Iterator[Case]:
    assert service.edge is not None
    edge = {"proxy": service.edge.frontend, "instance": "haproxy", "service": "haproxy"}

    def seen(requests: float, lost: float) -> dict[str, str]:
        """In five minutes, at the edge; the service knows of no error."""
        return {
            written(foreign.HAPROXY_FRONTEND_RESPONSES, code="2xx", **edge): _per_step((requests - lost) / 15),
            written(foreign.HAPROXY_FRONTEND_RESPONSES, code="5xx", **edge): _per_step(lost / 15),
            answers(service): _per_step((requests - lost) / 15),
            errors(service): _per_step(0),
        }

    alert = "EdgeDisagrees"
    yield _over(alert, seen(6000, 132), service.identity, true_after=_RATE, wait=300)
    yield _under(alert, seen(6000, 108), service.identity)
    yield _over(alert, seen(53, 20), service.identity, true_after=_WINDOW, wait=300, about="just enough requests")
    yield _under(alert, seen(47, 20), service.identity, about="not quite enough requests")


def _probes(service: Service) -> Iterator[Case]:
    def answered(good: int) -> dict[str, str]:
        """By some of nine probes."""
        return {
            written(foreign.PROBE_SUCCESS, service="probe", instance=f"probe-{n}", probed=service.name): _at(n <= good)
            for n in range(1, 10)
        }

    yield _over("ProbeFailing", answered(4), service.identity, wait=60)
    yield _under("ProbeFailing", answered(5), service.identity)
    yield _over("ProbeMissing", {up(service): _at(1)}, service.identity, wait=600)


def of_the_pipeline(policy: Policy) -> list[Case]:
    """What is in pipeline.yml; the limits are the server's."""
    service, server = next(iter(policy.services.values())), policy.server
    renamed = series(names.TARGET_INFO, service, **{names.RESOURCE_SERVICE_NAME.replace(".", "_"): "another"})
    scraped = {"job": "services", **service.identity, "instance": "one"}
    samples, duration = written(foreign.SCRAPE_SAMPLES, **scraped), written(foreign.SCRAPE_DURATION, **scraped)
    timeout = float(server.scrape_timeout.seconds)
    own = {"service": "prometheus"}

    def about_itself(metric: str, **labels: str) -> str:
        return written(metric, **_PROMETHEUS, **labels)

    failed = about_itself(foreign.NOTIFICATIONS_FAILED, integration="webhook")
    dropped, nobody = about_itself(foreign.NOTIFICATIONS_DROPPED), about_itself(foreign.ALERTMANAGERS)
    found = [
        _over("ServiceNameDisagrees", {renamed: _at(1)}, service.identity, wait=600),
        _over("ScrapeNearSampleLimit", {samples: _at(0.83 * server.sample_limit)}, service.identity, wait=600),
        _under("ScrapeNearSampleLimit", {samples: _at(0.77 * server.sample_limit)}, {}),
        _over("ScrapeSlow", {duration: _at(0.83 * timeout)}, service.identity, wait=600),
        _under("ScrapeSlow", {duration: _at(0.77 * timeout)}, {}),
        _over("PlatformDown", {up(Service(name="jaeger")): _at(0)}, {"service": "jaeger"}, wait=300),
        _over("ConfigReloadFailed", {about_itself(foreign.CONFIG_RELOADED): _at(0)}, own, wait=300),
        _over("AlertDeliveryFailing", {nobody: _at(0)}, own, wait=300, about="nobody to tell"),
        _over("AlertDeliveryFailing", {dropped: _per_step(1)}, own, true_after=_RATE, wait=300, about="dropped"),
        Case(
            name="AlertDeliveryFailing: what was lost twice, and then no more, is over after a quarter of an hour",
            interval=f"{STEP_SECONDS}s",
            series={failed: f"0x3 1x3 2x{_STEPS}", dropped: _at(7)},
            checks=[
                fires("AlertDeliveryFailing", "800s", **own),
                quiet("AlertDeliveryFailing", "1300s"),
                quiet("AlertDeliveryFailing", "2000s"),
            ],
        ),
    ]
    for metric in (foreign.RULE_FAILURES, foreign.RULE_ITERATIONS_MISSED):
        given = {about_itself(metric, rule_group="g"): _per_step(1)}
        found.append(_over("RuleEvaluationFailing", given, own, true_after=_RATE, wait=300, about=metric))
    for alert, metric, label in (
        ("SpansDropped", names.SPANS_DROPPED, names.LABEL_REASON),
        ("LogLinesDropped", names.LOG_LINES_DROPPED, names.LABEL_REASON),
        ("TelemetryErrors", names.INTERNAL_ERRORS, names.LABEL_SIGNAL),
        ("LabelBudgetSpent", names.LABEL_SETS_OVERFLOWED, names.LABEL_METRIC),
    ):
        given = {series(metric, service, **{label: "any"}): _per_step(1)}
        found.append(_over(alert, given, service.identity, true_after=_RATE, wait=300))
    return found


def of_symptoms(policy: Policy) -> list[Case]:
    """What is in symptoms.yml and takes no week, for the first service."""
    service = next(iter(policy.services.values()))
    name = service.identity

    def targets(down: int, of: int) -> dict[str, str]:
        return {up(service, f"{service.name}-{n}"): _at(n > down) for n in range(1, of + 1)}

    return [
        _over("ServiceDown", targets(1, 1), name, wait=60),
        _over("DiscoveryEmpty", {written(foreign.UP, service="x", instance="x"): _at(1)}, name, wait=120),
        _over("TargetsDown", targets(1, 9), name, wait=600),
        _under("TargetsDown", targets(1, 11), name),
        *_outlier(service),
    ]


def _outlier(service: Service) -> Iterator[Case]:
    def two(first: tuple[float, float], second: tuple[float, float]) -> dict[str, str]:
        """The requests a second of two replicas, each with its share of errors."""
        return {
            selector: _per_step(STEP_SECONDS * rate * part)
            for n, (rate, share) in enumerate((first, second), 1)
            for selector, part in (
                (answers(service, f"{service.name}-{n}"), 1 - share),
                (errors(service, f"{service.name}-{n}"), share),
            )
        }

    alert = "ReplicaErrorsOutlier"
    first = {**service.identity, "instance": f"{service.name}-1"}
    for about, since, over, under in (
        ("an error in twenty", _RATE, two((10, 0.054), (10, 0)), two((10, 0.046), (10, 0))),
        ("five times the others' share", _RATE, two((10, 0.53), (10, 0.1)), two((10, 0.47), (10, 0.1))),
        ("a request in five seconds", _WINDOW, two((0.21, 0.5), (10, 0)), two((0.19, 0.5), (10, 0))),
        ("others with a request in five seconds", _WINDOW, two((10, 0.5), (0.21, 0)), two((10, 0.5), (0.19, 0))),
    ):
        yield _over(alert, over, first, true_after=since, wait=300, about=f"{about}, and more")
        yield _under(alert, under, first, about=f"{about}, nearly")
