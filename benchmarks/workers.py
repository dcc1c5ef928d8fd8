"""What a request costs when several worker processes share the work."""

from collections.abc import Callable, Sequence

from benchmarks import cpu, variants
from benchmarks.estimates import estimate
from benchmarks.rows import Row
from benchmarks.site import Case, Sample, Site


def run(site: Site, *, rounds: int, seconds: int, told: Callable[[str], None]) -> list[Sample]:
    """Measure one worker and two, bare and with obslib, in each round."""
    cases = [
        Case(label=f"{variant.name}-{workers}", variant=variant, workers=workers)
        for workers in (1, 2)
        for variant in (variants.BARE, variants.ALL)
    ]
    return cpu.run(site, cases, rounds=rounds, seconds=seconds, told=told)


def row(samples: Sequence[Sample]) -> Row:
    """Cost above the bare application with two workers, over that with one."""
    costs = cpu.Costs(samples)

    def cost(workers: int, round_: int) -> float:
        ours, bare = (f"{variant.name}-{workers}" for variant in (variants.ALL, variants.BARE))
        return costs.cpu_seconds(ours, round_) - costs.cpu_seconds(bare, round_)

    return Row(
        measure="cost with two workers over cost with one",
        unit="ratio",
        bar=1.1,
        ours=estimate([cost(2, at) / cost(1, at) for at in costs.rounds]),
    )
