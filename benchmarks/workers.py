"""What a request costs when several worker processes share the work."""

from collections.abc import Callable, Sequence

from benchmarks import variants
from benchmarks.estimates import estimate
from benchmarks.rows import Row
from benchmarks.site import Case, Sample, Site


def run(site: Site, *, rounds: int, seconds: int, told: Callable[[str], None]) -> list[Sample]:
    """Measure one worker and two, bare and with obslib, in each round."""
    samples = []
    cases = [
        Case(label=f"{variant.name}-{workers}", variant=variant, workers=workers)
        for workers in (1, 2)
        for variant in (variants.BARE, variants.ALL)
    ]
    for round_ in range(rounds):
        told(f"one worker and two: round {round_ + 1} of {rounds}")
        with site.serving(cases) as servers:
            samples += [site.closed_loop(server, round_, seconds) for server in [*servers, *reversed(servers)]]
    return samples


def row(samples: Sequence[Sample]) -> Row:
    """Cost above the bare application with two workers, over that with one."""
    rounds = sorted({sample.round for sample in samples})

    def cost(workers: int, round_: int) -> float:
        return cpu(variants.ALL.name, workers, round_) - cpu(variants.BARE.name, workers, round_)

    def cpu(name: str, workers: int, round_: int) -> float:
        label = f"{name}-{workers}"
        own = [sample for sample in samples if (sample.label, sample.round) == (label, round_)]
        requests = sum(sample.load.requests for sample in own)
        return sum(sample.cpu_seconds_per_request * sample.load.requests for sample in own) / requests

    return Row(
        measure="cost with two workers over cost with one",
        unit="ratio",
        bar=1.1,
        ours=estimate([cost(2, at) / cost(1, at) for at in rounds]),
    )
