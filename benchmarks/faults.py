"""What a collector that is dead, slow or flapping does to the service that sends to it."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks import variants
from benchmarks.children import Child
from benchmarks.estimates import Estimate, estimate
from benchmarks.rows import Row
from benchmarks.site import Case, Sample, Site

_HEALTHY: Final = "healthy"
FAULTS: Final = ("dead", "slow", "flapping")
_DROPPED: Final = re.compile(rb'^obslib_spans_dropped_total\{[^}]*reason="([a-z_]+)"[^}]*\} (\S+)', re.MULTILINE)


def run(
    site: Site, *, rate: int, rounds: int, seconds: int, told: Callable[[str], None]
) -> tuple[list[Sample], list[Sample], dict[str, dict[str, int]]]:
    """
    Measure a service with each collector in turn, always the same processes: what a fault costs may grow with time.

    Returns:
        The samples of the closed loop, of the open loop, and the spans that were counted as dropped, by reason.
    """
    closed: list[Sample] = []
    open_: list[Sample] = []
    with ExitStack() as stack:
        cases = [Case(label=_HEALTHY, variant=variants.ALL)]
        for fault in FAULTS:
            endpoint = f"http://127.0.0.1:{site.free_port()}"
            if fault != "dead":
                endpoint = stack.enter_context(site.collecting(fault)).url
            cases.append(Case(label=fault, variant=variants.ALL, endpoint=endpoint))
        servers = stack.enter_context(site.serving(cases))
        for round_ in range(rounds):
            told(f"a collector that is healthy, {', '.join(FAULTS)}: round {round_ + 1} of {rounds}")
            turned = servers[round_ % len(servers) :] + servers[: round_ % len(servers)]
            closed += [site.closed_loop(server, round_, seconds) for server in turned]
            open_ += [site.open_loop(server, round_, seconds, rate) for server in turned]
        dropped = {server.case.label: _dropped(server.child) for server in servers}
    return closed, open_, dropped


def rows(closed: Sequence[Sample], open_: Sequence[Sample]) -> list[Row]:
    """CPU, p99 and memory over those with a healthy collector."""
    found = []
    for fault in FAULTS:
        cpu = _over_healthy(fault, closed, lambda sample: sample.cpu_seconds_per_request)
        p99 = _over_healthy(fault, open_, lambda sample: sample.load.p99_seconds)
        memory = _over_healthy(fault, open_, lambda sample: sample.resident_bytes)
        for measure, figure in (("CPU", cpu), ("p99, open loop", p99), ("memory", memory)):
            found.append(
                Row(measure=f"collector {fault}: {measure} over a healthy one's", unit="ratio", bar=1.1, ours=figure)
            )
    return found


def _over_healthy(fault: str, samples: Sequence[Sample], figure: Callable[[Sample], float]) -> Estimate:
    by_round = {(sample.label, sample.round): figure(sample) for sample in samples}
    rounds = sorted({sample.round for sample in samples})
    return estimate([by_round[fault, at] / by_round[_HEALTHY, at] for at in rounds])


def _dropped(child: Child) -> dict[str, int]:
    return {reason.decode(): int(float(spans)) for reason, spans in _DROPPED.findall(child.get("/metrics"))}
