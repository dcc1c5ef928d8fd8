"""What a request costs when several worker processes share the work."""

import statistics
from collections.abc import Callable, Sequence

from benchmarks import cpu, pairing, variants
from benchmarks.rows import Row
from benchmarks.site import Case, Sample, Site
from benchmarks.variants import Variant


def run(site: Site, *, rounds: int, repeats: int, told: Callable[[str], None]) -> list[Sample]:
    """
    Measure one worker and two, bare and with obslib, in each round.

    Both workers stay on the server's CPU: which of them has how many of the connections is chance, but a different one
    in each stretch, and on two CPUs one worker would share its own with the load.
    """
    cases = [
        Case(label=_label(variant, workers), variant=variant, workers=workers)
        for workers in (1, 2)
        for variant in (variants.BARE, variants.ALL)
    ]
    return cpu.run(site, cases, rounds=rounds, repeats=repeats, told=told)


def row(samples: Sequence[Sample]) -> Row:
    """Cost above the bare application with two workers, over that with one; the reference is bare with one."""
    ours, bare_of_two, ours_of_two = _label(variants.ALL, 1), _label(variants.BARE, 2), _label(variants.ALL, 2)
    return Row(
        measure="cost with two workers over cost with one",
        unit="ratio",
        bar=1.1,
        ours=pairing.estimated(
            pairing.multiples(samples, lambda sample: sample.cpu_seconds_per_request),
            [ours, bare_of_two, ours_of_two],
            lambda rounds: (
                statistics.median(means[ours_of_two] - means[bare_of_two] for means in rounds)
                / statistics.median(means[ours] - 1 for means in rounds)
            ),
        ),
    )


def _label(variant: Variant, workers: int) -> str:
    return f"{variant.name}-{workers}"
