"""`python -m benchmarks [--quick]`"""

import argparse
import signal
import sys
import time

from benchmarks import cpu, report, variants
from benchmarks.site import open_site
from benchmarks.tools import provide
from stack.components.progress import Progress


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What obslib and its peers cost.")
    parser.add_argument("--quick", action="store_true", help="the main rows only, in two minutes")
    parser.add_argument("--rounds", type=int)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()

    def told(text: str) -> None:
        print(f"  {time.monotonic() - started:5.0f} s  {text}", flush=True)

    tools = provide(Progress())
    with open_site(tools) as site:
        chosen = [variants.BARE, variants.CONTROL, *variants.OURS, variants.TRIO]
        samples = cpu.run(site, cpu.few_routes(chosen), rounds=arguments.rounds or 5, seconds=2, told=told)
    costs = cpu.Costs(samples)
    print(report.table(costs.rows()))
    print("control", costs.control(), "bare", costs.bare_seconds(), costs.bare_capacity())
    told("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
