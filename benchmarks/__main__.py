"""`python -m benchmarks`: what obslib and its peers cost, measured side by side."""

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, performance_page, plot, report, run
from benchmarks.children import ROOT, ChildError
from benchmarks.load import LoadError
from benchmarks.run import Findings
from benchmarks.site import open_site
from benchmarks.tools import provide
from stack.components.progress import Progress
from stack.errors import ComponentMissingError

_OUTPUT: Final = ROOT / ".bench"


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What obslib and its peers cost.")
    parser.add_argument("--quick", action="store_true", help="the main rows only, in two minutes")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="fewer rounds and stretches of the full run: 0.1 to try it"
    )
    parser.add_argument("--docs", action="store_true", help="write what was found into docs/performance.md")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="directory for the JSON and the plot")
    arguments = parser.parse_args()
    # Whoever ends the bench ends its children: SystemExit and KeyboardInterrupt both unwind through their owner.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _measure(arguments)
    except KeyboardInterrupt:
        return 130
    except (ComponentMissingError, ChildError, LoadError) as error:
        print(f"The bench cannot go on: {error}", file=sys.stderr)
        return 1


def _measure(arguments: argparse.Namespace) -> int:
    started = time.monotonic()

    def told(text: str) -> None:
        print(f"  {time.monotonic() - started:5.0f} s  {text}", flush=True)

    tools = provide(Progress())
    described = machine.describe(tools)
    with open_site(tools) as site:
        findings = run.quick(site, told) if arguments.quick else run.full(site, told, scale=arguments.scale)
    text = report.whole(findings, described)
    print(f"\n{text}\n")
    arguments.output.mkdir(exist_ok=True)
    (arguments.output / ".gitignore").write_text("*\n")
    name = "quick" if arguments.quick else "full"
    results = json.dumps(_as_json(findings, described), indent=1) + "\n"
    (arguments.output / f"{name}.json").write_text(results)
    plot.draw(findings.rows, report.caption(described), arguments.output / f"{name}.png")
    told(f"done; raw rounds in {arguments.output / name}.json, plot in {arguments.output / name}.png")
    if arguments.docs:
        performance_page.publish(text, results, arguments.output / f"{name}.png")
    return 0


def _as_json(findings: Findings, described: dict[str, object]) -> dict[str, Any]:
    return {
        **described,
        "bare_cpu_seconds_per_request": asdict(findings.bare_seconds),
        "bare_requests_per_second": findings.capacity,
        "control": asdict(findings.control),
        "rows": [{**asdict(row), "holds": row.holds} for row in findings.rows],
        "per_request": findings.deliveries,
        "spans_dropped": findings.dropped,
        **findings.raw,
        "spent": {name: [asdict(own) for own in spent] for name, spent in findings.spent.items()},
        "samples": {name: [sample.as_json() for sample in samples] for name, samples in findings.samples.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
