"""
Latency at a fixed rate, the same for all in a round: what a user of a service that is not at its limit waits.

The bare application's capacity is measured in each round: of a machine that has become half as fast, two fifths of what
it could carry before are four fifths, and what is measured is a queue.
"""

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import pairing, variants
from benchmarks.estimates import Estimate, estimate
from benchmarks.rows import Row
from benchmarks.site import Sample, Server, Site
from benchmarks.variants import Variant

#: Of what the bare application can carry.
PART_OF_CAPACITY: Final = 0.4
#: Some thousand requests, of which tens are beyond the p99.
STRETCH_SECONDS: Final = 1.0
_CAPACITY_SECONDS: Final = 1.0
_PEERS: Final = (variants.TRIO, variants.CONTRIB, variants.NATIVE, variants.LOGFIRE)


def run(site: Site, *, rounds: int, repeats: int, told: Callable[[str], None]) -> tuple[list[Sample], list[int]]:
    """
    Measure each variant in each round; the bare application is the reference.

    Returns:
        The samples, and the rate of each round.
    """
    rates: list[int] = []

    def stretch(server: Server, round_: int) -> Sample:
        if len(rates) == round_:  # the reference begins
            load = site.closed_loop(server, round_, _CAPACITY_SECONDS).load
            rates.append(round(PART_OF_CAPACITY * load.requests / load.duration_seconds))
        return site.open_loop(server, round_, STRETCH_SECONDS, rates[round_])

    samples = pairing.run(
        site,
        _PEERS,
        rounds=rounds,
        repeats=repeats,
        told=told,
        what=f"latency at {PART_OF_CAPACITY:.0%} of the bare application's capacity",
        stretch=stretch,
    )
    return samples, rates


def row(samples: Sequence[Sample]) -> Row:
    """p99 of each second, over that of the bare application's seconds around it."""
    rounds = pairing.medians(samples, lambda sample: sample.load.p99_seconds)
    measured = {sample.label for sample in samples}

    def over_bare(variant: Variant) -> Estimate:
        return estimate([own[variant.name] for own in rounds if variant.name in own])

    others = (variants.CONTROL, *(variant for variant in _PEERS if variant.name in measured))
    return Row(
        measure="p99 over bare's at 40 % of its capacity, open loop",
        unit="ratio",
        bar=1.4,
        ours=over_bare(variants.ALL),
        peers={other.title: over_bare(other) for other in others},
    )
