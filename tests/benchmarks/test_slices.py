"""What many slices in turn can tell, and how surely."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from benchmarks import slices, variants
from benchmarks.estimates import Estimate
from benchmarks.site import Case
from benchmarks.slices import Spent

ROUNDS = 16
SLICES = 20


def spent(label: str, round_: int, seconds: float) -> Spent:
    return Spent(label=label, round=round_, requests=1000, cpu_seconds=1000 * seconds, disturbed_part=0.0)


def measured(true: dict[str, float], chance: random.Random) -> list[Spent]:
    """Return what a machine that changes its speed would show; processes and slices differ by chance."""
    found = []
    for round_ in range(ROUNDS):
        speed = 1 + 0.3 * (round_ % 3)
        for label, seconds in {"bare": 1.0, **true}.items():
            noise = chance.gauss(1, 0.02) * (1 + sum(chance.gauss(0, 0.1) for _ in range(SLICES)) / SLICES)
            found.append(spent(label, round_, seconds * speed * noise))
    return found


def ratio(found: list[Spent], label: str) -> Estimate:
    return slices.estimated(
        slices.by_round(found),
        ["bare", label],
        lambda rounds: slices.median(rounds, lambda own: own[label] / own["bare"]),
    )


def test_a_machine_that_is_slower_in_some_rounds_changes_no_ratio() -> None:
    """What differs between rounds cancels exactly: nothing else is noisy here."""
    found = [
        spent(label, round_, seconds * (1 + round_))
        for round_ in range(4)
        for label, seconds in (("bare", 1.0), ("obslib", 1.3))
    ]
    own = ratio(found, "obslib")
    assert (own.median, own.low, own.high) == pytest.approx((1.3, 1.3, 1.3))


def test_the_interval_has_the_true_ratio_as_often_as_it_says() -> None:
    """Of 60 runs on a machine that changes its speed, about 95 % enclose the truth, and the control encloses 1."""
    chance = random.Random(11)
    hits = {"obslib": 0, "control": 0}
    true = {"obslib": 1.3, "control": 1.0}
    for _ in range(60):
        found = measured(true, chance)
        for label, truth in true.items():
            own = ratio(found, label)
            hits[label] += own.low <= truth <= own.high
            assert own.high - own.low < 0.2
    assert hits["obslib"] >= 51  # fewer: three runs in a thousand
    assert hits["control"] >= 51


def test_rounds_that_differ_widen_the_bounds() -> None:
    """Many slices in few processes are not many processes: what differs from round to round stays visible."""
    found = [
        spent(label, round_, 1.0 if label == "bare" else (1.2 if round_ % 2 else 1.4))
        for round_ in range(8)
        for label in ("bare", "obslib")
    ]
    own = ratio(found, "obslib")
    assert (own.low, own.high) == pytest.approx((1.2, 1.4))


def test_rounds_without_a_label_do_not_count() -> None:
    """Peers are measured in some rounds only; theirs are compared with the bare application of the same ones."""
    found = [spent("bare", 0, 1.0), spent("peer", 0, 3.0), spent("bare", 1, 2.0)]
    own = ratio(found, "peer")
    assert (own.median, own.rounds) == (3.0, 1)


class Thing:
    """A server or its load: notes whether it runs, and works while both do."""

    def __init__(self, name: str, running: set[str], seen: list[tuple[str, ...]]) -> None:
        self._name = name
        self._running = running
        self._seen = seen

    def resume(self) -> None:
        self._running.add(self._name)

    def pause(self) -> None:
        self._seen.append(tuple(sorted(self._running)))
        self._running.discard(self._name)

    def cpu_seconds(self) -> float:
        return float(sum(self._name in names and f"load of {self._name}" in names for names in self._seen))


class Server:
    def __init__(self, label: str, running: set[str], seen: list[tuple[str, ...]]) -> None:
        self.case = Case(label=label, variant=variants.BARE, stretches=2 if label == "bare" else 1)
        self.child = Thing(label, running, seen)


class Site:
    def __init__(self, running: set[str], seen: list[tuple[str, ...]]) -> None:
        self._running = running
        self._seen = seen
        self.ended: list[str] = []

    @contextmanager
    def paused_load(self, server: Server) -> Iterator[Thing]:
        label = server.case.label
        yield Thing(f"load of {label}", self._running, self._seen)
        self.ended.append(label)

    def finished(self, server: Server, _load: Thing) -> int:
        return 1000


def test_one_server_and_its_load_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is awake in a slice; the reference has twice as many; at the end all servers run and no load does."""
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(slices, "_SETTLE_SECONDS", 0.0)
    running = {"bare", "obslib"}
    seen: list[tuple[str, ...]] = []
    site = Site(running, seen)
    found = slices.take(site, [Server(label, running, seen) for label in ("bare", "obslib")], 0, 5)  # type: ignore[arg-type, misc]
    awake = [names for names in seen if any(name.startswith("load") for name in names)]
    assert set(awake) == {("bare", "load of bare"), ("load of obslib", "obslib")}
    assert {own.label: own.cpu_seconds for own in found} == {"bare": 10.0, "obslib": 5.0}
    assert running == {"bare", "obslib"}
    assert sorted(site.ended) == ["bare", "obslib"]


class Started(Site):
    """A site whose servers only have cases."""

    def __init__(self) -> None:
        super().__init__(set(), [])
        self.cases: list[Case] = []

    @contextmanager
    def serving(self, cases: Sequence[Case]) -> Iterator[list[Server]]:
        self.cases += cases
        yield [Server(case.label, set(), []) for case in cases]


def test_no_pause_makes_a_part_of_a_batch_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a load that goes on batches are sent when they are full; what a case says itself counts more."""
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(slices, "_SETTLE_SECONDS", 0.0)
    site = Started()
    own = {"OTEL_BSP_SCHEDULE_DELAY": "5", "A": "b"}
    cases = [Case(label="bare", variant=variants.BARE), Case(label="own", variant=variants.BARE, environment=own)]
    slices.run(site, cases, rounds=1, count=1, told=lambda _: None)  # type: ignore[arg-type]
    delays = [float((case.environment or {})["OTEL_BSP_SCHEDULE_DELAY"]) for case in site.cases]
    assert delays[0] > 60_000 * 5
    assert site.cases[1].environment == own
