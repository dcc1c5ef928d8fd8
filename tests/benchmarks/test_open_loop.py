"""At which rate the open loop asks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks import open_loop, variants
from benchmarks.site import Case, Sample
from tests.benchmarks.samples import sample


class Child:
    """A process that can be paused."""

    def pause(self) -> None:
        """It is now."""

    def resume(self) -> None:
        """It goes on."""


@dataclass
class Server:
    """A case that runs."""

    case: Case
    child: Child = field(default_factory=Child)


class SlowingSite:
    """A machine that is half as fast from its second round on."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    @contextmanager
    def serving(self, cases: Sequence[Case]) -> Iterator[list[Server]]:
        yield [Server(case) for case in cases]

    def closed_loop(self, server: Server, round_: int, seconds: float) -> Sample:
        assert server.case.variant is variants.BARE
        requests = int(seconds * (5000, 2500)[round_])
        return sample(server.case.label, round_, 0.0001, requests=requests, duration_seconds=seconds)

    def open_loop(self, server: Server, round_: int, seconds: float, rate: int) -> Sample:
        self.asked.append((server.case.label, rate))
        return sample(server.case.label, round_, 0.0001)


def test_a_slower_machine_is_asked_for_less() -> None:
    """Two fifths of what the bare application carries in that round, for all alike."""
    site = SlowingSite()
    samples, rates = open_loop.run(site, rounds=2, repeats=1, told=lambda _: None)  # type: ignore[arg-type]
    assert rates == [2000, 1000]
    asked = {(round_, rate) for round_, (_, rate) in zip((sample.round for sample in samples), site.asked, strict=True)}
    assert asked == {(0, 2000), (1, 1000)}
    assert {label for label, _ in site.asked} >= {"bare", "obslib", "trio"}
