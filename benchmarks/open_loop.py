"""Latency at a fixed rate, the same for all: what a user of a service that is not at its limit waits."""

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import variants
from benchmarks.estimates import Estimate, estimate
from benchmarks.rows import Row
from benchmarks.site import Case, Sample, Site
from benchmarks.variants import Variant

#: Of what the bare application can carry.
PART_OF_CAPACITY: Final = 0.4
VARIANTS: Final = (
    variants.BARE,
    variants.CONTROL,
    variants.ALL,
    variants.TRIO,
    variants.CONTRIB,
    variants.NATIVE,
    variants.LOGFIRE,
)


def run(
    site: Site, chosen: Sequence[Variant], *, rate: int, rounds: int, seconds: int, told: Callable[[str], None]
) -> list[Sample]:
    """Measure each variant in each round, with fresh processes."""
    samples = []
    cases = [Case(label=variant.name, variant=variant) for variant in chosen]
    for round_ in range(rounds):
        told(f"latency at {rate} requests a second: round {round_ + 1} of {rounds}, {len(cases)} servers")
        turn = round_ * 3 % len(cases)
        with site.serving([*cases[turn:], *cases[:turn]]) as servers:
            samples += [site.open_loop(server, round_, seconds, rate) for server in servers]
    return samples


def row(samples: Sequence[Sample]) -> Row:
    """p99 over the bare application's in the same round."""
    p99 = {(sample.label, sample.round): sample.load.p99_seconds for sample in samples}
    rounds = sorted({sample.round for sample in samples})

    def over_bare(variant: Variant) -> Estimate:
        bare, control = variants.BARE.name, variants.CONTROL.name
        return estimate([p99[variant.name, at] / ((p99[bare, at] + p99[control, at]) / 2) for at in rounds])

    measured = {sample.label for sample in samples}
    peers = [variant for variant in variants.PEERS if variant.name in measured]
    return Row(
        measure="p99 over bare's at 40 % of its capacity, open loop",
        unit="ratio",
        bar=1.4,
        ours=over_bare(variants.ALL),
        peers={
            "bare again": estimate([p99[variants.CONTROL.name, at] / p99[variants.BARE.name, at] for at in rounds]),
            **{peer.title: over_bare(peer) for peer in peers},
        },
    )
