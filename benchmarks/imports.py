"""What `import obslib` adds to `import fastapi`, in fresh interpreters."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

from benchmarks.children import ROOT, SERVER_CPU, pinned_to, plain_environment
from benchmarks.estimates import estimate
from benchmarks.rows import Row

_PROGRAM: Final = """
import json, sys, time
started = time.perf_counter()
import fastapi
before = set(sys.modules)
between = time.perf_counter()
import {module}
{then}
ended = time.perf_counter()
unwanted_prefixes = ("opentelemetry.exporter", "opentelemetry.instrumentation")
unwanted = [name for name in set(sys.modules) - before if name.startswith(unwanted_prefixes)]
print(json.dumps({{"ratio": (ended - between) / (between - started), "unwanted": unwanted}}))
"""
_CONTRIB: Final = "opentelemetry.instrumentation.fastapi, opentelemetry.exporter.otlp.proto.http.trace_exporter"
_TIMEOUT_SECONDS: Final = 60


class ImportedTooMuchError(Exception):
    """Importing obslib imported what only those who use it should pay for."""


def run(*, rounds: int, told: Callable[[str], None]) -> dict[str, list[float]]:
    """Import in so many fresh interpreters each; return the added time over `import fastapi`."""
    told(f"imports: {rounds} fresh interpreters each")
    ratios: dict[str, list[float]] = {"obslib": [], "instrumented": [], "contrib": []}
    for _ in range(rounds):
        answer = _import("obslib")
        if answer["unwanted"]:
            raise ImportedTooMuchError(f"import obslib imported {', '.join(answer['unwanted'])}.")
        ratios["obslib"].append(answer["ratio"])
        ratios["instrumented"].append(_import("obslib", "obslib.instrument(fastapi.FastAPI())")["ratio"])
        ratios["contrib"].append(_import(_CONTRIB)["ratio"])
    return ratios


def row(ratios: dict[str, list[float]]) -> Row:
    """The added time, as a part of `import fastapi`'s."""
    return Row(
        measure="import obslib over import fastapi",
        unit="ratio",
        bar=0.15,
        ours=estimate(ratios["obslib"]),
        peers={
            "with instrument(app)": estimate(ratios["instrumented"]),
            "contrib and its exporter": estimate(ratios["contrib"]),
        },
    )


def _import(module: str, then: str = "") -> dict[str, Any]:
    done = subprocess.run(
        pinned_to(SERVER_CPU, [sys.executable, "-c", _PROGRAM.format(module=module, then=then)]),
        cwd=ROOT,
        env={**plain_environment(), "OTEL_SERVICE_NAME": "imports"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
