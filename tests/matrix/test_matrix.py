"""The matrix itself: what cannot be built, what fails and what tests nothing has not passed."""

import sys
from pathlib import Path

import pytest

from tests.matrix.__main__ import table
from tests.matrix.corners import CORNERS, Corner
from tests.matrix.environments import ROOT, key, run_corner

CORNER = Corner(name="here", requirements=("starlette==1.0.0",))


def made_already(cache: Path) -> None:
    """Put an environment into the cache: the one that runs this."""
    folder = cache / key(CORNER)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    (folder / ".built").touch()


@pytest.mark.parametrize(
    ("tests", "passed"), [(["test_readme"], True), (["test_that_is_not_there"], False)], ids=["passes", "tests nothing"]
)
def test_outcome_is_the_tests(tmp_path: Path, tests: list[str], *, passed: bool) -> None:
    """A corner passes if its tests do, and not if there are none."""
    made_already(tmp_path)
    outcome = run_corner(CORNER, tmp_path, tests)
    assert (outcome.passed, outcome.versions[1] != "-") == (passed, True), outcome.text


def test_what_cannot_be_built(tmp_path: Path) -> None:
    """An environment that cannot be made is an outcome, and not a passed one."""
    impossible = Corner(name="none", requirements=("starlette==1.0.0,==1.0.1",))
    outcome = run_corner(impossible, tmp_path, ["test_readme"])
    assert (outcome.passed, outcome.summary) == (False, "cannot be built")
    assert "starlette" in outcome.text
    assert "cannot be built" in table([outcome])


def test_environments_follow_their_requirements() -> None:
    """Another requirement is another environment, and no two corners share one."""
    assert key(CORNER) != key(Corner(name="here", requirements=("starlette==1.0.1",)))
    assert len({key(corner) for corner in CORNERS}) == len(CORNERS)


def test_every_module_that_is_named_exists() -> None:
    """The corners name no test module that was renamed or removed, and each short one has tests."""
    for corner in CORNERS:
        assert all((ROOT / "tests" / "obslib" / f"{name}.py").exists() for name in corner.tests)
        assert corner.short_tests
