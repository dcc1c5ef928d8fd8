"""The picture: what each variant costs, beside the bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.estimates import Estimate
from benchmarks.rows import Row

_OURS: Final = "#1f6f8b"
_THEIRS: Final = "#b8b8b8"
_BAR: Final = "#c0392b"


def draw(rows: Sequence[Row], caption: str, path: Path) -> None:
    """
    Draw the rows that have peers, one panel each, and write them as a PNG.

    Args:
        rows: All rows.
        caption: Below the picture: machine, versions, date.
        path: Where to.
    """
    import matplotlib as mpl  # noqa: PLC0415 -- it lives in the bench's own environment

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    shown = [row for row in rows if row.peers]
    heights = [len(row.peers) + 1.8 for row in shown]
    figure, axes = plt.subplots(
        len(shown),
        1,
        figsize=(9, 0.32 * sum(heights) + 0.8),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for row, axis in zip(shown, axes[:, 0], strict=True):
        figures: list[tuple[str, Estimate]] = [("obslib", row.ours), *row.peers.items()]
        for position, (_, own) in enumerate(figures):
            axis.barh(
                position,
                own.median,
                color=_THEIRS if position else _OURS,
                xerr=[[own.median - own.low], [own.high - own.median]],
                error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#555555"},
            )
            axis.annotate(
                f"{own.median:.2f}",
                (max(own.high, 0), position),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
        if row.bar is not None:
            axis.axvline(row.bar, color=_BAR, linestyle="--", linewidth=1)
        axis.set_yticks(range(len(figures)), [title for title, _ in figures], fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.08)
        axis.set_title(
            row.measure + {"cost": " (× bare)", "ratio": " (×)", "milliseconds": " (ms)"}[row.unit],
            fontsize=9,
            loc="left",
        )
        axis.tick_params(axis="x", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        f"{caption}\nbars: 95 % bootstrap intervals; dashed: what obslib holds itself to", fontsize=7, color="#555555"
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)
