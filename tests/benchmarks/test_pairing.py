"""What short stretches in turn can tell, and how surely."""

import random
import statistics
from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks import pairing, variants
from benchmarks.estimates import Estimate
from benchmarks.load import Load
from benchmarks.site import Case, Sample

ROUNDS = 9
REPEATS = 4


def sample(label: str, round_: int, seconds: float, latencies: dict[int, int] | None = None) -> Sample:
    load = Load(
        requests=1000,
        duration_seconds=0.4,
        errors=0,
        p50_seconds=0.001,
        p99_seconds=0.002,
        p999_seconds=0.003,
        max_seconds=0.004,
        latencies=latencies or {},
    )
    return Sample(label=label, round=round_, cpu_seconds_per_request=seconds, resident_bytes=1, load=load)


def measured(true: dict[str, float], speed: Callable[[int, int], float], chance: random.Random) -> list[Sample]:
    """Return what a machine of some speed would show; processes and stretches differ by chance."""
    samples = []
    for round_ in range(ROUNDS):
        process = {label: chance.gauss(1, 0.02) for label in ("bare", *true)}
        for place, label in enumerate(pairing.in_turn("bare", list(true), REPEATS, round_)):
            seconds = true.get(label, 1.0) * process[label] * speed(round_, place) * chance.gauss(1, 0.05)
            samples.append(sample(label, round_, seconds))
    return samples


def ratio(samples: list[Sample], label: str) -> Estimate:
    multiples = pairing.multiples(samples, lambda own: own.cpu_seconds_per_request)
    return pairing.estimated(multiples, [label], lambda rounds: statistics.median(own[label] for own in rounds))


def test_each_subject_stands_between_two_references() -> None:
    """Every other place is the reference's, each subject comes as often as asked, and the seed decides the order."""
    order = pairing.in_turn("bare", ["a", "b", "c"], 3, seed=1)
    assert set(order[::2]) == {"bare"}
    assert sorted(order[1::2]) == sorted("abc" * 3)
    assert order == pairing.in_turn("bare", ["a", "b", "c"], 3, seed=1)
    assert any(order != pairing.in_turn("bare", ["a", "b", "c"], 3, seed=seed) for seed in range(2, 9))


def test_a_machine_that_slows_down_steadily_changes_no_ratio() -> None:
    """Drift within a round and jumps between rounds cancel exactly: no stretch is noisy here."""
    samples = [
        sample(label, round_, (1.3 if label == "obslib" else 1.0) * (1 + round_) * (1 + 0.1 * place))
        for round_ in range(3)
        for place, label in enumerate(pairing.in_turn("bare", ["obslib", "control"], 2, round_))
    ]
    found = ratio(samples, "obslib")
    assert (found.median, found.low, found.high) == pytest.approx((1.3, 1.3, 1.3))
    assert ratio(samples, "control").median == pytest.approx(1.0)


def test_what_rarely_happens_counts() -> None:
    """A stretch in which work that was put off is done is part of the round's mean, not an outlier."""
    pairs = (("obslib", 1.0), ("obslib", 1.0), ("obslib", 1.9))
    samples = [sample("bare", 0, 1.0)]
    for label, seconds in pairs:
        samples += [sample(label, 0, seconds), sample("bare", 0, 1.0)]
    assert ratio(samples, "obslib").median == pytest.approx(1.3)


def test_the_interval_has_the_true_ratio_as_often_as_it_says() -> None:
    """Of 40 runs on a machine that changes its speed, about 95 % enclose the truth, and the control encloses 1."""
    chance = random.Random(11)
    hits = {"obslib": 0, "control": 0}
    true = {"obslib": 1.3, "control": 1.0}
    for _ in range(40):
        drift = chance.uniform(-0.02, 0.02)
        samples = measured(true, lambda round_, place, drift=drift: 1 + 0.3 * (round_ % 3) + drift * place, chance)  # type: ignore[misc]
        for label, truth in true.items():
            found = ratio(samples, label)
            hits[label] += found.low <= truth <= found.high
            assert found.high - found.low < 0.2
    assert 35 <= hits["obslib"] <= 40
    assert 35 <= hits["control"] <= 40


def test_rounds_that_differ_widen_the_bounds() -> None:
    """Many stretches in few processes are not many processes: what differs from round to round stays visible."""
    samples = [
        sample(label, round_, 1.0 if label == "bare" else (1.2 if round_ % 2 else 1.4))
        for round_ in range(8)
        for label in pairing.in_turn("bare", ["obslib"], 20, round_)
    ]
    found = ratio(samples, "obslib")
    assert (found.low, found.high) == pytest.approx((1.2, 1.4))


class Child:
    """Notes what is done to it."""

    def __init__(self, name: str, running: set[str]) -> None:
        self._name = name
        self._running = running

    def pause(self) -> None:
        self._running.discard(self._name)

    def resume(self) -> None:
        self._running.add(self._name)


class Server:
    def __init__(self, label: str, running: set[str]) -> None:
        self.label = label
        self.case = Case(label=label, variant=variants.BARE, stretches=2 if label == "often" else 1)
        self.child = Child(label, running)


def test_only_the_one_that_is_measured_runs() -> None:
    """All others are paused during a stretch, and go on at the end."""
    running = {"bare", "obslib", "control"}
    servers = [Server(label, running) for label in ("bare", "obslib", "control")]

    def stretch(server: Server, round_: int) -> Sample:
        assert running == {server.label}
        return sample(server.label, round_, 1.0)

    samples = pairing.take(servers, 2, 2, stretch)  # type: ignore[arg-type]
    assert len(samples) == 9
    assert {own.tries for own in samples} == {1}
    assert running == {"bare", "obslib", "control"}


def test_a_case_that_asks_for_more_stretches_has_them() -> None:
    """Each between two references, as all others."""
    servers = [Server(label, set()) for label in ("bare", "often", "once")]
    samples = pairing.take(servers, 0, 3, lambda server, round_: sample(server.label, round_, 1.0))  # type: ignore[arg-type, attr-defined]
    labels = [own.label for own in samples]
    assert (labels.count("bare"), labels.count("often"), labels.count("once")) == (10, 6, 3)
    assert set(labels[::2]) == {"bare"}


def test_a_disturbed_stretch_is_repeated_twice_at_most() -> None:
    """The third try counts, whatever it was; how often others were at work is kept."""
    disturbed = iter([0.5, 0.0, 0.2, 0.3, 0.4, 0.1])

    def stretch(server: Server, round_: int) -> Sample:
        return replace(sample(server.label, round_, 1.0), disturbed_part=next(disturbed))

    servers = [Server(label, set()) for label in ("bare", "obslib")]
    samples = pairing.take(servers, 0, 1, stretch)  # type: ignore[arg-type]
    assert [(own.tries, own.disturbed_part) for own in samples] == [(2, 0.0), (3, 0.4), (1, 0.1)]


def test_latencies_of_a_round_are_put_together() -> None:
    """Two stretches of one label are one distribution; other rounds and labels stay apart."""
    samples = [
        sample("bare", 0, 1.0, {900: 5, 1000: 1}),
        sample("bare", 0, 1.0, {900: 2}),
        sample("obslib", 0, 1.0, {950: 1}),
        sample("bare", 1, 1.0, {800: 3}),
    ]
    assert pairing.latencies_by_round(samples) == {
        0: {"bare": {900: 7, 1000: 1}, "obslib": {950: 1}},
        1: {"bare": {800: 3}},
    }
