"""Load from wrk, in a closed loop, and from vegeta, at a fixed rate."""

import contextlib
import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.children import LOAD_CPU, pinned_to
from benchmarks.latencies import Microseconds, percentile_seconds
from benchmarks.tools import Tools
from stack.components.catalogue import Component

CONNECTIONS: Final = 8
_SUMMARY: Final = Path(__file__).with_name("wrk_summary.lua")
_COUNT: Final = Path(__file__).with_name("wrk_count.lua")
#: What a load generator may take beyond the time it was asked to run.
_GRACE_SECONDS: Final = 60
#: Longer than any round.
_LONG_SECONDS: Final = 3600
_CONNECT_SECONDS: Final = 0.05
_INTERRUPT_SECONDS: Final = 0.2


class LoadError(Exception):
    """A load generator failed, or an application did not answer as it should."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one load generator saw."""

    requests: int
    duration_seconds: float
    errors: int
    p50_seconds: float
    p99_seconds: float
    p999_seconds: float
    max_seconds: float
    latencies: Microseconds = field(default_factory=dict, repr=False)


class PausableLoad:
    """
    Asks as fast as the answers come, whenever it may.

    Args:
        wrk: Runs.
        url: What it asks for.
    """

    def __init__(self, wrk: "subprocess.Popen[str]", url: str) -> None:
        self._wrk = wrk
        self._url = url

    def pause(self) -> None:
        """Ask for nothing more; answers may still be under way."""
        self._wrk.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        self._wrk.send_signal(signal.SIGCONT)

    def finish(self) -> int:
        """
        End, and return how many requests were sent in all.

        Raises:
            LoadError: Requests failed, or wrk did.
        """
        self.resume()
        output = ""
        deadline = time.monotonic() + _GRACE_SECONDS
        while not output and time.monotonic() < deadline:
            # One that comes while it wakes up may reach a thread that only ends itself.
            self._wrk.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                output = self._wrk.communicate(timeout=_INTERRUPT_SECONDS)[0]
        if self._wrk.returncode or not output:
            raise LoadError(f"wrk failed: {output.strip() or 'it does not end'}")
        told = json.loads(output.splitlines()[-1])
        if told["errors"] or not told["requests"]:
            raise LoadError(f"{told['errors']} of {told['requests']} requests to {self._url} failed.")
        return int(told["requests"]) + CONNECTIONS  # those under way, which the server answers and wrk does not count


class Generators:
    """
    Starts load and waits for its end.

    Args:
        tools: The programs.
        directory: For vegeta's raw results.
    """

    def __init__(self, tools: Tools, directory: Path) -> None:
        self._tools = tools
        self._directory = directory

    def closed_loop(self, url: str, seconds: float, connections: int = CONNECTIONS) -> Load:
        """Ask as fast as the answers come."""
        # wrk knows whole seconds only, but ends in good order when it is interrupted.
        command = ["-t1", f"-c{connections}", f"-d{_GRACE_SECONDS}s", "-s", str(_SUMMARY), url]
        with self._wrk(command) as wrk:
            assert wrk.stdout is not None
            begins = wrk.stdout.readline()
            time.sleep(seconds)
            wrk.send_signal(signal.SIGINT)
            output = begins + wrk.communicate(timeout=_GRACE_SECONDS)[0]
        if wrk.returncode:
            raise LoadError(f"wrk failed: {output.strip()}")
        return checked(closed_loop_load(output, under_way=connections), url)

    @contextlib.contextmanager
    def pausable(self, url: str) -> Iterator[PausableLoad]:
        """Start a load that has begun, and is paused; it is gone when the block ends."""
        command = ["-t1", f"-c{CONNECTIONS}", f"-d{_LONG_SECONDS}s", "-s", str(_COUNT), url]
        with self._wrk(command) as wrk:
            try:
                assert wrk.stdout is not None
                wrk.stdout.readline()
                time.sleep(_CONNECT_SECONDS)
                load = PausableLoad(wrk, url)
                load.pause()
                yield load
            finally:
                wrk.kill()

    def _wrk(self, arguments: list[str]) -> "subprocess.Popen[str]":
        program = self._tools.wrk
        return subprocess.Popen(
            pinned_to(LOAD_CPU, [program.command("wrk"), *arguments]),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=program.environment(),
        )

    def open_loop(self, url: str, seconds: float, rate: int) -> Load:
        """Ask `rate` times a second, whatever the answers do: who cannot carry that fails some, which are counted."""
        results = self._directory / "vegeta.bin"
        targets = self._directory / "vegeta.targets"
        targets.write_text(f"GET {url}\n")
        options = [
            f"-rate={rate}",
            f"-duration={round(seconds * 1000)}ms",
            "-workers=8",
            "-max-workers=256",
            "-timeout=5s",
        ]
        _run(
            self._tools.vegeta,
            "vegeta",
            ["attack", *options, f"-targets={targets}", f"-output={results}"],
            seconds,
        )
        return open_loop_load(_run(self._tools.vegeta, "vegeta", ["encode", "-to=csv", str(results)], 0))


def closed_loop_load(output: str, under_way: int) -> Load:
    """
    Read what wrk printed last.

    Args:
        output: All of it.
        under_way: Requests that the server has answered, or is about to, and wrk did not wait for.
    """
    told = json.loads(output.splitlines()[-1])
    told["requests"] += under_way
    latencies = {int(microseconds): count for microseconds, count in told.pop("latencies").items()}
    return _load(latencies, **told)


def open_loop_load(csv: str) -> Load:
    """Read the lines of `vegeta encode -to=csv`."""
    # Time stamp, status, latency in nanoseconds, …; one line a request.
    rows = [line.split(",", 3)[:3] for line in csv.splitlines()]
    stamps = [int(row[0]) for row in rows]
    return _load(
        Counter(round(int(row[2]) / 1000) for row in rows),
        requests=len(rows),
        duration_seconds=(max(stamps) - min(stamps)) / 1e9,
        errors=sum(row[1] != "200" for row in rows),
    )


def _load(latencies: Microseconds, *, requests: int, duration_seconds: float, errors: int) -> Load:
    if not latencies:
        raise LoadError("No request was answered.")
    return Load(
        requests=requests,
        duration_seconds=duration_seconds,
        errors=errors,
        p50_seconds=percentile_seconds(latencies, 0.5),
        p99_seconds=percentile_seconds(latencies, 0.99),
        p999_seconds=percentile_seconds(latencies, 0.999),
        max_seconds=max(latencies) / 1e6,
        latencies=latencies,
    )


def _run(component: Component, executable: str, arguments: list[str], seconds: float) -> str:
    answer = subprocess.run(
        pinned_to(LOAD_CPU, [component.command(executable), *arguments]),
        capture_output=True,
        text=True,
        timeout=seconds + _GRACE_SECONDS,
        check=False,
        env=component.environment(),
    )
    if answer.returncode != 0:
        raise LoadError(f"{executable} failed: {(answer.stderr or answer.stdout).strip()}")
    return answer.stdout


def checked(load: Load, url: str) -> Load:
    """
    Return the load.

    Raises:
        LoadError: Requests failed, or there were none.
    """
    if load.errors or not load.requests:
        raise LoadError(f"{load.errors} of {load.requests} requests to {url} failed.")
    return load
