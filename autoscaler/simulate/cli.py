"""The command line: replays a demand, and prints what came of it."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from autoscaler.simulate.plot import PlotError, draw, must_be_possible
from autoscaler.simulate.report import Measures, table
from autoscaler.simulate.run import Setup, with_autoscaler, with_hpa
from autoscaler.simulate.shapes import NAMES, TraceError, read_csv, shape
from autoscaler.simulate.world import TARGET_SHARE, Capacity, Unit
from prometheus.errors import PolicyError
from prometheus.policy import Policy, Service
from prometheus.read_policy import read

_POLICY: Final = Path(__file__).parents[2] / "prometheus" / "policy.yml"
_STEP_SECONDS: Final = 1.0
#: The highest demand of a built-in shape, as a part of what all allowed replicas are meant to carry.
_HIGHEST_SHARE: Final = 0.8
_LONGEST_MINUTES: Final = 7 * 24 * 60


class _UsageError(Exception):
    """What was asked for makes no sense; the sentence says what would."""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Simulate.

    Args:
        arguments: without the program's name; default: the process' own.

    Returns:
        The exit status: 0; 1 when something given cannot be used, or a run has left the policy's bounds.

    """
    parsed = _parser().parse_args(arguments)
    try:
        if parsed.plot is not None:
            must_be_possible()
        setup, title = _setup(parsed)
        runs = [with_autoscaler(setup), with_hpa(setup)]
        print(f"{title}\n\n{table(runs)}")
        measured = {run.name: Measures.of(run) for run in runs}
        if parsed.json is not None:
            document = {"title": title, "runs": {name: found.as_json() for name, found in measured.items()}}
            parsed.json.write_text(json.dumps(document, indent=2) + "\n")
        if parsed.plot is not None:
            draw(runs, title, parsed.plot)
    except (OSError, PlotError, PolicyError, TraceError, _UsageError) as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if measured[runs[0].name].out_of_bounds else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m autoscaler.simulate",
        description="Replays a demand through the rules and decisions of this project, and through an HPA's.",
    )
    demand = parser.add_mutually_exclusive_group()
    demand.add_argument("--shape", choices=NAMES, default="wave-noise", help="a built-in demand (default: wave-noise)")
    demand.add_argument("--csv", type=Path, metavar="FILE", help="a recorded demand: seconds,demand")
    parser.add_argument(
        "--unit",
        type=Unit,
        choices=tuple(Unit),
        default=Unit.WORK,
        help="what the demand counts: offered work (requests a second times the seconds of one), what is too much "
        "waits; or in-flight, as recorded (default: work)",
    )
    parser.add_argument("--service", default="shop", help="one that scales (default: shop)")
    parser.add_argument("--policy", type=Path, default=_POLICY, metavar="FILE", help="default: prometheus/policy.yml")
    parser.add_argument("--minutes", type=_minutes, default=30.0, help="how long a built-in demand is (default: 30)")
    parser.add_argument("--seed", type=int, default=1, help="of noise, phases and starts (default: 1)")
    parser.add_argument("--replicas-max", type=int, metavar="N", help="instead of the policy's max_replicas")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a picture; needs matplotlib")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers for programs")
    return parser


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes <= _LONGEST_MINUTES:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 and up to {_LONGEST_MINUTES}, a week")
    return minutes


def _setup(parsed: argparse.Namespace) -> tuple[Setup, str]:
    policy = read(parsed.policy)
    service = _service(policy, parsed.service, parsed.replicas_max)
    assert service.scaling is not None
    if parsed.csv is not None:
        demand, what = read_csv(parsed.csv, _STEP_SECONDS), str(parsed.csv)
    else:
        meant = Capacity.of(service).slots * TARGET_SHARE
        demand = shape(
            parsed.shape,
            highest=_HIGHEST_SHARE * meant * service.scaling.max_replicas,
            length_seconds=parsed.minutes * 60,
            step_seconds=_STEP_SECONDS,
            seed=parsed.seed,
        )
        what = parsed.shape
    bounds = f"{service.scaling.min_replicas} to {service.scaling.max_replicas} replicas"
    minutes = len(demand) * _STEP_SECONDS / 60
    title = f"{service.name}, {bounds}: {what} ({parsed.unit}), {minutes:g} minutes, seed {parsed.seed}"
    return Setup(service=service, server=policy.server, demand=demand, unit=parsed.unit, seed=parsed.seed), title


def _service(policy: Policy, name: str, most: int | None) -> Service:
    scaling = {service.name: service for service in policy.scaling()}
    if name not in scaling:
        raise _UsageError(f"No service {name!r} scales. There are {', '.join(scaling) or 'none in this policy'}.")
    service = scaling[name]
    assert service.scaling is not None
    if most is None:
        return service
    if most < service.scaling.min_replicas:
        raise _UsageError(f"--replicas-max {most} is below the policy's min_replicas, {service.scaling.min_replicas}.")
    return replace(service, scaling=replace(service.scaling, max_replicas=most))
