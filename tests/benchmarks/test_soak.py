"""The soak: hostile requests that never repeat, and a verdict on memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.children import ROOT
from benchmarks.performance_page import publish_soak
from benchmarks.soak import Hostile, Report, grown_bytes


def reports(*mebibytes: float) -> list[Report]:
    return [
        Report(requests=number, resident_bytes=int(size * 2**20), series=1, spans_dropped=0)
        for number, size in enumerate(mebibytes, 1)
    ]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((60, 90, 90, 90, 90, 90, 90, 90, 90, 90), 0),
        ((60, 90, 92, 94, 96, 98, 100, 102, 104, 106), 10),
        ((60, 90, 90, 90, 140, 90, 90, 91, 140, 140), 0),
    ],
)
def test_growth_is_what_stays(sizes: tuple[float, ...], expected: float) -> None:
    """Memory that comes back was never lost; what grows before everything is warm is not held against it."""
    assert grown_bytes(reports(*sizes)) == expected * 2**20


def test_what_is_hostile_never_repeats() -> None:
    """Paths, hosts and header names are new each time, and the same in each run."""
    hostile, again = Hostile(seed=1), Hostile(seed=1)
    scopes = [hostile.scope() for _ in range(200)]
    assert scopes == [again.scope() for _ in range(200)]
    assert len({scope["headers"][-1][0] for scope in scopes}) == 200
    assert len({scope["method"] for scope in scopes}) > 20


def test_a_short_soak() -> None:
    """It runs, reports series and drops, and says what memory did; so short a run is not yet warm."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--requests", "2000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    head, *lines, verdict = done.stdout.splitlines()
    assert head.split() == ["requests", "resident", "MiB", "series", "spans", "dropped"]
    assert [line.split()[0] for line in lines][-1] == "2,000"
    assert int(lines[-1].split()[2].replace(",", "")) < 2000
    assert verdict.startswith("grown after the first fifth: ")


def test_published_between_the_marks(tmp_path: Path) -> None:
    """The page keeps everything else."""
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- The soak writes from here … -->\nold\n<!-- … up to here. -->\nafter\n")
    publish_soak("new", tmp_path)
    assert page.read_text() == (
        "before\n<!-- The soak writes from here … -->\n\n```text\nnew\n```\n\n<!-- … up to here. -->\nafter\n"
    )
