"""Saturation, a blocked loop, memory, descriptors, connections, dependencies, backlogs."""

from obslib import names
from prometheus import foreign
from prometheus.cases.case import Case, constant, fires, quiet, rising, series, up
from prometheus.policy import Backlog, Policy, Service

_STEPS = 60
_GIB = 1024**3


def cases(policy: Policy) -> list[Case]:
    """For the first service of the policy, and the first with each signal."""
    service = next(iter(policy.services.values()))
    crowded = [s for s in policy.scaling() if s.scaling and s.scaling.in_flight_per_replica]
    queued = [(s, s.scaling.backlog) for s in policy.scaling() if s.scaling and s.scaling.backlog]
    return [
        *[case for crowd in crowded[:1] for case in _in_flight(crowd)],
        *_cpu(service),
        *_lag(service),
        *_memory(service),
        *_descriptors(service),
        *_pool(service),
        *_threads(service),
        *_dependency(service),
        *_database(service),
        *[case for consumer, backlog in queued[:1] for case in _backlog(consumer, backlog)],
    ]


def _pair(
    alert: str, service: Service, bad: dict[str, str], good: dict[str, str], *, what: str, but: str
) -> list[Case]:
    """An alert that fires after a while, and the twin in which it must not."""
    return [
        Case(
            name=what,
            series=bad,
            checks=[quiet(alert, "1m", service=service.name), fires(alert, "55m", service=service.name)],
        ),
        Case(name=but, series=good, checks=[quiet(alert, "55m", service=service.name)]),
    ]


def _in_flight(service: Service) -> list[Case]:
    assert service.scaling is not None
    assert service.scaling.in_flight_per_replica is not None
    target = float(service.scaling.in_flight_per_replica)
    active = series(names.HTTP_SERVER_ACTIVE_REQUESTS, service)

    def story(requests: float) -> dict[str, str]:
        return {up(service): constant(1, _STEPS), active: constant(requests, _STEPS)}

    return _pair(
        "ConcurrencySaturated",
        service,
        story(3 * target),
        story(1.5 * target),
        what="three times the requests a replica is meant to have at once are too many",
        but="half as many again as it is meant to have are for scaling to mend",
    )


def _cpu(service: Service) -> list[Case]:
    def story(cores: float) -> dict[str, str]:
        return {
            # Two cores, of which one process can use one.
            series(names.PROCESS_CPU_LIMIT, service): constant(2, _STEPS),
            series(foreign.PROCESS_CPU, service): rising(60 * cores, _STEPS),
        }

    return _pair(
        "CpuSaturated",
        service,
        story(0.95),
        story(0.6),
        what="a process that uses nearly all of one core uses nearly all it can, whatever its limit",
        but="sixty per cent of a core leave room",
    )


def _lag(service: Service) -> list[Case]:
    def story(slow: float) -> dict[str, str]:
        bounds = {"0.005": 1 - slow, "0.1": 1 - slow, "0.5": 1.0, "+Inf": 1.0}
        name = f"{names.ASYNCIO_EVENT_LOOP_LAG}_bucket"
        return {series(name, service, le=le): rising(60 * share, _STEPS) for le, share in bounds.items()}

    return _pair(
        "EventLoopLagHigh",
        service,
        story(0.2),
        story(0.02),
        what="a loop that is late every fifth time is blocked",
        but="a loop that is late every fiftieth time is busy",
    )


def _memory(service: Service) -> list[Case]:
    used, limit = series(foreign.PROCESS_MEMORY, service), series(names.PROCESS_MEMORY_LIMIT, service)
    born = series(foreign.PROCESS_START, service)

    def story(values: str, started: float = 0) -> dict[str, str]:
        return {
            used: values,
            limit: constant(_GIB, _STEPS),
            born: constant(started, _STEPS),
        }

    leak = rising(0.008 * _GIB, _STEPS, start=0.55 * _GIB)
    small = rising(0.009 * _GIB, _STEPS, start=0)
    return [
        *_pair(
            "MemoryExhaustionPredicted",
            service,
            story(leak),
            story(small),
            what="memory that grows towards its limit within the hour is a leak",
            but="memory that grows and is half used is not",
        ),
        Case(
            name="a process that has just started is filling its caches",
            series=story(leak, started=40 * 60),
            checks=[quiet("MemoryExhaustionPredicted", "55m", service=service.name)],
        ),
    ]


