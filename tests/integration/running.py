"""A stack that a test has started, and what tests ask of it."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from obslib import names
from stack import control
from stack.components.catalogue import Component
from stack.errors import NotRunningError
from stack.logs import parse
from stack.state import ROOT, StateDirectory
from stack.status import RUNNING, StackStatus
from stack.traces import JaegerApi, Span

Found = TypeVar("Found")

START_SECONDS = 180.0
STOP_SECONDS = 60.0
# How long tests wait for something that takes seconds: no statement about speed, only an end to waiting.
PATIENCE_SECONDS = 120.0


def eventually(probe: Callable[[], Found | None], what: str, seconds: float = PATIENCE_SECONDS) -> Found:
    """Poll until the probe returns something true; fail with a sentence when the time is over."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


class RunningStack:
    """What a test can do with a running stack."""

    def __init__(
        self, state: StateDirectory, components: Mapping[str, Component], supervisor: "subprocess.Popen[bytes]"
    ) -> None:
        self.supervisor = supervisor
        self.state = state
        self.components = components
        self.http = httpx.Client(trust_env=False, timeout=30)
        self.prometheus_url = self.process_url("prometheus")
        self.jaeger = JaegerApi(self.process_url("jaeger"))
        self.url = self.status().shop_url

    def close(self) -> None:
        self.http.close()
        self.jaeger.close()

    def ask(self, command: str, **fields: object) -> dict[str, Any]:
        return control.ask(self.state.control_socket, {"command": command, **fields})

    def status(self) -> StackStatus:
        return StackStatus.from_json(self.ask("status"))

    def scale(self, service: str, replicas: int) -> None:
        self.ask("scale", service=service, replicas=replicas)

    def begin_to_scale(self, service: str, replicas: int) -> None:
        """Give an order and do not wait for it."""
        self.ask("scale", service=service, replicas=replicas, wait=False)

    def replicas(self, service: str) -> dict[str, Any]:
        """How many there are, how many are ordered, and why the last order failed."""
        found: dict[str, Any] = self.ask("replicas")["services"][service]
        return found

    def process_url(self, name: str) -> str:
        process = self.status().process(name)
        assert process is not None, f"{name} does not run"
        return process.url

    def pid(self, name: str) -> int:
        process = self.status().process(name)
        assert process is not None, f"{name} does not run"
        assert process.pid is not None, f"{name} is between two starts"
        return process.pid

    def pid_or_none(self, name: str) -> int | None:
        process = self.status().process(name)
        return process.pid if process else None

    def query(self, expression: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self._prometheus("query", query=expression)["result"]
        return result

    def exemplars(self, selector: str, *, since: float) -> list[dict[str, Any]]:
        """Series with their exemplars, as `query_exemplars` returns them, from `since` (epoch seconds) on."""
        end = str(time.time() + 60)
        series: list[dict[str, Any]] = self._prometheus("query_exemplars", query=selector, start=str(since), end=end)
        return series

    def _prometheus(self, endpoint: str, **parameters: str) -> Any:
        answer = self.http.get(f"{self.prometheus_url}/api/v1/{endpoint}", params=parameters)
        answer.raise_for_status()
        return answer.json()["data"]

    def log_lines(self, service: str, **fields: object) -> list[dict[str, Any]]:
        """The JSON lines a service's processes wrote whose fields have these values."""
        found = []
        for path in sorted(self.state.logs.glob(f"{service}*.log")):
            lines = (parse(line) for line in path.read_text(errors="replace").splitlines())
            found += [line for line in lines if line and all(line.get(key) == value for key, value in fields.items())]
        return found

    def access_line(self, service: str, request_id: str) -> dict[str, Any]:
        fields = {names.LOG_EVENT: names.ACCESS_EVENT, names.LOG_REQUEST_ID: request_id}
        (line,) = eventually(lambda: self.log_lines(service, **fields), f"an access line of {service}")
        return line

    def complete_trace(self, trace_id: str, services: set[str]) -> list[Span]:
        """The spans of a trace once all these services have sent theirs, and every span's parent is there, too."""

        def probe() -> list[Span] | None:
            spans = self.jaeger.trace(trace_id)
            known = {span.span_id for span in spans} | {""}
            has_every_parent = all(span.parent_id in known for span in spans)
            return spans if has_every_parent and {span.service for span in spans} >= services else None

        return eventually(probe, f"spans of {', '.join(sorted(services))} in trace {trace_id}")

    def order(self, **headers: str) -> httpx.Response:
        """Place an order as a client of its own, so that no rate limit is shared."""
        return self.http.post(
            f"{self.url}/v1/orders",
            json={"items": [{"product_id": 1, "quantity": 2}]},
            headers={"Idempotency-Key": uuid.uuid4().hex, "X-API-Key": uuid.uuid4().hex, **headers},
        )


def start(state: StateDirectory, *options: str) -> "subprocess.Popen[bytes]":
    """Start `python -m stack up` without load on free ports; its words go to `up.log` in the state directory."""
    state.create()
    command = [sys.executable, "-m", "stack", "--state-dir", str(state.path), "up", "--port-base", "0", *options]
    with (state.path / "up.log").open("wb") as words:
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT)


def wait_until_up(process: "subprocess.Popen[bytes]", state: StateDirectory) -> None:
    def probe() -> bool:
        assert process.poll() is None, f"the stack ended:\n{words(state)}"
        try:
            return bool(control.ask(state.control_socket, {"command": "status"})["phase"] == RUNNING)
        except NotRunningError:
            return False

    eventually(probe, f"the stack is up; it said:\n{words(state)}", START_SECONDS)


def words(state: StateDirectory) -> str:
    path: Path = state.path / "up.log"
    return path.read_text(errors="replace")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet collected by its parent does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] != "Z"


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that keeps its connections and answers nobody."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def running(
    path: Path, components: Mapping[str, Component], *options: str, autoscaler: bool = False
) -> Iterator[RunningStack]:
    """A stack for the length of a `with`; without the autoscaler nobody but the test scales it."""
    state = StateDirectory.at(path)
    process = start(state, "--no-load", *([] if autoscaler else ["--no-autoscaler"]), *options)
    try:
        wait_until_up(process, state)
        stack = RunningStack(state, components, process)
        try:
            yield stack
        finally:
            stack.close()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert process.returncode == 0, words(state)
