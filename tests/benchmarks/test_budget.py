"""What a request executes, counted: the same on every machine, however busy."""

import platform
import sys

import pytest

from benchmarks import budget


@pytest.fixture(scope="module", name="counted")
def _counted() -> dict[str, budget.Counts]:
    return budget.count()


def test_a_request_executes_no_more_than_the_committed_budget(counted: dict[str, budget.Counts]) -> None:
    """No signal executes more bytecodes or calls more C functions than `budget.json` allows, with 3 % head-room."""
    committed = budget.read()
    if not platform.python_version().startswith(f"{committed['python']}."):
        pytest.skip(f"The budget was counted with Python {committed['python']}.")
    assert budget.exceeded(counted, committed["above_bare"]) == []


@pytest.mark.parametrize(
    ("case", "times"), [(budget.MANY_ROUTES, 1.0), (budget.IN_A_GROUP, 1.1), (budget.DEAD_COLLECTOR, 1.1)]
)
def test_a_request_executes_no_more_for_it(counted: dict[str, budget.Counts], case: budget.Case, times: float) -> None:
    """Two hundred routes cost what ten do; other workers, or a collector that is dead, a tenth at most."""
    ordinary = counted["obslib"]
    for kind, own in counted[case.name].items():
        assert own <= ordinary[kind] * times + budget.LEAST_HEAD_ROOM, kind


def test_what_is_beyond_the_head_room_is_named() -> None:
    """A count beyond budget and head-room yields a sentence with both figures; one within it does not."""
    allowed = {"obslib": {"bytecodes": 1000, "c_calls": 20}}
    assert budget.exceeded({"obslib": {"bytecodes": 1030, "c_calls": 22}}, allowed) == []
    assert budget.exceeded({"obslib": {"bytecodes": 1031, "c_calls": 10}}, allowed) == [
        "obslib: 1031 bytecodes a request above bare, +3.1% of the budget's 1000"
    ]


def test_nothing_of_this_setup_reaches_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that would change what a request executes are not inherited, and pydantic's plugins are off."""
    for name in ("COVERAGE_PROCESS_START", "LOGFIRE_TOKEN", "OTEL_SERVICE_NAME", "PYDANTIC_VALIDATE_CORE_SCHEMAS"):
        monkeypatch.setenv(name, "1")
    program = "import os, sys; print(*os.environ, sep='\\n', file=sys.stderr)"
    inherited = budget._run([sys.executable, "-c", program]).split()
    prefixes = ("COVERAGE_", "LOGFIRE_", "OTEL_", "PYDANTIC_")
    assert [name for name in inherited if name.startswith(prefixes)] == ["PYDANTIC_DISABLE_PLUGINS"]
    assert "PYTHONHASHSEED" in inherited
