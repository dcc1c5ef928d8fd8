"""`python -m benchmarks.loop_plot RESULTS PICTURE`: a spike with and without scaling, as `benchmarks.loop` saw it."""

import argparse
import json
from pathlib import Path
from typing import Final

from benchmarks.loop_course import BOUND_SECONDS, Course

_SCALED: Final = "#1f6f8b"
_UNSCALED: Final = "#c0392b"


def draw(scaled: Course, unscaled: Course, path: Path) -> None:
    """
    Draw p95 of both runs above the replicas of both, and write a PNG.

    Args:
        scaled: with the autoscaler.
        unscaled: without.
        path: where to.

    """
    import matplotlib as mpl  # noqa: PLC0415 -- it lives in the bench's own environment

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (latency, replicas) = plt.subplots(
        2, 1, figsize=(8, 5), sharex=True, height_ratios=(2, 1), layout="constrained"
    )
    for course, color, title in ((scaled, _SCALED, "with scaling"), (unscaled, _UNSCALED, "without")):
        p95 = [float("nan") if value is None else value for value in course.p95_seconds]
        latency.plot(course.at_seconds, p95, color=color, label=title)
        replicas.step(course.at_seconds, course.replicas, where="post", color=color, label=title)
    latency.axhline(BOUND_SECONDS, color="#777777", linestyle="--", linewidth=1, label="what the policy promises")
    latency.set_ylabel("p95, seconds")
    latency.set_yscale("log")
    latency.set_yticks([0.1, 0.2, 0.5, 1, 2, 5], labels=["0.1", "0.2", "0.5", "1", "2", "5"])
    latency.minorticks_off()
    latency.set_ylim(0.1, 10)
    latency.legend(fontsize=8, loc="center right")
    replicas.set_ylabel("replicas")
    replicas.set_ylim(0)
    replicas.set_xlabel("seconds from the beginning of the spike")
    for axis in (latency, replicas):
        axis.axvline(0, color="#777777", linewidth=0.5)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop_plot", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    found = json.loads(options.results.read_text())
    draw(Course(**found["scaled"]), Course(**found["unscaled"]), options.picture)
    print(options.picture)


if __name__ == "__main__":
    main()
