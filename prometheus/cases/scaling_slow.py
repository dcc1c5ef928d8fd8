"""What about scaling takes longer than minutes, in steps of thirty seconds."""

from obslib import names
from prometheus import foreign
from prometheus.cases.case import Case, fires, quiet, series, written
from prometheus.cases.story import Story, per_replica, scales, unit, within
from prometheus.policy import Policy, Service


def cases(policy: Policy) -> list[Case]:
    """What takes longer than minutes, for each service that scales by what reacts at once."""
    found: list[Case] = []
    for service in policy.scaling():
        if scales(service):
            found += [*_maxed_out(service), *_flapping(service), *_converging(service)]
            if service.objectives and service.objectives.latency_bound and per_replica(service):
                found += _ineffective(service)
    return found


def _slow_story(service: Service, replicas: int, wanted: float) -> dict[str, str]:
    """An hour in steps of thirty seconds."""
    share = replicas if per_replica(service) else 1
    busy = f"{wanted * unit(service) / share:g}x120"
    return Story(service=service, replicas=replicas, busy=busy).series(120)


def _maxed_out(service: Service) -> list[Case]:
    assert service.scaling is not None
    most, about = service.scaling.max_replicas, {"service": service.name}
    return [
        Case(
            name=f"{service.name}: more is needed than the policy allows",
            interval="30s",
            series=_slow_story(service, most, 1.5 * most),
            checks=[
                quiet("ScaleMaxedOut", "14m", **about),
                fires("ScaleMaxedOut", "17m", **about),
                quiet("ScaleNotConverging", "30m", **about),
            ],
        ),
        Case(
            name=f"{service.name}: as many as the policy allows are enough",
            interval="30s",
            series=_slow_story(service, most, most),
            checks=[quiet("ScaleMaxedOut", "30m", **about), quiet("ScaleNotConverging", "30m", **about)],
        ),
    ]


def _flapping(service: Service) -> list[Case]:
    about = {"service": service.name}
    running = written(foreign.AUTOSCALER_REPLICAS, **service.identity)
    return [
        Case(
            name=f"{service.name}: replicas that come and go every few minutes flap",
            interval="30s",
            series={running: "2x4 3x4 " * 15},
            checks=[fires("ScaleFlapping", "50m", **about)],
        ),
        Case(
            name=f"{service.name}: out in three steps and back one by one is a spike",
            interval="30s",
            series={running: "1x20 2x2 4x2 8x9 7x1 6x1 5x1 4x1 3x1 2x1 1x60"},
            checks=[quiet("ScaleFlapping", "30m", **about), quiet("ScaleFlapping", "50m", **about)],
        ),
    ]


def _converging(service: Service) -> list[Case]:
    about = {"service": service.name}
    assert service.scaling is not None
    running = written(foreign.AUTOSCALER_REPLICAS, **service.identity)
    many = within(service, 4)
    return [
        Case(
            name=f"{service.name}: an orderly scale-in is not taken for a failure to converge",
            interval="30s",
            series=_slow_story(service, many, 0.1) | {running: f"{many}x60 {service.scaling.min_replicas}x60"},
            checks=[quiet("ScaleNotConverging", "25m", **about), quiet("ScaleNotConverging", "50m", **about)],
        ),
        *_never_ready(service, running),
    ]


def _never_ready(service: Service, running: str) -> list[Case]:
    """The last replica is started, given up and started again: there are as many as desired, but they do not serve."""
    about = {"service": service.name}
    two = within(service, 2)
    if two < 2:
        return []
    return [
        Case(
            name=f"{service.name}: a replica that never becomes ready is one that is missing, {title}",
            interval="30s",
            series=_slow_story(service, two - 1, two) | {running: counted},
            checks=[quiet("ScaleNotConverging", "9m", **about), fires("ScaleNotConverging", "12m", **about)],
        )
        for title, counted in (
            ("though it is counted", f"{two}x60"),
            ("whether it is counted or not", " ".join([f"{two}x4 {two - 1}x0"] * 10)),
        )
    ]


def _ineffective(service: Service) -> list[Case]:
    assert service.objectives is not None
    assert service.objectives.latency_bound is not None
    about = {"service": service.name}
    running = written(foreign.AUTOSCALER_REPLICAS, **service.identity)
    bound_seconds = float(service.objectives.latency_bound.seconds)
    above = next(b for b in names.DURATION_BUCKETS_SECONDS if b > bound_seconds)

    def durations(fast_then: tuple[float, float]) -> dict[str, str]:
        """Twenty minutes with a share of fast answers, then another share."""
        first, second = (600 / 2 * share for share in fast_then)
        bucket = f"{names.HTTP_SERVER_REQUEST_DURATION}_bucket"
        fast = f"0+{first:g}x60 {60 * first:g}+{second:g}x60"
        every = "0+300x60 18000+300x60"
        return {
            series(bucket, service, le=str(bound_seconds)): fast,
            series(bucket, service, le=str(float(above))): every,
            series(bucket, service, le="+Inf"): every,
        }

    def spike() -> dict[str, str]:
        """Twenty minutes of fast answers, one of slow ones, then some that are a little too slow."""
        fast, slow, nearly = "0+300x40", "12000x1", "12000x78"
        return {
            series(bucket, service, le=str(bound_seconds)): f"{fast} {slow} {nearly}",
            series(bucket, service, le=str(float(above))): f"{fast} {slow} 12000+300x78",
            series(bucket, service, le="10.0"): "0+300x121",
            series(bucket, service, le="+Inf"): "0+300x121",
        }

    bucket = f"{names.HTTP_SERVER_REQUEST_DURATION}_bucket"
    added = {running: "2x60 6x60"}
    return [
        Case(
            name=f"{service.name}: replicas were added and it is as slow as before: what is slow is behind it",
            interval="30s",
            series=added | durations((0.1, 0.1)),
            checks=[
                quiet("ScaleIneffective", "36m", **about),
                fires("ScaleIneffective", "38m", **about),
                quiet("ScaleIneffective", "50m", **about),
            ],
        ),
        Case(
            name=f"{service.name}: replicas were added and it is fast again",
            interval="30s",
            series=added | durations((0.1, 1.0)),
            checks=[quiet("ScaleIneffective", at, **about) for at in ("35m", "40m", "44m")],
        ),
        Case(
            name=f"{service.name}: replicas were added in a spike and it is faster, though not as fast as before",
            interval="30s",
            series={running: "2x41 6x80"} | spike(),
            checks=[quiet("ScaleIneffective", f"{minute}m", **about) for minute in range(26, 36)],
        ),
    ]
