"""The picture of simulated runs."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from autoscaler.simulate.run import Run
from autoscaler.simulate.world import Capacity

_DEMAND: Final = "#555555"
_DESIRED: Final = "#e08a1e"
_RUNNING: Final = "#1f6f8b"
_SERVING: Final = "#8fc1d1"
_VIOLATED: Final = "#c0392b"
_WAY_OUT: Final = (
    "A picture needs matplotlib, which only the bench's environment has. Run `make .venv-bench/.ready`, and then "
    "`.venv-bench/bin/python -m autoscaler.simulate …`."
)


class PlotError(Exception):
    """No picture can be drawn; the sentence says what to do."""


def must_be_possible() -> None:
    """
    Ask before a long run.

    Raises:
        PlotError: nobody here can draw.

    """
    if importlib.util.find_spec("matplotlib") is None:
        raise PlotError(_WAY_OUT)


def draw(runs: Sequence[Run], caption: str, path: Path) -> None:
    """
    Draw runs below each other: demand, what was desired, what ran and served, and where the service was violated.

    Args:
        runs: of the same setup.
        caption: below the picture.
        path: where to; a PNG.

    """
    import matplotlib as mpl  # noqa: PLC0415 -- it lives in the bench's own environment

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(
        len(runs), 1, figsize=(9, 2.9 * len(runs)), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for run, axis in zip(runs, axes[:, 0], strict=True):
        setup = run.setup
        minutes = [step * setup.step_seconds / 60 for step in range(len(setup.demand))]
        slots = Capacity.of(setup.service).slots
        needed = [demand / slots for demand in setup.demand]
        axis.fill_between(minutes, needed, color=_DEMAND, alpha=0.2, linewidth=0, label="offered, in full replicas")
        axis.step(minutes, run.running, where="post", color=_RUNNING, linewidth=1.5, label="running")
        axis.step(minutes, run.serving, where="post", color=_SERVING, linewidth=1.2, label="serving")
        axis.step(minutes, run.desired, where="post", color=_DESIRED, linewidth=1, linestyle="--", label="desired")
        axis.fill_between(
            minutes,
            0,
            1,
            where=run.violated,
            transform=axis.get_xaxis_transform(),
            color=_VIOLATED,
            alpha=0.25,
            linewidth=0,
            step="post",
            label="violated",
        )
        axis.set_title(run.name, fontsize=10, loc="left")
        axis.set_ylabel("replicas", fontsize=8)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(fontsize=7, ncols=5, loc="upper right", frameon=False, bbox_to_anchor=(1, 1.16))
    axes[-1, 0].set_xlabel("minutes", fontsize=8)
    figure.supxlabel(caption, fontsize=7, color=_DEMAND)
    figure.savefig(path, dpi=110)
    plt.close(figure)
