"""What a request costs when several worker processes share the work."""

from collections.abc import Callable, Sequence

from benchmarks import slices, variants
from benchmarks.rows import Row
from benchmarks.site import Case, Site
from benchmarks.slices import Spent
from benchmarks.variants import Variant


def run(site: Site, *, rounds: int, count: int, told: Callable[[str], None]) -> list[Spent]:
    """
    Measure one worker and two, bare and with obslib, in each round.

    Both workers stay on the server's CPU: which of them has how many of the connections is chance, but a different one
    in each round, and on two CPUs one worker would share its own with the load.
    """
    cases = [
        Case(label=_label(variant, workers), variant=variant, workers=workers)
        for workers in (1, 2)
        for variant in (variants.BARE, variants.ALL)
    ]
    return slices.run(site, cases, rounds=rounds, count=count, told=told, what="CPU a request of one worker and of two")


def row(spent: Sequence[Spent]) -> Row:
    """Cost above the bare application with two workers, over that with one."""
    bare, ours, bare_of_two, ours_of_two = (
        _label(variants.BARE, 1),
        _label(variants.ALL, 1),
        _label(variants.BARE, 2),
        _label(variants.ALL, 2),
    )
    return Row(
        measure="cost with two workers over cost with one",
        unit="ratio",
        bar=1.1,
        ours=slices.estimated(
            slices.by_round(spent),
            [bare, ours, bare_of_two, ours_of_two],
            lambda rounds: (
                slices.median(rounds, lambda own: own[ours_of_two] - own[bare_of_two])
                / slices.median(rounds, lambda own: own[ours] - own[bare])
            ),
        ),
    )


def _label(variant: Variant, workers: int) -> str:
    return f"{variant.name}-{workers}"
