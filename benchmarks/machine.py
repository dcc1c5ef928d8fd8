"""Where and with what a run took place."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks.children import ROOT
from benchmarks.tools import Tools

_PACKAGES: Final = (
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-fastapi",
    "prometheus-client",
    "prometheus-fastapi-instrumentator",
    "starlette-exporter",
    "structlog",
    "logfire",
)


def describe(tools: Tools) -> dict[str, object]:
    """Describe machine, versions and time."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {
            **{package: metadata.version(package) for package in _PACKAGES},
            "wrk": tools.wrk.version,
            "vegeta": tools.vegeta.version,
        },
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _commit() -> str:
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "obslib"], capture_output=True, text=True, check=False)
    return commit.stdout.strip() + (" with changes to obslib" if changed.stdout else "")
