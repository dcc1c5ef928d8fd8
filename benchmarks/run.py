"""The two runs: everything, and what fits into two minutes."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks import closed_loop, cpu, faults, imports, open_loop, scrape, slices, variants, workers
from benchmarks.estimates import Estimate
from benchmarks.rows import Row
from benchmarks.site import Sample, Site
from benchmarks.slices import Spent

#: Of the two minutes of a quick run, what the rounds may take; a slow machine makes fewer of them.
_QUICK_SECONDS: Final = 95.0
_QUICK_ROUNDS: Final = 6
_QUICK_SLICES: Final = 8
_LEAST_ROUNDS: Final = 2


@dataclass(kw_only=True)
class Findings:
    """What a run found, and all it was found from."""

    rows: list[Row] = field(default_factory=list)
    control: Estimate
    bare_seconds: Estimate
    capacity: float
    deliveries: dict[str, dict[str, float]] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    spent: dict[str, list[Spent]] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)


def quick(site: Site, told: Callable[[str], None]) -> Findings:
    """Measure CPU a request of obslib and the usual trio, and the import."""
    chosen = [variants.BARE, variants.CONTROL, *variants.OURS, variants.TRIO]
    started = time.monotonic()

    def enough(rounds: int) -> bool:
        spent = time.monotonic() - started
        return rounds >= _LEAST_ROUNDS and spent * (rounds + 1) / rounds > _QUICK_SECONDS

    cases = cpu.few_routes(chosen)
    findings = _begin(slices.run(site, cases, rounds=_QUICK_ROUNDS, count=_QUICK_SLICES, told=told, enough=enough))
    _add_imports(findings, rounds=5, told=told)
    findings.deliveries = site.deliveries()
    return findings


def full(site: Site, told: Callable[[str], None], *, scale: float = 1.0) -> Findings:
    """
    Measure everything.

    Args:
        site: Where.
        told: Told of each step.
        scale: Makes rounds and stretches fewer, to see whether everything works.
    """

    def scaled(number: int) -> int:
        return max(1, round(number * scale))

    ours = [variants.BARE, variants.CONTROL, *variants.OURS]
    chosen = [*ours, *variants.PEERS]
    cases = [*cpu.few_routes(chosen), *cpu.many_routes(chosen)]
    spent = slices.run(site, cases, rounds=scaled(3), count=scaled(16), told=told)
    # Nobody asks how far exactly the peers are beyond the bars: most rounds are for those that have some.
    cases = [*cpu.few_routes(ours), *cpu.many_routes(ours)]
    spent += slices.run(site, cases, rounds=scaled(26), first_round=scaled(3), count=scaled(32), told=told)
    findings = _begin(spent)
    samples = findings.samples
    samples["closed_loop"] = closed_loop.run(site, rounds=scaled(12), repeats=scaled(4), told=told)
    findings.rows.append(closed_loop.row(samples["closed_loop"]))

    samples["open_loop"], rates = open_loop.run(site, rounds=scaled(16), repeats=scaled(3), told=told)
    findings.raw["open_loop_rates"] = rates
    rate = int(statistics.median(rates))
    findings.rows.append(open_loop.row(samples["open_loop"]))

    scraped = scrape.run(site, rate=rate, pairs=scaled(12), seconds=scaled(5), told=told)
    samples["scrape"] = [sample for measured, _ in scraped.values() for sample in measured]
    findings.raw["scrape_seconds"] = {name: seconds for name, (_, seconds) in scraped.items()}
    findings.rows.append(scrape.row(scraped))

    findings.spent["faults"], samples["faults_open_loop"], findings.dropped = faults.run(
        site, rate=rate, rounds=scaled(24), repeats=scaled(3), count=scaled(5), told=told
    )
    findings.rows += faults.rows(findings.spent["faults"], samples["faults_open_loop"])

    findings.spent["workers"] = workers.run(site, rounds=scaled(10), count=scaled(60), told=told)
    findings.rows.append(workers.row(findings.spent["workers"]))

    _add_imports(findings, rounds=scaled(20), told=told)
    findings.deliveries = site.deliveries()
    return findings


def _begin(spent: list[Spent]) -> Findings:
    costs = cpu.CpuCosts(spent)
    bare_seconds = costs.bare_seconds()
    return Findings(
        rows=costs.rows(),
        control=costs.control(),
        bare_seconds=bare_seconds,
        capacity=1 / bare_seconds.median,
        spent={"cpu": spent},
    )


def _add_imports(findings: Findings, *, rounds: int, told: Callable[[str], None]) -> None:
    ratios = imports.run(rounds=rounds, told=told)
    findings.raw["import_ratios"] = ratios
    findings.rows.append(imports.row(ratios))
