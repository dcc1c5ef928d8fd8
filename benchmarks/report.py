"""The table for people."""

from collections.abc import Sequence

from benchmarks.estimates import Estimate
from benchmarks.rows import Row, Unit


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
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)
