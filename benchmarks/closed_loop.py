"""The latency's tail at a server's limit, over its median there."""

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import pairing, variants
from benchmarks.estimates import Estimate, estimate
from benchmarks.latencies import Microseconds, percentile_seconds
from benchmarks.rows import Row
from benchmarks.site import Sample, Site
from benchmarks.variants import Variant

#: Short enough for the machine to be as fast as in the stretches beside it, long enough for some thousand requests.
STRETCH_SECONDS: Final = 0.4
_PEERS: Final = tuple(variant for variant in variants.PEERS if variant.spans)


def run(site: Site, *, rounds: int, repeats: int, told: Callable[[str], None]) -> list[Sample]:
    """Measure each variant in each round; the bare application is the reference."""
    return pairing.run(
        site,
        _PEERS,
        rounds=rounds,
        repeats=repeats,
        told=told,
        what="latency at the limit",
        stretch=lambda server, number: site.closed_loop(server, number, STRETCH_SECONDS),
    )


def row(samples: Sequence[Sample]) -> Row:
    """p99/p50 of all a round's stretches, over the bare application's in the same round."""
    rounds = list(pairing.latencies_by_round(samples).values())
    bare, control = variants.BARE.name, variants.CONTROL.name

    def over_bare(variant: Variant) -> Estimate:
        return estimate(
            [
                2 * _tail(own[variant.name]) / (_tail(own[bare]) + _tail(own[control]))
                for own in rounds
                if variant.name in own
            ]
        )

    measured = {sample.label for sample in samples}
    peers = [variant for variant in _PEERS if variant.name in measured]
    return Row(
        measure="closed loop: p99/p50 over bare's",
        unit="ratio",
        bar=1.15,
        ours=over_bare(variants.ALL),
        peers={
            variants.CONTROL.title: estimate([_tail(own[control]) / _tail(own[bare]) for own in rounds]),
            **{peer.title: over_bare(peer) for peer in peers},
        },
    )


def _tail(latencies: Microseconds) -> float:
    return percentile_seconds(latencies, 0.99) / percentile_seconds(latencies, 0.5)
