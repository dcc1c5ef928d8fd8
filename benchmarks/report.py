"""The table for people."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks import variants
from benchmarks.estimates import Estimate
from benchmarks.pairing import MOST_DISTURBED_PART
from benchmarks.rows import Row, Unit
from benchmarks.run import Findings


def written(figure: Estimate, unit: Unit) -> str:
    """A figure with its bounds: `+0.31× (0.29…0.33)`."""
    return f"{_number(figure.median, unit)} ({_plain(figure.low, unit)}…{_plain(figure.high, unit)})"


def _number(value: float, unit: Unit) -> str:
    if unit == "milliseconds":
        return f"{value:.1f} ms"
    return f"{value:+.2f}×" if unit == "cost" else f"{value:.2f}×"


def _plain(value: float, unit: Unit) -> str:
    return f"{value:.1f}" if unit == "milliseconds" else f"{value:.2f}"


def _bar(row: Row) -> str:
    return "" if row.bar is None else f"≤ {_number(row.bar, row.unit)}"


def _verdict(row: Row) -> str:
    if row.bar is not None and row.holds is None:
        return "?"
    return {True: "yes", False: "NO", None: ""}[row.holds]


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for a terminal."""
    header = ("measure", "bar", "obslib (95 % bounds)", "holds", "peers")
    cells = [header]
    for row in rows:
        peers = [f"{title} {_number(figure.median, row.unit)}" for title, figure in row.peers.items()]
        own = (row.measure, _bar(row), written(row.ours, row.unit), _verdict(row))
        cells += [(*own, peers[0] if peers else ""), *(("", "", "", "", peer) for peer in peers[1:])]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    cells.insert(1, tuple("─" * width for width in widths))  # type: ignore[arg-type]
    padded = ((cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def caption(described: Mapping[str, object]) -> str:
    """One line: where and when."""
    return "{cpu}, {cpus} of its CPUs, {kernel}, {python}, {date}, commit {commit}".format_map(described)


def whole(findings: Findings, described: Mapping[str, object]) -> str:
    """Everything that is printed at the end."""
    versions = described["versions"]
    assert isinstance(versions, Mapping)
    return "\n".join(
        [
            caption(described),
            ", ".join(f"{package} {version}" for package, version in versions.items()),
            "",
            table(findings.rows),
            "",
            (
                f"control: bare again {written(findings.control, 'cost')}; bare: "
                f"{findings.bare_seconds.median * 1e6:.0f} µs of CPU a request, {findings.capacity:.0f} requests a "
                f"second; {findings.control.rounds} rounds"
            ),
            *_undelivered(findings.deliveries),
            *_overrun(findings),
            _disturbed(findings),
            *_dropped(findings.dropped),
        ]
    )


def _undelivered(deliveries: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Name the variants that did less than they should have: their figures flatter them."""
    sentences = []
    for label, own in deliveries.items():
        variant = variants.BY_NAME.get(label)
        if variant is None:
            continue
        for kind, expected in (("spans", variant.spans), ("lines", variant.lines)):
            if abs(own[kind] - expected) > 0.02 * max(1, expected):
                sentences.append(f"note: {variant.title} delivered {own[kind]:.2f} {kind} a request, not {expected}")
    return sentences


def _dropped(dropped: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        f"collector {label}: "
        + (
            ", ".join(f"{spans} spans dropped ({reason})" for reason, spans in reasons.items() if spans)
            or "none dropped"
        )
        for label, reasons in dropped.items()
    ]


def _disturbed(findings: Findings) -> str:
    """Tell how often others were at work on the server's CPU."""
    parts = [own.disturbed_part for spent in findings.spent.values() for own in spent]
    samples = [sample for own in findings.samples.values() for sample in own]
    repeated = sum(sample.tries - 1 for sample in samples)
    left = sum(sample.disturbed_part > MOST_DISTURBED_PART for sample in samples)
    return (
        f"slices: others took {statistics.median(parts):.1%} of the server's CPU in the median round, {max(parts):.1%} "
        f"in the worst\nstretches: {len(samples)}, {repeated} more repeated because others took more than "
        f"{MOST_DISTURBED_PART:.0%} of the server's CPU meanwhile, as they did in {left} of those that count"
    )


def _overrun(findings: Findings) -> list[str]:
    """Name the variants that could not carry the open loop's rate: their latency is the length of the run."""
    rate = statistics.median(findings.raw.get("open_loop_rates", [0]))
    carried: dict[str, list[float]] = {}
    failed: Counter[str] = Counter()
    for sample in findings.samples.get("open_loop", []):
        failed[sample.label] += sample.load.errors
        # A server whose CPU time a request leaves no room for the rate has a queue that only grows.
        carried.setdefault(sample.label, []).append(1 / sample.cpu_seconds_per_request)
    return [
        f"note: {variants.BY_NAME[label].title} can carry {statistics.median(own):.0f} requests a second at most, "
        f"the open loop asked for {rate:.0f}, {failed[label]} requests failed"
        for label, own in carried.items()
        if rate and statistics.median(own) < rate
    ]
