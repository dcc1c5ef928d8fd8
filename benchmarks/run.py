"""The two runs: everything, and what fits into two minutes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks import cpu, faults, imports, open_loop, scrape, variants, workers
from benchmarks.estimates import Estimate
from benchmarks.rows import Row
from benchmarks.site import Sample, Site

#: Of the two minutes of a quick run, what the rounds may take; a slow machine makes fewer of them.
_QUICK_SECONDS: Final = 95.0
_QUICK_ROUNDS: Final = 6
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
    samples = cpu.run(site, cases, rounds=_QUICK_ROUNDS, repeats=1, told=told, enough=enough)
    findings = _begin(samples)
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
    measured = cpu.run(site, cases, rounds=scaled(4), repeats=scaled(2), told=told)
    # Nobody asks how far exactly the peers are beyond the bars: most rounds are for those that have some.
    cases = [*cpu.few_routes(ours), *cpu.many_routes(ours)]
    measured += cpu.run(site, cases, rounds=scaled(20), first_round=scaled(4), repeats=scaled(2), told=told)
    findings = _begin(measured)
    rate = int(findings.capacity * open_loop.PART_OF_CAPACITY)
    samples = findings.samples
    findings.raw["open_loop_rate"] = rate

    samples["open_loop"] = open_loop.run(
        site, open_loop.VARIANTS, rate=rate, rounds=scaled(7), repeats=scaled(2), told=told
    )
    findings.rows.append(open_loop.row(samples["open_loop"]))

    scraped = scrape.run(site, rate=rate, pairs=scaled(12), seconds=scaled(5), told=told)
    samples["scrape"] = [sample for measured, _ in scraped.values() for sample in measured]
    findings.raw["scrape_seconds"] = {name: seconds for name, (_, seconds) in scraped.items()}
    findings.rows.append(scrape.row(scraped))

    closed, open_, findings.dropped = faults.run(site, rate=rate, rounds=scaled(8), repeats=scaled(2), told=told)
    samples["faults_closed_loop"], samples["faults_open_loop"] = closed, open_
    findings.rows += faults.rows(closed, open_)

    samples["workers"] = workers.run(site, rounds=scaled(8), repeats=scaled(4), told=told)
    findings.rows.append(workers.row(samples["workers"]))

    _add_imports(findings, rounds=scaled(20), told=told)
    findings.deliveries = site.deliveries()
    return findings


def _begin(samples: list[Sample]) -> Findings:
    costs = cpu.Costs(samples)
    return Findings(
        rows=costs.rows(),
        control=costs.control(),
        bare_seconds=costs.bare_seconds(),
        capacity=costs.bare_capacity(),
        samples={"cpu": samples},
    )


def _add_imports(findings: Findings, *, rounds: int, told: Callable[[str], None]) -> None:
    ratios = imports.run(rounds=rounds, told=told)
    findings.raw["import_ratios"] = ratios
    findings.rows.append(imports.row(ratios))
