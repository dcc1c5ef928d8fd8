"""
How many replicas each service should have. An alert wakes, a recording rule decides.

Each signal asks for replicas in a series of its own; the largest counts. Missing data may never look like missing
demand: while any signal is incomplete, or not every running replica is scraped, the answer may rise and never falls.
"""

from fractions import Fraction

from obslib import names
from prometheus import foreign, recorded, scaling_alerts
from prometheus.durations import Clock, Duration, decimal
from prometheus.policy import Backlog, Policy, Scaling, Server, Service
from prometheus.promql import BY_INSTANCE, BY_SERVICE, ON_SERVICE, SERVICE, lines, selector
from prometheus.rules import Alert, Group, Record

#: How far the demand may exceed what runs before a replica is added; HPA's tolerance.
_TOLERANCE = "1.1"
_BACKLOG = "backlog"
_CPU = "cpu"


def groups(policy: Policy, clock: Clock) -> list[Group]:
    """Nothing where no service scales."""
    scaling = policy.scaling()
    if not scaling:
        return []
    deciding: list[Record | Alert] = [
        _running(scaling),
        *[rule for service in scaling for rule in _demands(service, policy.server, clock)],
        _complete(),
        _wanted(),
        _chosen(),
        _desired(),
        *[alert for service in scaling for alert in scaling_alerts.wakers(service, policy.server, clock)],
    ]
    # As often as replicas are scraped: a spike waits for nothing else.
    every = clock(policy.server.scrape_interval)
    return [
        Group(
            name="obslib_scaling_bounds",
            interval=clock("15s"),
            rules=[rule for service in scaling for rule in _bounds(service)],
        ),
        Group(name="obslib_scaling", interval=every, rules=deciding),
        Group(name="obslib_scaling_health", rules=scaling_alerts.health(clock)),
    ]


def _policy(service: Service) -> Scaling:
    assert service.scaling is not None
    return service.scaling


def _bounds(service: Service) -> list[Record]:
    scaling = _policy(service)
    targets = {
        "in_flight": scaling.in_flight_per_replica,
        "cpu": scaling.cpu,
        "backlog": scaling.backlog.jobs_per_replica if scaling.backlog else None,
    }
    bounds = [
        (recorded.SCALE_MIN, Fraction(scaling.min_replicas), {}),
        (recorded.SCALE_MAX, Fraction(scaling.max_replicas), {}),
        (recorded.SCALE_DEMAND_EXPECTED, Fraction(len(scaling.signals())), {}),
        *((recorded.SCALE_TARGET, target, {"signal": name}) for name, target in targets.items() if target is not None),
    ]
    return [
        Record(name=name, expression=f"vector({decimal(value)})", labels={**service.identity, **labels})
        for name, value, labels in bounds
    ]


def _running(services: list[Service]) -> Record:
    wanted = f'{names.LABEL_SERVICE}=~"{"|".join(service.name for service in services)}"'
    kube = selector(foreign.KUBE_REPLICAS, f'{foreign.LABEL_DEPLOYMENT}=~"{"|".join(s.name for s in services)}"')
    return Record(
        name=recorded.SCALE_RUNNING,
        # Whoever starts replicas knows how many there are. Without such a one those that discovery knows, up or not: an
        # overloaded replica misses scrapes, and is the last reason to believe that there are fewer.
        expression=lines(f"""
            max {BY_SERVICE} ({_finite(selector(foreign.AUTOSCALER_REPLICAS, wanted))})
            or {ON_SERVICE}
            max {BY_SERVICE} (
              label_replace({kube}, "{names.LABEL_SERVICE}", "$1", "{foreign.LABEL_DEPLOYMENT}", "(.+)")
            )
            or {ON_SERVICE}
            count {BY_SERVICE} ({selector(foreign.UP, wanted)})
        """),
    )


def _finite(expression: str) -> str:
    # NaN compares as false and Inf is not below Inf: neither is a demand.
    return f"({expression} >= 0) < Inf"


def _demands(service: Service, server: Server, clock: Clock) -> list[Record]:
    scaling = _policy(service)
    rules: list[Record] = []
    if scaling.in_flight_per_replica is not None:
        rules += _in_flight(service, scaling.in_flight_per_replica)
    if scaling.cpu is not None:
        rules += _cpu(service, scaling.cpu, clock(scaling.cpu_hold), server.samples(scaling.cpu_hold), clock)
    if scaling.backlog is not None:
        rules += _backlog(service, scaling.backlog)
    return rules


def _signal(service: Service, signal: str, *, demand: str, reporting: str) -> list[Record]:
    """What a signal asks for, and how many replicas have contributed to it."""
    labels = {**service.identity, "signal": signal}
    return [
        Record(name=recorded.SCALE_DEMAND, expression=lines(demand), labels=labels),
        Record(name=recorded.SCALE_REPORTING, expression=lines(reporting), labels=labels),
    ]


def _in_flight(service: Service, per_replica: Fraction) -> list[Record]:
    # The instantaneous sum: an average over 30 s would see a spike 15 s later, and a stopped replica 30 s longer.
    active = _finite(f"sum {BY_INSTANCE} ({selector(names.HTTP_SERVER_ACTIVE_REQUESTS, **service.identity)})")
    demand, reporting = f"sum {BY_SERVICE} ({active})", f"count {BY_SERVICE} ({active})"
    if service.edge and service.edge.backend:
        queue = f"sum ({_finite(selector(foreign.HAPROXY_BACKEND_QUEUE, proxy=service.edge.backend))})"
        # A queue that nobody reports adds nothing to the demand, and makes the signal incomplete.
        demand = f"({demand} + on () group_left () {queue} or {ON_SERVICE} {demand})"
        reporting = f"{reporting} and on () {queue}"
    return _signal(service, "in_flight", demand=f"{demand} / {decimal(per_replica)}", reporting=reporting)


