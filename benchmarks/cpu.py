"""CPU a request above the bare application, in a closed loop; and the latency's tail there."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks import pairing, variants
from benchmarks.estimates import Estimate, estimate
from benchmarks.latencies import Microseconds, percentile_seconds
from benchmarks.rows import Row
from benchmarks.site import Case, Sample, Site
from benchmarks.variants import Variant

MANY_ROUTES: Final = 200
#: Short enough for the machine to be as fast as in the stretches beside it, long enough for some thousand requests.
STRETCH_SECONDS: Final = 0.4
_BARE: Final = variants.BARE.name
_CONTROL: Final = variants.CONTROL.name
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
    return [Case(label=variant.name, variant=variant, stretches=_stretches(variant)) for variant in chosen]


def many_routes(chosen: Sequence[Variant]) -> list[Case]:
    """Return a case with many routes for each variant."""
    return [
        Case(label=f"{variant.name}-{MANY_ROUTES}", variant=variant, routes=MANY_ROUTES, stretches=_stretches(variant))
        for variant in chosen
        if variant in {variants.BARE, variants.ALL, *_ROUTE_PEERS}
    ]


def _stretches(variant: Variant) -> int:
    """Ours and the control have bars and bounds to meet; nobody asks how far the peers are beyond them."""
    return 1 if variant in variants.PEERS else 2


def run(
    site: Site,
    cases: Sequence[Case],
    *,
    rounds: int,
    repeats: int,
    told: Callable[[str], None],
    first_round: int = 0,
    enough: Callable[[int], bool] = lambda _: False,
) -> list[Sample]:
    """
    Measure all cases in each round, with fresh processes.

    Args:
        site: Where.
        cases: What; the first is the reference for all others.
        rounds: How often.
        repeats: How many stretches each case has in a round, times its own number.
        told: Told of each round.
        first_round: Its number, where others were before.
        enough: Asked after each round, with their number, whether to end early.
    """
    samples: list[Sample] = []
    for round_ in range(rounds):
        if round_ and enough(round_):
            break
        told(f"CPU a request: round {round_ + 1} of {rounds}, {len(cases)} servers")
        with site.serving(cases) as servers:
            samples += pairing.take(
                servers,
                first_round + round_,
                repeats,
                lambda server, number: site.closed_loop(server, number, STRETCH_SECONDS),
            )
    return samples


class Costs:
    """
    Figures from the samples of `run` whose reference is the bare application.

    Args:
        samples: All of them.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self._multiples = pairing.multiples(samples, lambda sample: sample.cpu_seconds_per_request)
        self._latencies = pairing.latencies_by_round(samples)
        self._labels = {sample.label for sample in samples}

    def has(self, variant: Variant) -> bool:
        """Whether a variant was measured."""
        return variant.name in self._labels

    def cost(self, label: str) -> Estimate:
        """CPU a request above the bare application, as a multiple of the bare application's own."""
        return pairing.estimated(
            self._multiples,
            [_CONTROL, label],
            lambda rounds: statistics.median(means[label] / _bare(means) - 1 for means in rounds),
        )

    def control(self) -> Estimate:
        """What the same method finds between the bare application and itself."""
        return pairing.estimated(
            self._multiples, [_CONTROL], lambda rounds: statistics.median(means[_CONTROL] - 1 for means in rounds)
        )

    def route_growth(self, variant: Variant) -> Estimate:
        """Cost in CPU seconds at many routes, over that at few."""
        many, bare_many = f"{variant.name}-{MANY_ROUTES}", f"{variants.BARE.name}-{MANY_ROUTES}"
        return pairing.estimated(
            self._multiples,
            [_CONTROL, variant.name, many, bare_many],
            lambda rounds: (
                statistics.median(means[many] - means[bare_many] for means in rounds)
                / statistics.median(means[variant.name] - _bare(means) for means in rounds)
            ),
        )

    def tail(self, variant: Variant) -> Estimate:
        """p99/p50, over the bare application's."""
        return estimate(
            [
                _tail(labels[variant.name]) / statistics.fmean([_tail(labels[_BARE]), _tail(labels[_CONTROL])])
                for labels in self._latencies.values()
                if variant.name in labels
            ]
        )

    def tail_control(self) -> Estimate:
        """The same of the bare application over itself."""
        return estimate([_tail(labels[_CONTROL]) / _tail(labels[_BARE]) for labels in self._latencies.values()])

    def bare_capacity(self) -> float:
        """Requests a second of the bare application."""
        loads = [sample.load for sample in self._samples if sample.label == _BARE]
        return statistics.median(load.requests / load.duration_seconds for load in loads)

    def bare_seconds(self) -> Estimate:
        """CPU seconds a request of the bare application."""
        rounds: dict[int, list[float]] = {}
        for sample in self._samples:
            if sample.label == _BARE:
                rounds.setdefault(sample.round, []).append(sample.cpu_seconds_per_request)
        return estimate([statistics.fmean(own) for own in rounds.values()])

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
                peers={
                    variants.CONTROL.title: self.tail_control(),
                    **{peer.title: self.tail(peer) for peer in peers if peer.spans},
                },
            )
        )
        if f"{variants.ALL.name}-{MANY_ROUTES}" in self._labels:
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


def _bare(means: Mapping[str, float]) -> float:
    """Both bare applications together: the first is the reference, so it is 1."""
    return (1 + means[_CONTROL]) / 2


def _tail(latencies: Microseconds) -> float:
    return percentile_seconds(latencies, 0.99) / percentile_seconds(latencies, 0.5)
