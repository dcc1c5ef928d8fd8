"""Load from wrk, in a closed loop, and from vegeta, at a fixed rate; both report in seconds."""

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.children import LOAD_CPU, pinned_to
from benchmarks.tools import Tools
from stack.components.catalogue import Component

CONNECTIONS: Final = 8
_SUMMARY: Final = Path(__file__).with_name("wrk_summary.lua")
#: What a load generator may take beyond the time it was asked to run.
_GRACE_SECONDS: Final = 60


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

    def closed_loop(self, url: str, seconds: int, connections: int = CONNECTIONS) -> Load:
        """Ask as fast as the answers come."""
        command = ["-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(_SUMMARY), url]
        output = _run(self._tools.wrk, "wrk", command, seconds)
        return checked(Load(**json.loads(output.splitlines()[-1])), url)

    def open_loop(self, url: str, seconds: int, rate: int) -> Load:
        """Ask `rate` times a second, whatever the answers do: who cannot carry that fails some, which are counted."""
        results = self._directory / "vegeta.bin"
        targets = self._directory / "vegeta.targets"
        targets.write_text(f"GET {url}\n")
        options = [f"-rate={rate}", f"-duration={seconds}s", "-workers=8", "-max-workers=256", "-timeout=5s"]
        _run(
            self._tools.vegeta,
            "vegeta",
            ["attack", *options, f"-targets={targets}", f"-output={results}"],
            seconds,
        )
        return percentiles(_run(self._tools.vegeta, "vegeta", ["encode", "-to=csv", str(results)], 0))


def percentiles(csv: str) -> Load:
    """Read the lines of `vegeta encode -to=csv`."""
    # Time stamp, status, latency in nanoseconds, …; one line a request.
    rows = [line.split(",", 3)[:3] for line in csv.splitlines()]
    latencies = sorted(int(row[2]) / 1e9 for row in rows)
    stamps = [int(row[0]) for row in rows]

    def percentile(part: float) -> float:
        return latencies[min(len(latencies) - 1, math.ceil(part * len(latencies)) - 1)]

    return Load(
        requests=len(rows),
        duration_seconds=(max(stamps) - min(stamps)) / 1e9,
        errors=sum(row[1] != "200" for row in rows),
        p50_seconds=percentile(0.5),
        p99_seconds=percentile(0.99),
        p999_seconds=percentile(0.999),
        max_seconds=latencies[-1],
    )


def _run(component: Component, executable: str, arguments: list[str], seconds: int) -> str:
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
