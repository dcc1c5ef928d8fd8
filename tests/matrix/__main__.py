"""`python -m tests.matrix`: the behavioural tests in every supported corner, and one table of how they went."""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.matrix.corners import CORNERS, Corner
from tests.matrix.environments import CACHE, Outcome, run_corner


def main() -> int:
    """Run the chosen corners; return 0 only if each of them was built and passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--short", action="store_true", help="only the corners that are part of `make test`")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="corners at once")
    parser.add_argument("--tests", default="", help="only test files with this in their names")
    parser.add_argument("corners", nargs="*", help="only corners with one of these in their names")
    chosen = parser.parse_args()
    corners = [corner for corner in CORNERS if corner.short or not chosen.short]
    if chosen.corners:
        corners = [corner for corner in corners if any(word in corner.name for word in chosen.corners)]
    if not corners:
        parser.error("no corner has that in its name")
    with ThreadPoolExecutor(chosen.jobs) as pool:
        outcomes = list(pool.map(lambda corner: _run(corner, chosen.tests, short=chosen.short), corners))
    for outcome in outcomes:
        if not outcome.passed:
            print(f"\n=== {outcome.corner.name}\n{outcome.text}")
    print(table(outcomes))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _run(corner: Corner, only: str, *, short: bool) -> Outcome:
    tests = corner.short_tests if short else corner.tests
    outcome = run_corner(corner, CACHE, [name for name in tests if only in name])
    print(f"{corner.name}: {outcome.summary}", flush=True)
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """Return what ran where, and how it went."""
    heads = ("corner", "fastapi", "starlette", "otel sdk", "contrib", "seconds", "outcome")
    rows: list[tuple[str, ...]] = [heads]
    rows += [(it.corner.name, *it.versions, f"{it.seconds:.0f}", it.summary) for it in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
