"""From py-spy's stacks to the table and the boxes."""

from pathlib import Path

import pytest

from benchmarks import performance_page, profile

RAW = """\
run (uvicorn/main.py);serve (obslib/_middleware.py) 10
run (uvicorn/main.py);serve (obslib/_middleware.py);get (starlette/routing.py) 30
run (uvicorn/main.py);serve (obslib/_middleware.py);add (obslib/_backlog.py);finished (obslib/_logs.py);sub (re.py) 20
run (uvicorn/main.py);serve (obslib/_middleware.py);send (obslib/_exchange.py);send (uvicorn/httptools_impl.py) 10
run (uvicorn/main.py) 30
"""


def test_parts_are_of_whoever_called() -> None:
    """What the library's code calls elsewhere counts as its own; what framework and server do below the layer does not."""
    shares = profile.parts(profile.parse(RAW))
    assert {part: share for part, share in shares.items() if share} == {
        "the layer: headers, ids, status, sizes, the end": pytest.approx(0.1),
        "log lines": pytest.approx(0.2),
    }


def test_the_table_adds_up() -> None:
    """The parts are of the CPU time of a request."""
    shares = profile.parts(profile.parse(RAW))
    *_, whole, rest = profile.table(shares, 200e-6).splitlines()
    assert whole.split() == ["all", "of", "obslib", "60.0", "30.0%"]
    assert rest.split()[-2:] == ["140.0", "70.0%"]


def test_boxes_hold_what_was_called_in_them() -> None:
    """A function's box is as wide as its samples and those of its callees."""
    root = profile.flame(profile.parse(RAW))
    assert root.count == 100
    [run] = root.callees.values()
    assert run.count == 100
    assert run.callees["serve (obslib/_middleware.py)"].count == 70


def test_the_profile_is_written_beside_the_results(tmp_path: Path) -> None:
    """Each has its own part of the page."""
    committed = Path(__file__).parents[2] / "docs" / "performance.md"
    page = tmp_path / "performance.md"
    page.write_text(committed.read_text())
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    performance_page.publish("results", "{}\n", picture, tmp_path)
    performance_page.publish_profile("profiled before", picture, tmp_path)
    performance_page.publish_profile("second", picture, tmp_path)
    text = page.read_text()
    assert "profiled before" not in text.partition("The profile is written from here")[2]
    assert text.index("```text\nresults\n") < text.index("```text\nsecond\n") < text.index("## What holds between")
    assert (tmp_path / "profile.png").read_bytes() == b"png"
