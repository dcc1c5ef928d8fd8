"""CPU a request above the bare application, in a closed loop; and the latency's tail there."""

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import variants
from benchmarks.estimates import Estimate, estimate
from benchmarks.rows import Row
from benchmarks.site import Case, Sample, Site
from benchmarks.variants import Variant

MANY_ROUTES: Final = 200
_COST_ROWS: Final = (
    ("all three signals, every request sampled", 0.35, variants.ALL),
    ("the same, unsampled", 0.18, variants.UNSAMPLED),
    ("metrics only", 0.08, variants.METRICS),
    ("logs only", 0.12, variants.LOGS),
    ("traces only", 0.28, variants.TRACES),
)
#: Which peers stand beside which of ours.
_COMPARABLE: Final = {
    variants.ALL: (variants.TRIO, variants.CONTRIB, variants.NATIVE, variants.LOGFIRE),
    variants.UNSAMPLED: (variants.CONTRIB_UNSAMPLED,),
    variants.METRICS: (variants.PFI, variants.STARLETTE_EXPORTER),
    variants.LOGS: (variants.STRUCTLOG,),
    variants.TRACES: (variants.CONTRIB_SERVER_SPAN, variants.CONTRIB, variants.NATIVE),
}
_ROUTE_PEERS: Final = (variants.TRIO, variants.CONTRIB_SERVER_SPAN, variants.PFI, variants.STARLETTE_EXPORTER)


def few_routes(chosen: Sequence[Variant]) -> list[Case]:
    """Return a case for each variant."""
    return [Case(label=variant.name, variant=variant) for variant in chosen]


def many_routes(chosen: Sequence[Variant]) -> list[Case]:
    """Return a case with many routes for each variant."""
    return [
        Case(label=f"{variant.name}-{MANY_ROUTES}", variant=variant, routes=MANY_ROUTES)
        for variant in chosen
        if variant in {variants.BARE, variants.ALL, *_ROUTE_PEERS}
    ]


def run(
    site: Site,
    cases: Sequence[Case],
    *,
    rounds: int,
    seconds: int,
    told: Callable[[str], None],
    both_ways: bool = True,
    enough: Callable[[int], bool] = lambda _: False,
) -> list[Sample]:
    """
    Measure all cases in each round, with fresh processes, beginning with another one each time.

    Args:
        site: Where.
        cases: What.
        rounds: How often.
        seconds: How long each case is under load, each way.
        told: Told of each round.
        both_ways: Whether a round goes through the cases backwards, too: a machine that slows down meanwhile slows all.
        enough: Asked after each round, with their number, whether to end early.
    """
    samples: list[Sample] = []
    for round_ in range(rounds):
        if round_ and enough(round_):
            break
        told(f"CPU a request: round {round_ + 1} of {rounds}, {len(cases)} servers")
        turn = round_ * 3 % len(cases)
        with site.serving([*cases[turn:], *cases[:turn]]) as servers:
            turned = [*servers, *reversed(servers)] if both_ways else servers
            samples += [site.closed_loop(server, round_, seconds) for server in turned]
    return samples


class Costs:
    """
    Figures from the samples of `run`.

    Args:
        samples: All of them.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._by_label: dict[str, dict[int, list[Sample]]] = {}
        for sample in samples:
            self._by_label.setdefault(sample.label, {}).setdefault(sample.round, []).append(sample)
        self.rounds = sorted({sample.round for sample in samples})

    def has(self, variant: Variant) -> bool:
        """Whether a variant was measured."""
        return variant.name in self._by_label

    def cpu_seconds(self, label: str, round_: int) -> float:
        """CPU seconds a request in a round, however many stretches that had: each request counts once."""
        own = self._by_label[label][round_]
        requests = sum(sample.load.requests for sample in own)
        return sum(sample.cpu_seconds_per_request * sample.load.requests for sample in own) / requests

    def cost(self, label: str) -> Estimate:
        """CPU a request above the bare application, as a multiple of the bare application's own."""
        return estimate([self.cpu_seconds(label, round_) / self._bare(round_) - 1 for round_ in self.rounds])

    def control(self) -> Estimate:
        """What the same method finds between the bare application and itself."""
        control, bare = variants.CONTROL.name, variants.BARE.name
        return estimate(
            [self.cpu_seconds(control, round_) / self.cpu_seconds(bare, round_) - 1 for round_ in self.rounds]
        )

    def route_growth(self, variant: Variant) -> Estimate:
        """Cost in CPU seconds at many routes, over that at few."""
        return estimate([self._growth(variant, round_) for round_ in self.rounds])

    def tail(self, variant: Variant) -> Estimate:
        """p99/p50, over the bare application's."""
        return estimate(
            [
                self._tail(variant.name, round_)
                / ((self._tail(variants.BARE.name, round_) + self._tail(variants.CONTROL.name, round_)) / 2)
                for round_ in self.rounds
            ]
        )

    def bare_capacity(self) -> float:
        """Requests a second of the bare application."""
        loads = [sample.load for round_ in self.rounds for sample in self._by_label[variants.BARE.name][round_]]
        return estimate([load.requests / load.duration_seconds for load in loads]).median

    def bare_seconds(self) -> Estimate:
        """CPU seconds a request of the bare application."""
        return estimate([self._bare(round_) for round_ in self.rounds])

    def rows(self) -> list[Row]:
        """Return the rows that the samples can answer."""
        rows = [
            Row(
                measure=measure,
                unit="cost",
                bar=bar,
                ours=self.cost(variant.name),
                peers={peer.title: self.cost(peer.name) for peer in _COMPARABLE[variant] if self.has(peer)},
            )
            for measure, bar, variant in _COST_ROWS
        ]
        peers = [peer for peer in variants.PEERS if self.has(peer)]
        rows.append(
            Row(
                measure="closed loop: p99/p50 over bare's",
                unit="ratio",
                bar=1.15,
                ours=self.tail(variants.ALL),
                peers={peer.title: self.tail(peer) for peer in peers if peer.spans},
            )
        )
        if f"{variants.ALL.name}-{MANY_ROUTES}" in self._by_label:
            rows.append(
                Row(
                    measure=f"cost at {MANY_ROUTES} routes over cost at 10",
                    unit="ratio",
                    bar=1.1,
                    ours=self.route_growth(variants.ALL),
                    peers={peer.title: self.route_growth(peer) for peer in _ROUTE_PEERS if self.has(peer)},
                )
            )
        return rows

    def _bare(self, round_: int) -> float:
        return (self.cpu_seconds(variants.BARE.name, round_) + self.cpu_seconds(variants.CONTROL.name, round_)) / 2

    def _growth(self, variant: Variant, round_: int) -> float:
        many = self.cpu_seconds(f"{variant.name}-{MANY_ROUTES}", round_)
        many -= self.cpu_seconds(f"{variants.BARE.name}-{MANY_ROUTES}", round_)
        return many / (self.cpu_seconds(variant.name, round_) - self._bare(round_))

    def _tail(self, label: str, round_: int) -> float:
        loads = [sample.load for sample in self._by_label[label][round_]]
        return statistics.mean(load.p99_seconds / load.p50_seconds for load in loads)
