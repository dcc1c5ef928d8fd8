"""What short stretches in turn can tell, and how surely."""

from dataclasses import replace

import pytest

from benchmarks import pairing, variants
from benchmarks.site import Case, Sample
from tests.benchmarks.samples import sample


def test_each_subject_stands_between_two_references() -> None:
    """Every other place is the reference's, each subject comes as often as asked, and the seed decides the order."""
    order = pairing.in_turn("bare", ["a", "b", "c"], 3, seed=1)
    assert set(order[::2]) == {"bare"}
    assert sorted(order[1::2]) == sorted("abc" * 3)
    assert order == pairing.in_turn("bare", ["a", "b", "c"], 3, seed=1)
    assert any(order != pairing.in_turn("bare", ["a", "b", "c"], 3, seed=seed) for seed in range(2, 9))


def test_a_machine_that_slows_down_steadily_changes_no_ratio() -> None:
    """Drift within a round and jumps between rounds cancel exactly, and one stall does not count: no other is noisy here."""
    samples = [
        sample(label, round_, (1.3 if label == "obslib" else 1.0) * (1 + round_) * (1 + 0.1 * place))
        for round_ in range(3)
        for place, label in enumerate(pairing.in_turn("bare", ["obslib", "control"], 3, round_))
    ]
    stalled = next(place for place, own in enumerate(samples) if own.label == "obslib")
    samples[stalled] = replace(samples[stalled], cpu_seconds_per_request=100.0)
    found = pairing.medians(samples, lambda own: own.cpu_seconds_per_request)
    assert [own["obslib"] for own in found] == pytest.approx([1.3, 1.3, 1.3])
    assert [own["control"] for own in found] == pytest.approx([1.0, 1.0, 1.0])


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
