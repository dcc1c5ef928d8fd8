"""
How many replicas are desired.

As many replicas run as are up, unless the story says otherwise.
"""

from prometheus import foreign
from prometheus.cases import losses
from prometheus.cases.case import Case, fires, quiet, up, written
from prometheus.cases.story import IN, OUT, STEPS, Story, asking, desired, per_replica, scales, unit, within
from prometheus.policy import Policy, Service


def cases(policy: Policy) -> list[Case]:
    """For every service that scales, by each of its signals."""
    found: list[Case] = []
    for service in policy.scaling():
        found += losses.cases(service)
        found += _demand(service)
        if service.scaling and service.scaling.cpu is not None:
            found += _hold(service)
    return found


def _demand(service: Service) -> list[Case]:
    scaling = service.scaling
    if scaling is None or not scales(service) or scaling.min_replicas == scaling.max_replicas:
        return []
    about, least, most = {"service": service.name}, scaling.min_replicas, scaling.max_replicas
    two, four = within(service, 2), within(service, max(4, least + 1))
    falling = asking(service, four, 0.1)
    name = service.name
    return [
        Case(
            name=f"{name}: a spike asks for replicas within two evaluations, and for no more than the policy allows",
            interval="5s",
            series=asking(service, least, 0.5 * least, 10 * most).series(),
            checks=[
                desired(service, "1m", least),
                quiet(OUT, "1m", **about),
                desired(service, "65s", most),
                quiet(OUT, "65s", **about),
                fires(OUT, "70s", **about),
                quiet(IN, "10m", **about),
                fires("ScaleNotConverging", "715s", **about),
            ],
        ),
        Case(
            name=f"{name}: a little more than what runs can carry is carried",
            interval="5s",
            series=asking(service, two, 1.05 * two).series(),
            checks=[
                desired(service, "5m", two),
                quiet(OUT, "5m", **about),
                quiet("ScaleNotConverging", "12m", **about),
            ],
        ),
        Case(
            name=f"{name}: replicas are given up only after a whole window without need",
            interval="5s",
            series=falling.series(),
            checks=[
                desired(service, "1m", max(least, 1)),
                quiet(IN, "4m", **about),
                fires(IN, "6m", **about),
                quiet(OUT, "6m", **about),
                quiet("ScaleSignalMissing", "6m", **about),
            ],
        ),
        Case(
            name=f"{name}: a signal that is not there is missed after a minute, where there is anybody to send it",
            interval="5s",
            series={up(service): f"1x{STEPS}"},
            checks=[quiet("ScaleSignalMissing", "55s", **about), fires("ScaleSignalMissing", "70s", **about)],
        ),
        Case(
            name=f"{name}: of no replicas no signal is missed",
            interval="5s",
            series={written(foreign.AUTOSCALER_REPLICAS, **service.identity): f"0x{STEPS}"},
            checks=[quiet("ScaleSignalMissing", "10m", **about)],
        ),
        Case(
            name=f"{name}: no replica is given up while the error budget burns",
            interval="5s",
            series=falling.series()
            | {written(foreign.ALERTS, alertname="SLOErrorBudgetBurn", alertstate="firing", **about): f"1x{STEPS}"},
            checks=[quiet(IN, "6m", **about), quiet(IN, "11m", **about)],
        ),
        Case(
            name=f"{name}: what is desired stays while a replica misses its scrapes",
            interval="5s",
            series=asking(service, four, four).series() | _deaf(service, four),
            checks=[
                desired(service, "4m", four),
                desired(service, "11m", four),
                quiet(IN, "11m", **about),
            ],
        ),
        Case(
            name=f"{name}: when all targets are gone there is no answer, rather than a wrong one",
            interval="5s",
            series={
                key: f"{values.split()[0].split('x')[0]}x60 stale" if "+" not in values else "0+0.5x60 stale"
                for key, values in asking(service, four, four).series().items()
            },
            checks=[desired(service, "4m", four), desired(service, "11m", None), quiet(IN, "11m", **about)],
        ),
    ]


def _deaf(service: Service, replicas: int) -> dict[str, str]:
    """The last replica is busy and answers no scrape after five minutes: all of its series but `up` go stale."""
    story = asking(service, replicas, replicas)
    last = story.instances()[-1]
    silent = {up(service, last): "1x60 0x84"}
    if per_replica(service):
        silent[story.active(last)] = f"{unit(service):g}x60 stale"
    else:
        silent[story.jobs()] = f"{replicas * unit(service):g}x60 {0:g}x84"
    if story.scaling.cpu is not None:
        silent[story.cpu(last)] = "0+0.5x60 stale"
    return silent


def _hold(service: Service) -> list[Case]:
    scaling = service.scaling
    assert scaling is not None
    assert scaling.cpu is not None
    two = within(service, 2)
    if scaling.max_replicas < two + 2:
        return []
    hot = float(scaling.cpu) * 1.2
    idle = f"0x{STEPS}"
    story = Story(service=service, replicas=two, busy=idle, cores=hot, backlog=idle)
    late = f"{service.name}-{two + 1}"
    joins = 78  # after six and a half minutes
    third = {
        up(service, late): f"_x{joins} 1x{STEPS - joins}",
        story.cpu(late): f"_x{joins} 0+{hot * 5:g}x{STEPS - joins}",
    }
    if scaling.in_flight_per_replica is not None:
        third[story.active(late)] = f"_x{joins} 0x{STEPS - joins}"
    return [
        Case(
            name=f"{service.name}: average CPU above its target adds one replica, the next after a full window",
            interval="5s",
            series=story.series() | third,
            checks=[
                desired(service, "4m", two),
                desired(service, "6m", two + 1),
                desired(service, "410s", two + 1),
                desired(service, "8m", two + 1),
                desired(service, "11m", two + 1),
                desired(service, "710s", two + 2),
            ],
        ),
        Case(
            name=f"{service.name}: average CPU below its target adds none",
            interval="5s",
            series=Story(
                service=service, replicas=two, busy=idle, cores=float(scaling.cpu) * 0.9, backlog=idle
            ).series(),
            checks=[desired(service, "6m", two), quiet(OUT, "6m", service=service.name)],
        ),
        *_hold_of_many(service, hot),
    ]


def _hold_of_many(service: Service, cores: float) -> list[Case]:
    """One replica more is a tenth of ten, and less of more: no tolerance may swallow it."""
    assert service.scaling is not None
    most = service.scaling.max_replicas
    idle = f"0x{STEPS}"
    return [
        Case(
            name=f"{service.name}: average CPU above its target adds one to {count}",
            interval="5s",
            series=Story(service=service, replicas=count, busy=idle, cores=cores, backlog=idle).series(),
            checks=[desired(service, "4m", count), desired(service, "6m", count + 1)],
        )
        for count in (10, 20)
        if count < most
    ]
