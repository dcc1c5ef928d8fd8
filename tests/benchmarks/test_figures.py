"""From raw rounds to the printed verdict."""

from pathlib import Path

import pytest

from benchmarks import performance_page, report, variants, workers
from benchmarks.cpu import Costs
from benchmarks.estimates import Estimate, estimate
from benchmarks.load import Load, percentiles
from benchmarks.rows import Row
from benchmarks.site import Sample


def sample(label: str, round_: int, microseconds: float, p99_seconds: float = 0.002) -> Sample:
    load = Load(
        requests=1000,
        duration_seconds=1.0,
        errors=0,
        p50_seconds=0.001,
        p99_seconds=p99_seconds,
        p999_seconds=p99_seconds,
        max_seconds=p99_seconds,
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


def test_a_cost_is_what_comes_on_top_of_both_bare_servers_of_the_same_round() -> None:
    """A machine that is twice as slow in one round changes no cost."""
    rounds = [(1, 1.0), (2, 2.0), (3, 1.0), (4, 1.5)]
    samples = [
        sample(label, number, slow * microseconds)
        for number, slow in rounds
        for label, microseconds in (("bare", 99), ("control", 101), ("obslib", 130))
    ]
    costs = Costs(samples)
    assert costs.cost("obslib").median == pytest.approx(0.3)
    assert costs.cost("obslib").high == pytest.approx(0.3)
    assert costs.control().median == pytest.approx(101 / 99 - 1)


def test_a_round_of_several_stretches_counts_each_request_once() -> None:
    """Stretches of one round are weighed by their requests."""
    samples = [sample(label, 1, at) for label, at in (("bare", 100), ("control", 100), ("pfi", 140), ("pfi", 160))]
    assert Costs(samples).cost("pfi").median == pytest.approx(0.5)


def test_growth_with_routes_compares_costs_not_times() -> None:
    """What the bare application itself pays for its routes is not obslib's."""
    samples = [
        sample("bare", 1, 100),
        sample("control", 1, 100),
        sample("obslib", 1, 140),
        sample("bare-200", 1, 300),
        sample("obslib-200", 1, 344),
    ]
    assert Costs(samples).route_growth(variants.ALL).median == pytest.approx(1.1)


def test_two_workers_are_compared_with_one_by_what_comes_on_top() -> None:
    """Neither what two workers cost bare nor a round in which the machine is slow is obslib's."""
    samples = [
        sample(label, number, slow * microseconds)
        for number, slow in ((1, 1.0), (2, 2.0))
        for label, microseconds in (
            ("bare-1", 100),
            ("obslib-1", 140),
            ("bare-2", 120),
            ("obslib-2", 160),
            ("obslib-2", 168),
        )
    ]
    assert workers.row(samples).ours.median == pytest.approx(1.1)


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
    load = percentiles(lines)
    assert (load.requests, load.errors) == (100, 0)
    assert (load.p50_seconds, load.p99_seconds, load.max_seconds) == (0.05, 0.099, 0.1)


def test_the_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    """Only the marked part of the page is replaced, however often."""
    committed = Path(__file__).parents[2] / "docs" / "performance.md"
    page = tmp_path / "performance.md"
    page.write_text(committed.read_text())
    plot = tmp_path / "plot.png"
    plot.write_bytes(b"png")
    for text in ("replaced", r"second \1"):
        performance_page.publish(text, "{}\n", plot, tmp_path)
    before, _, rest = page.read_text().partition("```text\n")
    assert rest.startswith("second \\1\n```\n\n![What each variant costs](performance.png)")
    assert "replaced" not in rest
    assert committed.read_text().startswith(before.rstrip())
    assert (tmp_path / "performance.json").read_text() == "{}\n"
