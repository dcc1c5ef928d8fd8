"""What the screen offers: pages that show something, and commands that answer."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from obslib import names
from stack.components.catalogue import Component
from stack.state import ROOT, StateDirectory
from stack.status import StackStatus
from tests.integration.running import START_SECONDS, RunningStack, eventually


def command(state: StateDirectory, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "stack", "--state-dir", str(state.path), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


@pytest.fixture
def order_trace(stack: RunningStack) -> str:
    """The trace id of an order that all services have worked on."""
    answer = stack.order()
    trace_id: str = stack.access_line("shop", answer.headers["x-request-id"])[names.LOG_TRACE_ID]
    stack.complete_trace(trace_id, {"shop", "payments", "worker"})
    return trace_id


def test_every_printed_page_loads_and_is_not_empty(stack: RunningStack) -> None:
    """Prometheus' pages among them, with the scripts they are drawn by."""
    pages = stack.status().pages

    assert set(pages) >= {"the shop", "its metrics", "Prometheus", "its targets", "Alertmanager", "HAProxy"}
    said = (stack.state.path / "up.log").read_text()
    for url in pages.values():
        assert url in said
        answer = stack.http.get(url)
        assert (answer.status_code, bool(answer.text.strip())) == (200, True), url
    expression = dict(httpx.URL(pages["Prometheus"]).params)["g0.expr"]
    eventually(lambda: stack.query(expression), "the printed graph has data")


def test_status_tells_programs_what_it_tells_people(stack: RunningStack) -> None:
    """Each process with name, pid, URL, health and memory; credentials only by their file."""
    for_programs = command(stack.state, "status", "--json")
    for_people = command(stack.state, "status")

    status = StackStatus.from_json(json.loads(for_programs.stdout))
    assert (for_programs.returncode, for_people.returncode) == (0, 0)
    for process in status.processes:
        assert process.healthy
        assert process.resident_bytes > 0
        assert f"{process.name:<12} {process.pid:>8}" in for_people.stdout
    token = Path(status.faults_token_file).read_text().strip()
    password = (stack.state.run / "redis-password").read_text().strip()
    said = (stack.state.path / "up.log").read_text()
    webhook, operator = (path.read_text().strip() for path in (stack.state.webhook_token, stack.state.operator_token))
    for secret in (token, password, webhook, operator):
        assert secret not in for_programs.stdout + for_people.stdout + said


def test_a_trace_is_printed_as_a_tree(stack: RunningStack, order_trace: str) -> None:
    """By its id, with the spans of every service."""
    result = command(stack.state, "trace", order_trace)

    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"trace {order_trace}"
    assert lines[3].split()[:3] == ["shop", "POST", "/v1/orders"]
    assert {line.split()[0] for line in lines[3:]} == {"shop", "payments", "worker"}


def test_the_last_trace_is_a_whole_one(stack: RunningStack, order_trace: str) -> None:
    """Without an id: the newest order that all services have worked on."""
    result = command(stack.state, "trace", "--last")

    assert result.returncode == 0, result.stderr
    assert "payments, shop, worker" in result.stdout


@pytest.mark.parametrize(
    ("trace_id", "sentence"),
    [("f" * 32, "Jaeger has no trace"), ("nonsense", "is no trace id: those have 32 hexadecimal digits")],
)
def test_a_trace_that_is_not_there_is_a_sentence(stack: RunningStack, trace_id: str, sentence: str) -> None:
    """With the way to one that is."""
    result = command(stack.state, "trace", trace_id)

    assert result.returncode == 1
    assert sentence in result.stderr
    assert "trace --last" in result.stderr


def test_the_lines_of_one_request_are_gathered(stack: RunningStack, order_trace: str) -> None:
    """From all processes, each named, in the order of time."""

    def gathered() -> list[str] | None:
        lines = command(stack.state, "logs", "--trace", order_trace).stdout.splitlines()
        return (
            lines if {line.split()[0].partition("-")[0] for line in lines} == {"shop", "payments", "worker"} else None
        )

    lines = eventually(gathered, "lines of all three services")
    times = [json.loads(line.partition(" ")[2])[names.LOG_TIMESTAMP] for line in lines]
    assert times == sorted(times)


def test_a_broken_setting_ends_the_start_with_its_sentence(
    components: Mapping[str, Component], state_directory: Path
) -> None:
    """The service's own words are shown, what had started is stopped, and nothing is a stack trace of ours."""
    state = StateDirectory.at(state_directory)

    result = command(state, "up", "--no-load", "--port-base", "0", OBSLIB_ENGINE="nonsense")

    assert result.returncode == 1
    assert "exited with status" in result.stderr
    assert "must be one of obslib, contrib" in result.stderr
    assert "Stopped in" in result.stdout
    assert "Traceback" not in result.stdout
