"""
What a request may execute beside the bare application's own: the committed figure that no busy machine can blur.

`python -m benchmarks.budget` compares with `budget.json`, `--renew` writes it anew, `--docs` publishes the table,
`--instructions` also counts machine instructions under valgrind, which takes a minute for each variant.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import application, cpu, performance_page, variants
from benchmarks.children import ROOT, plain_environment
from benchmarks.variants import Variant

PATH: Final = Path(__file__).with_name("budget.json")
#: What a change may add before the budget has to be renewed, and so be seen in review.
HEAD_ROOM: Final = 0.03
#: The same for counts so small that the part above is less than one.
LEAST_HEAD_ROOM: Final = 2
_INSTRUCTION_REQUESTS: Final = 100
_TIMEOUT_SECONDS: Final = 300

Counts = dict[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """
    What is counted.

    Args:
        name: Unique; its name in the budget.
        title: For people.
        variant: What runs.
        routes: How many routes the application has.
        environment: What the program finds beside the variant's own variables.
    """

    name: str
    title: str
    variant: Variant
    routes: int = application.ROUTES
    environment: Mapping[str, str] = field(default_factory=dict)


MANY_ROUTES: Final = Case(
    name="obslib-many-routes",
    title=f"… with {cpu.MANY_ROUTES} routes instead of {application.ROUTES}",
    variant=variants.ALL,
    routes=cpu.MANY_ROUTES,
)
IN_A_GROUP: Final = Case(
    name="obslib-in-a-group",
    title="… in one of several workers",
    variant=variants.ALL,
    environment={"OBSLIB_WORKER_GROUP": "budget"},
)
#: Nobody listens there; two rows of spans fill the queue, and those after them are dropped and counted.
DEAD_COLLECTOR: Final = Case(
    name="obslib-dead-collector",
    title="… with a dead collector and the queue full",
    variant=variants.ALL,
    environment={
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OBSLIB_SPAN_QUEUE_MAX_SPANS": "16",
        "OBSLIB_SPAN_BATCH_MAX_SPANS": "16",
    },
)
#: What must cost no more than all signals do anywhere.
CIRCUMSTANCES: Final = (MANY_ROUTES, IN_A_GROUP, DEAD_COLLECTOR)
CASES: Final = (
    *(Case(name=variant.name, title=variant.title, variant=variant) for variant in variants.OURS),
    *CIRCUMSTANCES,
)


def count() -> dict[str, Counts]:
    """Count what each case executes above the bare application, a request."""
    bare = {
        routes: Case(name=f"bare-{routes}", title="bare", variant=variants.BARE, routes=routes)
        for routes in {case.routes for case in CASES}
    }
    cases = [*bare.values(), *CASES]
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = dict(zip(cases, pool.map(lambda case: _counted(case, directory), cases), strict=True))
    return {
        case.name: {kind: own - counted[bare[case.routes]][kind] for kind, own in counted[case].items()}
        for case in CASES
    }


def table(counted: Mapping[str, Counts]) -> str:
    """Return what was counted, for people."""
    width = max(len(case.title) for case in CASES)
    lines = [f"{'above bare, a request':<{width}}  bytecodes  calls into C"]
    lines += [
        f"{case.title:<{width}}  {counted[case.name]['bytecodes']:>9}  {counted[case.name]['c_calls']:>12}"
        for case in CASES
    ]
    return "\n".join(lines)


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


def _counted(case: Case, directory: str) -> Counts:
    command = [sys.executable, "-m", "benchmarks.hot_path", case.variant.name, "--routes", str(case.routes)]
    counts: Counts = json.loads(
        _run(command, {"OBSLIB_WORKER_DIRECTORY": directory, **case.environment}).splitlines()[-1]
    )
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


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**plain_environment(), "PYTHONHASHSEED": "0", **(environment or {})},
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
    parser.add_argument("--docs", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument("--instructions", action="store_true", help="count machine instructions, too")
    arguments = parser.parse_args()
    counted = count()
    print(table(counted))
    if arguments.docs:
        performance_page.publish_budget(table(counted))
    if arguments.instructions:
        names = [variants.BARE.name, *(variant.name for variant in variants.OURS)]
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
