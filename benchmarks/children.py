"""The processes a bench starts: each on its CPU, measured and stopped by its id."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import psutil

from stack.ports import any_free

ROOT: Final = Path(__file__).parents[1]
_CPUS: Final = sorted(os.sched_getaffinity(0))
#: The server has a CPU of its own where there are two; load, collector and the bench share the other.
SERVER_CPU: Final = _CPUS[0]
LOAD_CPU: Final = _CPUS[1] if len(_CPUS) > 1 else _CPUS[0]

_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0


def pin_this_process(cpu: int) -> None:
    """Keep all threads of this process on one CPU, and those they start."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {cpu})


def pinned_to(cpu: int, command: Sequence[str]) -> list[str]:
    """Return the command that runs another one on one CPU."""
    return [sys.executable, str(Path(__file__).with_name("pinned.py")), str(cpu), *command]


class Child:
    """
    A process that serves HTTP on a free port of this machine.

    Args:
        command: What to run, given the port.
        environment: What it finds, beside what every program needs.
        log: Where its output goes.
    """

    def __init__(self, command: Sequence[str], port: int, environment: Mapping[str, str], log: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._pids: list[int] = []
        with log.open("wb") as output:
            # A session of its own: Ctrl-C reaches the bench alone, which then stops its children in order.
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**plain_environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pids(self) -> list[int]:
        """The process and its workers, as they were when it was ready: to look for them takes milliseconds."""
        return self._pids or self._find_pids()

    def _find_pids(self) -> list[int]:
        me = psutil.Process(self._process.pid)
        return [me.pid, *(child.pid for child in me.children(recursive=True))]

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far, and of its workers."""
        return sum(_cpu_seconds(pid) for pid in self.pids)

    def resident_bytes(self) -> int:
        """Memory it holds now."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids)

    def lines(self) -> int:
        """How many lines it has printed."""
        with self.log.open("rb") as log:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """Ask it for something."""
        request = urllib.request.Request(self.url + path, headers=dict(headers or {}))  # noqa: S310 -- our own URL
        with urllib.request.urlopen(request, timeout=_READY_SECONDS) as answer:  # noqa: S310
            body: bytes = answer.read()
        return body

    def wait_until_ready(self, path: str) -> None:
        """
        Wait until it answers.

        Raises:
            ChildError: It died, or does not answer.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                self.get(path)
            except OSError:
                time.sleep(0.05)
            else:
                self._pids = self._find_pids()
                return
        raise ChildError(f"{self.log.stem} does not answer:\n{self.log.read_text()[-4000:]}")

    def pause(self) -> None:
        """Stop it and its workers where they are."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        for pid in reversed(self.pids):
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it and its workers; returns when they are gone."""
        if self._process.poll() is None:
            left = [psutil.Process(pid) for pid in self._find_pids()]
            self.resume()  # it may be paused
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            for process in left[1:]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


class ChildError(Exception):
    """A process of the bench does not do its work."""


class Children:
    """Starts processes, and stops those that still run when the block ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[Child] = []
        self._ports: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._running):
            child.stop()

    def free_port(self) -> int:
        """Return a port that nobody listens on, and that is not returned again."""
        port = any_free(self._ports)
        self._ports.add(port)
        return port

    def start(self, name: str, command: Sequence[str], port: int, environment: Mapping[str, str]) -> Child:
        """Start a process; it is not ready yet."""
        child = Child(command, port, environment, self._directory / f"{name}-{port}.log")
        self._running.append(child)
        return child

    def stop(self, child: Child) -> None:
        """Stop one of them, and forget what it printed."""
        child.stop()
        self._running.remove(child)
        child.log.unlink()


def _cpu_seconds(pid: int) -> float:
    # clock_getcpuclockid(3): user and system time of all threads, in nanoseconds, where /proc/<pid>/stat has ticks of
    # 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


def plain_environment() -> dict[str, str]:
    """This process' environment without what would configure a variant behind our back."""
    foreign = (
        "OTEL_", "OBSLIB_", "FASTAPI_", "LOGFIRE_", "PROMETHEUS_", "UVICORN_", "PYDANTIC_", "PYTHON", "COVERAGE_",
    )  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # logfire is a plugin of pydantic: where it is installed, `import fastapi` imports it and the exporters.
    return {**kept, "PYDANTIC_DISABLE_PLUGINS": "__all__"}
