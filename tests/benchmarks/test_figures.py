"""From raw rounds to the printed verdict."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import closed_loop, faults, pairing, performance_page, report, variants, workers
from benchmarks.cpu import CpuCosts
from benchmarks.estimates import Estimate, estimate
from benchmarks.load import Load, LoadError, closed_loop_load, open_loop_load
from benchmarks.rows import Row
from benchmarks.site import Sample
from benchmarks.slices import Spent


def sample(label: str, round_: int, microseconds: float, p99_seconds: float = 0.002) -> Sample:
    load = Load(
        requests=1000,
        duration_seconds=1.0,
        errors=0,
        p50_seconds=0.001,
        p99_seconds=p99_seconds,
        p999_seconds=p99_seconds,
        max_seconds=p99_seconds,
        latencies={1000: 50, round(p99_seconds * 1e6): 50},
    )
    return Sample(label=label, round=round_, cpu_seconds_per_request=microseconds / 1e6, resident_bytes=1, load=load)


def row(high: float, rounds: int = 10, bar: float | None = 0.35) -> Row:
    return Row(measure="all", unit="cost", bar=bar, ours=Estimate(median=0.3, low=0.2, high=high, rounds=rounds))


def test_bounds_enclose_the_median_and_are_the_same_each_time() -> None:
    """The same rounds give the same median and bounds."""
    first = estimate([1.0, 2.0, 3.0, 4.0, 100.0])
    assert first == estimate([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (first.median, first.rounds) == (3.0, 5)
    assert 1.0 <= first.low < first.median < first.high <= 100.0


def slices_of(round_: int, slow: float = 1.0, /, **microseconds: float) -> list[Spent]:
    """Return what each label's slices took in a round."""
    return [
        Spent(label=label.replace("_", "-"), round=round_, requests=1, cpu_seconds=slow * at / 1e6, disturbed_part=0.0)
        for label, at in microseconds.items()
    ]


def test_a_cost_is_what_comes_on_top_of_both_bare_servers_of_the_same_round() -> None:
    """A machine that is twice as slow in one round changes no cost."""
    spent = [
        own
        for number, slow in ((1, 1.0), (2, 2.0), (3, 1.0), (4, 1.5))
        for own in slices_of(number, slow, bare=99, control=101, obslib=130)
    ]
    costs = CpuCosts(spent)
    assert costs.cost(variants.ALL).median == pytest.approx(0.3)
    assert costs.cost(variants.ALL).high == pytest.approx(0.3)
    assert costs.control().median == pytest.approx(101 / 99 - 1)
    assert costs.bare_seconds().median == pytest.approx(1.25 * 100e-6)


def test_a_tail_is_that_of_all_stretches_of_a_round() -> None:
    """p99/p50 is read from a round's latencies together, over the mean of both bare servers'."""
    samples = [
        sample("bare", 1, 100),
        replace(sample("obslib", 1, 100), load=replace(sample("obslib", 1, 1).load, latencies={1000: 60})),
        sample("control", 1, 100),
        replace(sample("obslib", 1, 100), load=replace(sample("obslib", 1, 1).load, latencies={3000: 40})),
        sample("trio", 1, 100),
        sample("bare", 2, 100),
        replace(sample("obslib", 2, 100), load=replace(sample("obslib", 2, 1).load, latencies={1000: 60, 3000: 40})),
        sample("control", 2, 100),
    ]
    found = closed_loop.row(samples)
    assert found.ours.median == pytest.approx(3 / 2)
    assert found.peers["bare again"].median == 1.0
    assert list(found.peers) == ["bare again", "usual trio"]
    assert (found.ours.rounds, found.peers["usual trio"].rounds) == (2, 1)


def test_growth_with_routes_compares_costs_not_times() -> None:
    """What the bare application itself pays for its routes is not obslib's."""
    spent = slices_of(1, bare=100, control=100, obslib=140, bare_200=300, obslib_200=344)
    assert CpuCosts(spent).route_growth(variants.ALL).median == pytest.approx(1.1)


def test_two_workers_are_compared_with_one_by_what_comes_on_top() -> None:
    """Neither what two workers cost bare nor a round in which the machine is slow is obslib's."""
    spent = [
        own
        for number, slow in ((1, 1.0), (2, 2.0))
        for own in slices_of(number, slow, bare_1=100, obslib_1=140, bare_2=120, obslib_2=164)
    ]
    assert workers.row(spent).ours.median == pytest.approx(1.1)


