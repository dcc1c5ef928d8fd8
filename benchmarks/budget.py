"""
What a request may execute beside the bare application's own: the committed figure that no busy machine can blur.

`python -m benchmarks.budget` compares with `budget.json`, `--renew` writes it anew, `--instructions` also counts
machine instructions under valgrind, which takes a minute for each variant.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from benchmarks import variants
from benchmarks.children import ROOT, plain_environment

PATH: Final = Path(__file__).with_name("budget.json")
#: What a change may add before the budget has to be renewed, and so be seen in review.
HEAD_ROOM: Final = 0.03
#: The same for counts so small that the part above is less than one.
LEAST_HEAD_ROOM: Final = 2
_INSTRUCTION_REQUESTS: Final = 100
_TIMEOUT_SECONDS: Final = 300

Counts = dict[str, int]


def count() -> dict[str, Counts]:
    """Count what obslib's variants execute above the bare application, a request."""
    names = [variants.BARE.name, *(variant.name for variant in variants.OURS)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = dict(zip(names, pool.map(_counted, names), strict=True))
    bare = counted.pop(variants.BARE.name)
    return {name: {kind: own[kind] - bare[kind] for kind in own} for name, own in counted.items()}


def read() -> dict[str, Any]:
    """Read the committed budget."""
    budget: dict[str, Any] = json.loads(PATH.read_text())
    return budget


def exceeded(counted: Mapping[str, Counts], budget: Mapping[str, Counts]) -> list[str]:
    """
    Compare.

    Returns:
        A sentence for each count that is beyond its budget and head-room.
    """
    return [
        f"{name}: {own[kind]} {kind} a request above bare, {own[kind] / allowed - 1:+.1%} of the budget's {allowed}"
        for name, own in counted.items()
        for kind, allowed in budget[name].items()
        if own[kind] > allowed + max(allowed * HEAD_ROOM, LEAST_HEAD_ROOM)
    ]


def instructions(names: Sequence[str]) -> dict[str, int]:
    """Count machine instructions a request with callgrind; empty where there is no valgrind."""
    if shutil.which("valgrind") is None:
        return {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(_instructions, names), strict=True))


def _counted(name: str) -> Counts:
    counts: Counts = json.loads(_run([sys.executable, "-m", "benchmarks.hot_path", name]).splitlines()[-1])
    return counts


def _instructions(name: str) -> int:
    # Neither address-space layout nor hash seeds may differ from run to run.
    command = ["setarch", "-R"] if shutil.which("setarch") else []
    command += ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=functools_reduce"]
    command += [sys.executable, "-m", "benchmarks.hot_path", name, "--requests", str(_INSTRUCTION_REQUESTS)]
    found = re.search(r"Collected : (\d+)", _run(command))
    if found is None:
        raise RuntimeError("callgrind did not say what it collected.")
    return int(found[1]) // _INSTRUCTION_REQUESTS


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**plain_environment(), "PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[-3:])} failed:\n{done.stderr}")
    return done.stderr


def main() -> int:
    """Compare or renew; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget", description="What a request may execute.")
    parser.add_argument("--renew", action="store_true", help="write what is counted now as the new budget")
    parser.add_argument("--instructions", action="store_true", help="count machine instructions, too")
    arguments = parser.parse_args()
    counted = count()
    for name, own in counted.items():
        print(f"{name:<18} " + "  ".join(f"{kind} +{number}" for kind, number in own.items()))
    if arguments.instructions:
        names = [variants.BARE.name, *counted]
        for name, number in instructions(names).items():
            print(f"{name:<18} instructions {number}")
    if arguments.renew:
        written = {"python": ".".join(platform.python_version_tuple()[:2]), "above_bare": counted}
        PATH.write_text(json.dumps(written, indent=2) + "\n")
        return 0
    sentences = exceeded(counted, read()["above_bare"])
    for sentence in sentences:
        print(sentence)
    if sentences:
        print("Make it cheaper, or renew the budget: python -m benchmarks.budget --renew")
    return len(sentences) > 0


if __name__ == "__main__":
    sys.exit(main())
