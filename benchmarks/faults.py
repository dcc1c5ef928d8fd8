"""What a collector that is dead, slow or flapping does to the service that sends to it."""

import re
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks import open_loop, pairing, slices, variants
from benchmarks.children import Child
from benchmarks.estimates import Estimate, estimate
from benchmarks.rows import Row
from benchmarks.site import Case, Sample, Site
from benchmarks.slices import Spent

_HEALTHY: Final = "healthy"
_AGAIN: Final = "healthy again"
FAULTS: Final = ("dead", "slow", "flapping")
_DROPPED: Final = re.compile(rb'^obslib_spans_dropped_total\{[^}]*reason="([a-z_]+)"[^}]*\} (\S+)', re.MULTILINE)


def run(
    site: Site, *, rate: int, rounds: int, repeats: int, count: int, told: Callable[[str], None]
) -> tuple[list[Spent], list[Sample], dict[str, dict[str, int]]]:
    """
    Measure a service with each collector in turn, always the same processes: what a fault costs may grow with time.

    Returns:
        What slices at the limit took, the samples of the open loop, and the spans counted as dropped, by reason.
    """
    spent: list[Spent] = []
    open_: list[Sample] = []
    with ExitStack() as stack:
        cases = [Case(label=label, variant=variants.ALL) for label in (_HEALTHY, _AGAIN)]
        for fault in FAULTS:
            endpoint = f"http://127.0.0.1:{site.free_port()}"
            if fault != "dead":
                endpoint = stack.enter_context(site.collecting(fault)).url
            cases.append(Case(label=fault, variant=variants.ALL, endpoint=endpoint))
        servers = stack.enter_context(site.serving(cases))
        for round_ in range(rounds):
            told(f"a collector that is healthy, {', '.join(FAULTS)}: round {round_ + 1} of {rounds}")
            spent += slices.take(site, servers, round_, count)
            open_ += pairing.take(
                servers,
                round_,
                repeats,
                lambda server, number: site.open_loop(server, number, open_loop.STRETCH_SECONDS, rate),
            )
        dropped = {server.case.label: _dropped(server.child) for server in servers}
    return spent, open_, dropped


def rows(spent: Sequence[Spent], open_: Sequence[Sample]) -> list[Row]:
    """CPU, p99 and memory over those with a healthy collector; beside them, those of a second healthy one."""
    cpu_seconds = slices.by_round(spent)
    resident_bytes: dict[tuple[int, str], list[int]] = {}
    for sample in open_:
        resident_bytes.setdefault((sample.round, sample.label), []).append(sample.resident_bytes)
    p99 = pairing.medians(open_, lambda sample: sample.load.p99_seconds)

    def figures(label: str) -> dict[str, Estimate]:
        return {
            "CPU": estimate([own[label] / own[_HEALTHY] for own in cpu_seconds]),
            "p99, open loop": estimate([own[label] for own in p99]),
            "memory": estimate(
                [
                    statistics.fmean(own) / statistics.fmean(resident_bytes[round_, _HEALTHY])
                    for (round_, at), own in resident_bytes.items()
                    if at == label
                ]
            ),
        }

    control = figures(_AGAIN)
    return [
        Row(
            measure=f"collector {fault}: {measure} over a healthy one's",
            unit="ratio",
            bar=1.1,
            ours=figure,
            peers={_AGAIN: control[measure]},
        )
        for fault in FAULTS
        for measure, figure in figures(fault).items()
    ]


def _dropped(child: Child) -> dict[str, int]:
    return {reason.decode(): int(float(spans)) for reason, spans in _DROPPED.findall(child.get("/metrics"))}