def test_a_fault_is_compared_with_a_healthy_collector_and_so_is_a_second_healthy_one() -> None:
    """CPU, p99 and memory each stand beside what two healthy ones differ by."""
    labels = {"healthy": 100.0, "healthy again": 102.0, **dict.fromkeys(faults.FAULTS, 105.0)}
    spent = [own for number in range(2) for own in slices_of(number, **labels)]
    subjects = [label for label in labels if label != "healthy"]
    order = [pairing.in_turn("healthy", subjects, 1, number) for number in range(2)]
    found = faults.rows(spent, [sample(label, number, 100) for number in range(2) for label in order[number]])
    assert [row.ours.median for row in found[:3]] == pytest.approx([1.05, 1.0, 1.0])
    assert found[0].peers["healthy again"].median == pytest.approx(1.02)
    assert len(found) == 9


def test_a_bar_holds_only_if_the_upper_bound_does() -> None:
    """The median under the bar is not enough."""
    assert row(high=0.34).holds is True
    assert row(high=0.36).holds is False


def test_few_rounds_prove_nothing() -> None:
    """With three rounds the verdict is open, and is printed as a question."""
    assert row(high=0.3, rounds=3).holds is None
    assert report.table([row(high=0.3, rounds=3)]).splitlines()[-1].endswith("?")


def test_the_table_has_peers_below_each_other() -> None:
    """The whole table, as it is printed."""
    peer = Estimate(median=2.4, low=2.0, high=3.0, rounds=10)
    with_peers = Row(
        measure="all", unit="cost", bar=0.35, ours=row(high=0.4).ours, peers={"usual trio": peer, "contrib": peer}
    )
    assert report.table([with_peers]).splitlines() == [
        "measure  bar       obslib (95 % bounds)  holds  peers",
        "───────  ────────  ────────────────────  ─────  ─────────────────",
        "all      ≤ +0.35×  +0.30× (0.20…0.40)    NO     usual trio +2.40×",
        "                                                contrib +2.40×",
    ]


def test_percentiles_are_of_the_requests_not_of_the_seconds() -> None:
    """vegeta's lines become seconds; the p99 of 100 requests is the second slowest."""
    lines = "\n".join(f"{1_000_000_000 + number},200,{number * 1_000_000},x,y" for number in range(1, 101))
    load = open_loop_load(lines)
    assert (load.requests, load.errors) == (100, 0)
    assert (load.p50_seconds, load.p99_seconds, load.max_seconds) == (0.05, 0.099, 0.1)


def test_what_wrk_prints_becomes_seconds() -> None:
    """The last line counts, and what was under way then; nobody who answered nothing is measured."""
    told = '{"requests": 4, "duration_seconds": 0.4, "errors": 1, "latencies": {"900": 3, "5000": 1}}'
    load = closed_loop_load(f"begins\nRunning 60s test\n{told}\n", under_way=8)
    assert (load.requests, load.errors, load.p50_seconds, load.p99_seconds) == (12, 1, 0.0009, 0.005)
    with pytest.raises(LoadError):
        closed_loop_load('{"requests": 0, "duration_seconds": 0.4, "errors": 0, "latencies": {}}', under_way=8)


def test_the_raw_results_hold_percentiles_not_latencies() -> None:
    """A stretch is one flat object of numbers."""
    raw = sample("bare", 1, 100).as_json()
    assert "latencies" not in raw
    assert (raw["p99_seconds"], raw["tries"]) == (0.002, 1)


def test_the_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    """Only the marked part of the page is replaced, however often."""
    committed = Path(__file__).parents[2] / "docs" / "performance.md"
    page = tmp_path / "performance.md"
    page.write_text(committed.read_text())
    plot = tmp_path / "plot.png"
    plot.write_bytes(b"png")
    for text in ("written before", r"second \1"):
        performance_page.publish(text, "{}\n", plot, tmp_path)
    before, _, rest = page.read_text().partition("```text\n")
    assert rest.startswith("second \\1\n```\n\n![What each variant costs](performance.png)")
    assert "written before" not in rest
    assert committed.read_text().startswith(before.rstrip())
    assert (tmp_path / "performance.json").read_text() == "{}\n"
