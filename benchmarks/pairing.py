"""
Short stretches in turn: each between two of a reference, so that a machine that changes its speed changes no ratio.

The servers of a round all run; those whose turn it is not are stopped (`SIGSTOP`), so that what one puts off falls into
its own next stretch and not into another's.
"""

import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from benchmarks import variants
from benchmarks.latencies import Microseconds
from benchmarks.site import Case, Sample, Server, Site
from benchmarks.variants import Variant

#: Of a stretch, what others may take from the server's CPU; a stretch of which they took more is repeated.
MOST_DISTURBED_PART: Final = 0.1
_TRIES: Final = 3
#: The reference first.
_OURS: Final = (variants.BARE, variants.CONTROL, variants.ALL)
#: Nobody asks how far exactly the peers are beyond the bars.
_PEER_ROUNDS: Final = 2

T = TypeVar("T")


def in_turn(reference: T, subjects: Sequence[T], repeats: int, seed: int) -> list[T]:
    """Return an order in which each subject comes `repeats` times, each time between two references."""
    chance = random.Random(seed)
    order = [reference]
    for _ in range(repeats):
        for subject in chance.sample(subjects, len(subjects)):
            order += [subject, reference]
    return order


def run(
    site: Site,
    peers: Sequence[Variant],
    *,
    rounds: int,
    repeats: int,
    told: Callable[[str], None],
    what: str,
    stretch: Callable[[Server, int], Sample],
) -> list[Sample]:
    """
    Measure obslib beside the bare application in each round, with fresh processes, and peers in the first ones.

    Args:
        site: Where.
        peers: Whom else.
        rounds: How often.
        repeats: How often each comes in a round.
        told: Told of each round.
        what: What it is told.
        stretch: Puts a server under load.
    """
    samples = []
    for round_ in range(rounds):
        chosen = (*_OURS, *peers) if round_ < _PEER_ROUNDS else _OURS
        cases = [Case(label=variant.name, variant=variant) for variant in chosen]
        told(f"{what}: round {round_ + 1} of {rounds}, {len(cases)} servers")
        with site.serving(cases) as servers:
            samples += take(servers, round_, repeats, stretch)
    return samples


def take(
    servers: Sequence[Server], round_: int, repeats: int, stretch: Callable[[Server, int], Sample]
) -> list[Sample]:
    """
    Take a round's stretches.

    Args:
        servers: The reference first, then the subjects.
        round_: Its number; also decides the order.
        repeats: How often each subject comes, times what its case says.
        stretch: Puts a server under load.
    """
    reference, *others = servers
    subjects = [server for server in others for _ in range(server.case.stretches)]
    for server in servers:
        server.child.pause()
    samples = []
    for server in in_turn(reference, subjects, repeats, round_):
        server.child.resume()
        samples.append(_undisturbed(lambda server=server: stretch(server, round_)))  # type: ignore[misc]
        server.child.pause()
    for server in servers:
        server.child.resume()
    return samples


def _undisturbed(stretch: Callable[[], Sample]) -> Sample:
    """Repeat a stretch that others disturbed; the last try counts as it is, and can be told by its `disturbed_part`."""
    for tries in range(1, _TRIES):
        sample = stretch()
        if sample.disturbed_part <= MOST_DISTURBED_PART:
            return replace(sample, tries=tries)
    return replace(stretch(), tries=_TRIES)


def medians(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> list[Mapping[str, float]]:
    """
    Compare each stretch with those of the reference before and after it.

    Args:
        samples: In the order of time; a round begins and ends with the reference.
        figure: What to compare.

    Returns:
        The median of what each label's stretches gave, in multiples of the reference, round by round.
    """
    rounds: dict[int, list[Sample]] = {}
    for sample in samples:
        rounds.setdefault(sample.round, []).append(sample)
    found: list[Mapping[str, float]] = []
    for own in rounds.values():
        compared: dict[str, list[float]] = {}
        for before, sample, after in zip(own, own[1:], own[2:], strict=False):
            if sample.label != own[0].label:
                compared.setdefault(sample.label, []).append(2 * figure(sample) / (figure(before) + figure(after)))
        found.append({label: statistics.median(ratios) for label, ratios in compared.items()})
    return found


def latencies_by_round(samples: Iterable[Sample]) -> dict[int, dict[str, Microseconds]]:
    """Return each label's latencies, round by round."""
    found: dict[int, dict[str, Counter[int]]] = {}
    for sample in samples:
        own = found.setdefault(sample.round, {}).setdefault(sample.label, Counter())
        own.update(sample.load.latencies)
    return {round_: dict(labels) for round_, labels in found.items()}
