"""
CPU a request from many short slices in turn: each server has a load of its own, and both pause between its slices.

What a machine's speed does within seconds reaches every server alike; what it does within a slice averages out, the
sooner the more slices there are. Nothing starts or ends with a slice, so it may be short.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.disturbance import Disturbance
from benchmarks.estimates import Estimate, bootstrapped
from benchmarks.site import Case, Server, Site

#: Some hundred requests: as many as fill a batch of spans.
SLICE_SECONDS: Final = 0.1
#: What a server needs for the requests that are under way when its load stops.
_SETTLE_SECONDS: Final = 0.004
#: Under a load that goes on, batches of spans fill long before they are due. A pause makes what is left of one due, so
#: that each slice would send one more than it should; this is due after no pause, for obslib and for peers.
_ENVIRONMENT: Final = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What the slices of one case took together, in one round."""

    label: str
    round: int
    requests: int
    cpu_seconds: float
    #: What others took of the server's CPU in the whole round, as a part of it.
    disturbed_part: float

    @property
    def cpu_seconds_per_request(self) -> float:
        """User and system time of all threads, and of all workers."""
        return self.cpu_seconds / self.requests


#: CPU seconds a request by label, of one round.
Costs = Mapping[str, float]


def run(
    site: Site,
    cases: Sequence[Case],
    *,
    rounds: int,
    count: int,
    told: Callable[[str], None],
    what: str = "CPU a request",
    first_round: int = 0,
    enough: Callable[[int], bool] = lambda _: False,
) -> list[Spent]:
    """
    Measure all cases in each round, with fresh processes.

    Args:
        site: Where.
        cases: What.
        rounds: How often.
        count: How many slices each case has in a round, times its own number of stretches.
        told: Told of each round.
        what: What it is told.
        first_round: Its number, where others were before.
        enough: Asked after each round, with their number, whether to end early.
    """
    cases = [replace(case, environment={**_ENVIRONMENT, **(case.environment or {})}) for case in cases]
    spent: list[Spent] = []
    for round_ in range(rounds):
        if round_ and enough(round_):
            break
        told(f"{what}: round {round_ + 1} of {rounds}, {len(cases)} servers")
        with site.serving(cases) as servers:
            spent += take(site, servers, first_round + round_, count)
    return spent


def take(site: Site, servers: Sequence[Server], round_: int, count: int) -> list[Spent]:
    """Take a round's slices from servers that run."""
    chance = random.Random(round_)
    disturbance, started = Disturbance(), time.monotonic()
    used = [-server.child.cpu_seconds() for server in servers]
    with ExitStack() as stack:
        loads = []
        for server in servers:
            loads.append(stack.enter_context(site.paused_load(server)))
            time.sleep(_SETTLE_SECONDS)
            server.child.pause()
        order = [place for place, server in enumerate(servers) for _ in range(server.case.stretches)]
        for _ in range(count):
            for place in chance.sample(order, len(order)):
                servers[place].child.resume()
                loads[place].resume()
                time.sleep(SLICE_SECONDS)
                loads[place].pause()
                time.sleep(_SETTLE_SECONDS)
                servers[place].child.pause()
        requests = []
        for place, server in enumerate(servers):
            server.child.resume()
            requests.append(site.finished(server, loads[place]))
            used[place] += server.child.cpu_seconds()
            server.child.pause()
    disturbed_part = disturbance.seconds(sum(used)) / (time.monotonic() - started)
    for server in servers:
        server.child.resume()
    return [
        Spent(
            label=server.case.label,
            round=round_,
            requests=requests[place],
            cpu_seconds=used[place],
            disturbed_part=disturbed_part,
        )
        for place, server in enumerate(servers)
    ]


def by_round(spent: Sequence[Spent]) -> list[Costs]:
    """Return what each label's requests cost, round by round."""
    rounds: dict[int, dict[str, float]] = {}
    for own in spent:
        rounds.setdefault(own.round, {})[own.label] = own.cpu_seconds_per_request
    return list(rounds.values())


def estimated(rounds: Sequence[Costs], labels: Sequence[str], figure: Callable[[Sequence[Costs]], float]) -> Estimate:
    """
    Estimate a figure of some labels' costs.

    The bootstrap draws rounds, as they have processes of their own, each with all its slices: to draw these as well
    would count their noise twice (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

    Args:
        rounds: What `by_round` returned; those without one of the labels do not count.
        labels: Those the figure needs.
        figure: Made of the labels' costs, round by round.
    """
    whole = [own for own in rounds if all(label in own for label in labels)]
    return bootstrapped(figure(whole), lambda chance: figure(chance.choices(whole, k=len(whole))), len(whole))


def median(rounds: Sequence[Costs], figure: Callable[[Costs], float]) -> float:
    """Return the median over rounds."""
    return statistics.median(figure(own) for own in rounds)
