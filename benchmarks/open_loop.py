"""Latency at a fixed rate, the same for all: what a user of a service that is not at its limit waits."""

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import pairing, variants
from benchmarks.estimates import Estimate, estimate
from benchmarks.rows import Row
from benchmarks.site import Sample, Site
from benchmarks.variants import Variant

#: Of what the bare application can carry.
PART_OF_CAPACITY: Final = 0.4
#: Some thousand requests, of which tens are beyond the p99.
STRETCH_SECONDS: Final = 1.0
_PEERS: Final = (variants.TRIO, variants.CONTRIB, variants.NATIVE, variants.LOGFIRE)


def run(site: Site, *, rate: int, rounds: int, repeats: int, told: Callable[[str], None]) -> list[Sample]:
    """Measure each variant in each round; the bare application is the reference."""
    return pairing.run(
        site,
        _PEERS,
        rounds=rounds,
        repeats=repeats,
        told=told,
        what=f"latency at {rate} requests a second",
        stretch=lambda server, number: site.open_loop(server, number, STRETCH_SECONDS, rate),
    )


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
