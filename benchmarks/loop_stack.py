"""A stack that scales itself, started for a bench, and what the bench asks of it."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx

from stack import control
from stack.errors import StackError
from stack.haproxy import HAProxy, SlotStatus
from stack.state import ROOT, StateDirectory
from stack.status import RUNNING

SHOP: Final = "shop"
_START_SECONDS: Final = 300
_STOP_SECONDS: Final = 60


class BenchError(Exception):
    """The bench cannot go on; the sentence says what did not happen."""


class LoopStack:
    """What a bench does with a running stack; times are seconds since the epoch."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._http = httpx.Client(trust_env=False, timeout=10)
        processes = {process["name"]: process for process in self.ask("status")["processes"]}
        self.prometheus_url = processes["prometheus"]["url"]
        self._autoscaler = processes["autoscaler"]["url"] if "autoscaler" in processes else ""

    def close(self) -> None:
        self._http.close()

    def ask(self, command: str, **fields: object) -> dict[str, Any]:  # Any: JSON
        return control.ask(self._state.control_socket, {"command": command, **fields})

    def running(self) -> int:
        count: int = self.ask("replicas")["services"][SHOP]["running"]
        return count

    def pid(self, name: str) -> int:
        (pid,) = (process["pid"] for process in self.ask("status")["processes"] if process["name"] == name)
        return int(pid)

    def is_loaded(self) -> bool:
        """Whether a spike runs."""
        return any(
            process["name"] == "spike" and process["phase"] == "ready" for process in self.ask("status")["processes"]
        )

    def slots(self) -> dict[int, SlotStatus]:
        """HAProxy's counts, by slot."""
        return asyncio.run(HAProxy(self._state.haproxy_socket).slots())

    def value(self, query: str) -> float | None:
        """The first value of an instant query."""
        answer = self._http.get(f"{self.prometheus_url}/api/v1/query", params={"query": query})
        answer.raise_for_status()
        result = answer.json()["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def decisions(self) -> list[dict[str, Any]]:  # Any: JSON
        """About the shop, newest first."""
        answer = self._http.get(f"{self._autoscaler}/v1/decisions", params={"service": SHOP, "limit": 1000})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def steps_out(self, since: float) -> list[dict[str, Any]]:  # Any: JSON
        """The steps out since then, oldest first."""
        steps = [step for step in self.decisions() if step["direction"] == "out" and moment(step["time"]) >= since]
        return steps[::-1]

    def reaction(self) -> tuple[float, float]:
        """All steps out so far: how many, and the sum of the seconds from being woken to an accepted order."""
        text = self._http.get(f"{self._autoscaler}/metrics").text
        found = {"count": 0.0, "sum": 0.0}
        for line in text.splitlines():
            for part in found:
                if line.startswith(f'autoscaler_reaction_duration_seconds_{part}{{service="{SHOP}"'):
                    found[part] += float(line.rpartition(" ")[2])
        return found["count"], found["sum"]

    def scale(self, count: int) -> None:
        """Bring the shop to a number of replicas by hand, and wait for it."""
        self.ask("scale", service=SHOP, replicas=count)

    def order(self, replicas: int) -> None:
        """Tell the autoscaler, as a person does, how many there should be for the next hour."""
        answer = self._http.put(
            f"{self._autoscaler}/v1/services/{SHOP}/override",
            headers={"Authorization": f"Bearer {self._state.operator_token.read_text().strip()}"},
            json={"replicas": replicas, "seconds": 3600, "why": "a cycle of the bench"},
        )
        answer.raise_for_status()

    def frozen(self, name: str, seconds: float, watch: Callable[[], None]) -> None:
        """Stop a process for a while, calling `watch` several times a second."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                watch()
                time.sleep(0.3)
        finally:
            os.kill(pid, signal.SIGCONT)


def moment(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 180) -> None:
    """
    Poll until true.

    Raises:
        BenchError: the time is over.

    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    raise BenchError(f"Not within {seconds:.0f} s: {what}.")


@contextmanager
def loop_stack(*options: str) -> Iterator[LoopStack]:
    """A stack with one replica of the shop, without load; `options` are those of `python -m stack up`."""
    with tempfile.TemporaryDirectory(prefix="obslib-loop-") as directory:
        state = StateDirectory.at(Path(directory))
        state.create()
        command = [sys.executable, "-m", "stack", "--state-dir", directory, "up", "--port-base", "0", "--replicas", "1"]
        with (state.path / "up.log").open("wb") as said:
            process = subprocess.Popen(
                [*command, "--no-load", *options], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        try:
            eventually(lambda: _is_up(process, state), "the stack is up", _START_SECONDS)
            stack = LoopStack(state)
            try:
                yield stack
            finally:
                stack.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_SECONDS)


def _is_up(process: "subprocess.Popen[bytes]", state: StateDirectory) -> bool:
    if process.poll() is not None:
        raise BenchError(f"The stack ended:\n{(state.path / 'up.log').read_text(errors='replace')}")
    try:
        return bool(control.ask(state.control_socket, {"command": "status"})["phase"] == RUNNING)
    except StackError:
        return False