def _descriptors(service: Service) -> list[Case]:
    def story(opened: int) -> dict[str, str]:
        return {
            series(foreign.PROCESS_OPEN_FDS, service): constant(opened, _STEPS),
            series(foreign.PROCESS_MAX_FDS, service): constant(1024, _STEPS),
        }

    return _pair(
        "FdExhaustion",
        service,
        story(900),
        story(500),
        what="nine of ten descriptors open are too many",
        but="half of them are not",
    )


def _pool(service: Service) -> list[Case]:
    pending = series(names.DB_CLIENT_CONNECTION_PENDING_REQUESTS, service, **{names.LABEL_POOL: "orders"})
    return _pair(
        "ConnectionPoolExhausted",
        service,
        {pending: constant(3, _STEPS)},
        {pending: "0 3 " * 30},
        what="requests that wait for a connection all the time have too few",
        but="requests that wait now and then have enough",
    )


def _threads(service: Service) -> list[Case]:
    waiting = series(names.ANYIO_THREAD_LIMITER_WAITING, service)
    return _pair(
        "ThreadsExhausted",
        service,
        {waiting: constant(2, _STEPS)},
        {waiting: "0 2 " * 30},
        what="calls that wait for a thread all the time have too few",
        but="calls that wait now and then have enough",
    )


def _calls(metric: str, service: Service, labels: dict[str, str], failing: float, error_type: str) -> dict[str, str]:
    ok, failed = {**labels, names.LABEL_ERROR_TYPE: ""}, {**labels, names.LABEL_ERROR_TYPE: error_type}
    return {
        series(f"{metric}_count", service, **ok): rising(60 * (1 - failing), _STEPS),
        series(f"{metric}_count", service, **failed): rising(60 * failing, _STEPS),
    }


def _dependency(service: Service) -> list[Case]:
    metric, there = names.HTTP_CLIENT_REQUEST_DURATION, {names.LABEL_SERVER_ADDRESS: "payments"}
    return [
        *_pair(
            "DependencyFailing",
            service,
            _calls(metric, service, there, 0.3, "ConnectTimeout"),
            _calls(metric, service, there, 0.3, "404"),
            what="a dependency that does not answer every third call is failing",
            but="one that answers 404 to every third call works",
        ),
        Case(
            name="two failed calls of three are too few to tell",
            series=_calls(metric, service, there, 0, "503")
            | {series(f"{metric}_count", service, **there, **{names.LABEL_ERROR_TYPE: "503"}): "0x50 2x10"},
            checks=[quiet("DependencyFailing", "55m", service=service.name)],
        ),
    ]


def _database(service: Service) -> list[Case]:
    metric, there = names.DB_CLIENT_OPERATION_DURATION, {names.LABEL_DB_SYSTEM: "postgresql"}
    return _pair(
        "DatabaseFailing",
        service,
        _calls(metric, service, there, 0.3, "OperationalError"),
        _calls(metric, service, there, 0.01, "IntegrityError"),
        what="a database that fails every third operation is failing",
        but="one operation in a hundred that breaks a constraint is not",
    )


def _backlog(service: Service, backlog: Backlog) -> list[Case]:
    assert service.scaling is not None
    reporter = Service(name=backlog.reported_by, namespace=service.namespace)
    queue = series(backlog.metric, reporter)
    per_replica = float(backlog.jobs_per_replica)
    most = service.scaling.max_replicas
    return [
        *_pair(
            "QueueBacklog",
            service,
            {up(service): constant(1, _STEPS), queue: rising(per_replica / 4, _STEPS)},
            {up(service): constant(1, _STEPS), queue: rising(-per_replica / 30, _STEPS, start=3 * per_replica)},
            what="a queue that grows and grows is not worked off",
            but="a long queue that shrinks is",
        ),
        Case(
            name="a queue that not even all replicas could work off is too long, whether it grows or not",
            series={up(service): constant(1, _STEPS), queue: constant(3 * most * per_replica, _STEPS)},
            checks=[fires("QueueBacklog", "55m", service=service.name)],
        ),
    ]