def _cpu(service: Service, target: Fraction, hold: Duration, samples: int, clock: Clock) -> list[Record]:
    raw = f"sum {BY_INSTANCE} (rate({selector(foreign.PROCESS_CPU, **service.identity)}[{hold}]))"
    # Two hundred services' rates are dear, and this one is there already.
    used = _finite(selector(recorded.INSTANCE_CPU, **service.identity) if hold == clock("5m") else raw)
    usable = f"sum {BY_SERVICE} ({selector(recorded.INSTANCE_CPU_USABLE, **service.identity)}) > 0"
    running = selector(recorded.SCALE_RUNNING, **service.identity)
    needed = selector(recorded.SCALE_CPU_NEEDED, **service.identity)
    return [
        Record(
            name=recorded.SCALE_CPU_NEEDED,
            expression=lines(f"""
                {running}
                * {ON_SERVICE} (sum {BY_SERVICE} ({used}) / {ON_SERVICE} ({usable}))
                / {decimal(target)}
            """),
            labels=service.identity,
        ),
        *_signal(
            service,
            _CPU,
            # Above the target for the whole window: one replica more, and none further until a full window has passed
            # since the number changed. The average needs that long to tell whether the last one helped.
            demand=f"""
                {needed} <= {ON_SERVICE} {running}
                or {ON_SERVICE}
                (
                  {running} + 1
                  and {ON_SERVICE}
                  changes({running}[{hold}]) == 0
                  and {ON_SERVICE}
                  count_over_time({running}[{hold}]) >= {samples}
                  and {ON_SERVICE}
                  {needed}
                )
                or {ON_SERVICE}
                ({running} and {ON_SERVICE} {needed})
            """,
            reporting=f"count {BY_SERVICE} ({used})",
        ),
    ]


def _backlog(service: Service, backlog: Backlog) -> list[Record]:
    reporter = {**service.identity, names.LABEL_SERVICE: backlog.reported_by}
    length = _finite(selector(backlog.metric, **reporter))
    # Every process reports the length of the same queue: the longest report counts, and one is enough.
    return _signal(
        service,
        _BACKLOG,
        demand=f"max ({length}) / {decimal(backlog.jobs_per_replica)}",
        reporting=f"count ({length})",
    )


def _complete() -> Record:
    own = selector(recorded.SCALE_REPORTING, f'signal!="{_BACKLOG}"')
    return Record(
        name=recorded.SCALE_DEMAND_COMPLETE,
        # A signal is complete when it has a value, and every scraped replica has contributed.
        expression=lines(f"""
            count {BY_SERVICE} (
              {recorded.SCALE_DEMAND}
              and on ({SERVICE}, signal)
              (
                {own} >= {ON_SERVICE} group_left () {recorded.UP}
                or
                {selector(recorded.SCALE_REPORTING, signal=_BACKLOG)}
              )
            )
        """),
    )


def _wanted() -> Record:
    demand = f"max {BY_SERVICE} ({recorded.SCALE_DEMAND})"
    running = recorded.SCALE_RUNNING
    return Record(
        name=recorded.SCALE_WANTED,
        # A little more than what runs can carry is carried: the tolerance is applied once, to the unrounded demand. One
        # more for the CPU is no little more: it has been seen for a whole window, and of many it is less than a tenth.
        expression=lines(f"""
            (
              {running}
              and {ON_SERVICE}
              {demand} > {ON_SERVICE} {running}
              and {ON_SERVICE}
              {demand} <= {ON_SERVICE} {_TOLERANCE} * {running}
              unless {ON_SERVICE}
              {selector(recorded.SCALE_DEMAND, signal=_CPU)} > {ON_SERVICE} {running}
            )
            or {ON_SERVICE}
            ceil({demand})
        """),
    )


def _chosen() -> Record:
    wanted, running = recorded.SCALE_WANTED, recorded.SCALE_RUNNING
    # What was desired a moment ago; at the very first, what runs.
    held = f"({recorded.SCALE_DESIRED} or {ON_SERVICE} {running})"
    return Record(
        name=recorded.SCALE_CHOSEN,
        expression=lines(f"""
            (
              (
                {wanted}
                and {ON_SERVICE}
                {recorded.SCALE_DEMAND_COMPLETE} == {ON_SERVICE} {recorded.SCALE_DEMAND_EXPECTED}
                and {ON_SERVICE}
                {recorded.UP} == {ON_SERVICE} {running}
              )
              or {ON_SERVICE}
              {wanted} > {ON_SERVICE} {held}
              or {ON_SERVICE}
              {held}
            )
            and {ON_SERVICE}
            {running} > 0
        """),
    )


def _desired() -> Record:
    chosen, least, most = recorded.SCALE_CHOSEN, recorded.SCALE_MIN, recorded.SCALE_MAX
    return Record(
        name=recorded.SCALE_DESIRED,
        # `clamp` takes numbers only, and each service has bounds of its own.
        expression=lines(f"""
            ({chosen} >= {ON_SERVICE} {least}) <= {ON_SERVICE} {most}
            or {ON_SERVICE}
            ({most} and {ON_SERVICE} {chosen} > {ON_SERVICE} {most})
            or {ON_SERVICE}
            ({least} and {ON_SERVICE} {chosen})
        """),
    )
