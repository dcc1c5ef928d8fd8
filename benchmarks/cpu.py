"""CPU a request above the bare application, at the server's limit."""

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import slices, variants
from benchmarks.estimates import Estimate, estimate
from benchmarks.rows import Row
from benchmarks.site import Case
from benchmarks.slices import Costs, Spent
from benchmarks.variants import Variant

MANY_ROUTES: Final = 200
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
    """Return a case for each variant; the reference, which every figure contains, counts double."""
    return [
        Case(label=variant.name, variant=variant, stretches=2 if variant in {variants.BARE, variants.CONTROL} else 1)
        for variant in chosen
    ]


def many_routes(chosen: Sequence[Variant]) -> list[Case]:
    """Return a case with many routes for each variant; where a difference of two large figures counts, more of it."""
    return [
        Case(label=_many(variant), variant=variant, routes=MANY_ROUTES, stretches=1 if variant in variants.PEERS else 4)
        for variant in chosen
        if variant in {variants.BARE, variants.ALL, *_ROUTE_PEERS}
    ]


class CpuCosts:
    """
    Figures from what `slices.run` returned for the bare application and others.

    Args:
        spent: All of it.
    """

    def __init__(self, spent: Sequence[Spent]) -> None:
        self._rounds = slices.by_round(spent)
        self._labels = {own.label for own in spent}

    def has(self, variant: Variant) -> bool:
        """Whether a variant was measured."""
        return variant.name in self._labels

    def cost(self, variant: Variant) -> Estimate:
        """CPU a request above the bare application, as a multiple of the bare application's own."""
        return self._estimated([variant.name], lambda own: own[variant.name] / _bare(own) - 1)

    def control(self) -> Estimate:
        """What the same method finds between the bare application and itself."""
        return self._estimated([], lambda own: own[_CONTROL] / own[_BARE] - 1)

    def route_growth(self, variant: Variant) -> Estimate:
        """Cost in CPU seconds at many routes, over that at few."""
        few, many, bare_many = variant.name, _many(variant), _many(variants.BARE)
        return slices.estimated(
            self._rounds,
            [_BARE, _CONTROL, few, many, bare_many],
            lambda rounds: (
                slices.median(rounds, lambda own: own[many] - own[bare_many])
                / slices.median(rounds, lambda own: own[few] - _bare(own))
            ),
        )

    def bare_seconds(self) -> Estimate:
        """CPU seconds a request of the bare application."""
        return estimate([_bare(own) for own in self._rounds])

    def rows(self) -> list[Row]:
        """Return the rows that can be answered."""
        rows = [
            Row(
                measure=measure,
                unit="cost",
                bar=bar,
                ours=self.cost(variant),
                peers={peer.title: self.cost(peer) for peer in _COMPARABLE[variant] if self.has(peer)},
            )
            for measure, bar, variant in _COST_ROWS
        ]
        if _many(variants.ALL) in self._labels:
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

    def _estimated(self, labels: Sequence[str], figure: Callable[[Costs], float]) -> Estimate:
        return slices.estimated(self._rounds, [_BARE, _CONTROL, *labels], lambda rounds: slices.median(rounds, figure))


def _many(variant: Variant) -> str:
    return f"{variant.name}-{MANY_ROUTES}"


def _bare(own: Costs) -> float:
    """Both bare applications together."""
    return (own[_BARE] + own[_CONTROL]) / 2
