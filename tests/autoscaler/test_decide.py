"""What is decided, case by case; tests/autoscaler/test_simulate.py asks the same of thousands of traces."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import pytest

from autoscaler.actuators import Replicas
from autoscaler.decide import Direction, Override, Reason, Sample, Signals, State, decide, last_change
from autoscaler.limits import Limits
from prometheus.durations import Clock
from prometheus.policy import Scaling, Server
from prometheus.read_policy import parse
from tests.prometheus.test_policy import GOOD

NOW = 1_800_000_000.0
LIMITS = Limits(
    min_replicas=1,
    max_replicas=8,
    out_step=4,
    in_step=1,
    out_after_seconds=5,
    in_after_seconds=300,
    in_after_samples=54,
    out_cooldown_seconds=15,
    in_cooldown_seconds=30,
    sample_seconds=5,
    signals=2,
)


def series(*newest: float, before: float | None = None, age_seconds: float = 1) -> list[Sample]:
    """The newest samples, each 5 s after the one before, and as many of another value as fill a window."""
    values = [*([before] * 70 if before is not None else []), *newest]
    return [
        Sample(at_seconds=NOW - age_seconds - 5 * (len(values) - 1 - place), value=value)
        for place, value in enumerate(values)
    ]


def state(
    desired: Sequence[Sample],
    *,
    running: int = 2,
    target: int | None = None,
    demand: Mapping[str, float] | None = None,
    complete: float | None = 2,
    scraped: float | None = None,
    burning: bool = False,
    ineffective: bool = False,
    history: Sequence[Sample] = (),
    ordered_out_at: float | None = None,
    ordered_in_at: float | None = None,
    override: Override | None = None,
    retry_at: float | None = None,
) -> State:
    """What is known, with everything in order where nothing else is said."""
    return State(
        replicas=Replicas(running=running, target=running if target is None else target),
        signals=Signals(
            desired=desired,
            running=history,
            demand=demand or {},
            complete=complete,
            scraped=running if scraped is None else scraped,
            burning=burning,
            ineffective=ineffective,
        ),
        override=override,
        ordered_out_at=ordered_out_at,
        ordered_in_at=ordered_in_at,
        retry_at=retry_at,
    )


OUT = [
    pytest.param(state(series(4, 4)), 4, Reason.DEMAND, id="two samples ask for more"),
    pytest.param(state(series(3, 6)), 3, Reason.DEMAND, id="only as many as both ask for"),
    pytest.param(state(series(8, 8)), 6, Reason.DEMAND, id="one step at a time"),
    pytest.param(state(series(20, 20), running=6), 8, Reason.DEMAND, id="never above the maximum"),
    pytest.param(state(series(8, 8), running=2, target=6), 8, Reason.DEMAND, id="counted from what was ordered"),
    pytest.param(
        state(series(4, 4), running=4, target=3), 4, Reason.DEMAND, id="a replica that drains is wanted again"
    ),
    pytest.param(state(series(4, 4), complete=1), 4, Reason.DEMAND, id="a lost signal does not stop it"),
    pytest.param(state(series(4, 4), burning=True), 4, Reason.DEMAND, id="a burning budget does not stop it"),
    pytest.param(state(series(8, 8), running=5, demand={"in_flight": 7.5}), 8, Reason.DEMAND, id="asked for now, too"),
    pytest.param(
        state(series(8, 8), running=5, scraped=2, demand={"in_flight": 3.0}), 8, Reason.DEMAND, id="as two of five say"
    ),
    pytest.param(
        state(series(8, 8), running=5, demand={"in_flight": math.nan}), 8, Reason.DEMAND, id="nobody knows how many now"
    ),
    pytest.param(
        state(series(8, 8), running=5, scraped=0, demand={"cpu": 1.0}), 8, Reason.DEMAND, id="no replica is heard"
    ),
    pytest.param(state(series(4, 4), ordered_out_at=NOW - 15), 4, Reason.DEMAND, id="after the cool-down"),
    pytest.param(state(series(4, 4), ordered_in_at=NOW - 1), 4, Reason.DEMAND, id="a step in needs no rest before it"),
    pytest.param(state((), running=0), 1, Reason.BELOW_MINIMUM, id="fewer than the minimum, whatever is known"),
    pytest.param(
        state((), override=Override(replicas=5, until_seconds=NOW + 9)), 5, Reason.PINNED, id="pinned without signals"
    ),
]


@pytest.mark.parametrize(("known", "target", "reason"), OUT)
def test_more_replicas_are_ordered(known: State, target: int, reason: Reason) -> None:
    """As soon as the need has lasted."""
    decision = decide(known, LIMITS, NOW)

    assert (decision.direction, decision.target, decision.reason) == (Direction.OUT, target, reason)


IN = [
    pytest.param(state(series(1, before=1), running=3), 2, Reason.DEMAND, id="one at a time"),
    pytest.param(state(series(2, before=2), running=3), 2, Reason.DEMAND, id="to what is enough"),
    pytest.param(state(series(8, before=8), running=9), 8, Reason.DEMAND, id="more than the policy's maximum"),
    pytest.param(state(series(1, before=1), running=3, ordered_in_at=NOW - 30), 2, Reason.DEMAND, id="rested"),
    pytest.param(
        state((), running=6, override=Override(replicas=2, until_seconds=NOW + 9)), 2, Reason.PINNED, id="pinned"
    ),
]


@pytest.mark.parametrize(("known", "target", "reason"), IN)
def test_fewer_replicas_are_ordered(known: State, target: int, reason: Reason) -> None:
    """When a whole window has shown that fewer are enough."""
    decision = decide(known, LIMITS, NOW)

    assert (decision.direction, decision.target, decision.reason) == (Direction.IN, target, reason)


HOLD = [
    pytest.param(state(series(2, 2)), Reason.STEADY, "2 are needed, and there are 2", id="enough"),
    pytest.param(
        dataclasses.replace(state(series(2, 2)), replicas=None, silent="No socket."),
        Reason.ACTUATOR_UNKNOWN,
        "Nobody says how many replicas there are. No socket.",
        id="nobody counts them",
    ),
    pytest.param(
        state(series(4, 4), retry_at=NOW + 7), Reason.ACTUATOR_BACKOFF, "the next attempt is in 7 s", id="failed"
    ),
    pytest.param(
        dataclasses.replace(state(()), signals=Signals(unreadable="Prometheus answers 503.")),
        Reason.SIGNAL_UNREADABLE,
        "Prometheus answers 503.",
        id="Prometheus is away",
    ),
    pytest.param(state(()), Reason.SIGNAL_MISSING, "ScaleSignalMissing", id="no number"),
    pytest.param(state(series(4, 4, age_seconds=16)), Reason.SIGNAL_STALE, "16.0 s old", id="an old number"),
    pytest.param(state(series(4, 4, age_seconds=-16)), Reason.SIGNAL_STALE, "in the future", id="clocks disagree"),
    pytest.param(state(series(4, math.nan)), Reason.SIGNAL_NOT_FINITE, "nan", id="no number at all"),
    pytest.param(state(series(4, math.inf)), Reason.SIGNAL_NOT_FINITE, "inf", id="an infinite number"),
    pytest.param(state(series(-1, -1)), Reason.SIGNAL_ABSURD, "-1", id="a negative number"),
    pytest.param(state(series(4, 3.5)), Reason.SIGNAL_ABSURD, "3.5", id="a part of a replica"),
    pytest.param(state(series(81, 81)), Reason.SIGNAL_ABSURD, "at most 8 are allowed", id="an absurd number"),
    pytest.param(state(series(2, 4)), Reason.DEBOUNCE, "not yet for 5 s", id="one sample"),
    pytest.param(state(series(4)), Reason.DEBOUNCE, "not yet for 5 s", id="the first sample"),
    pytest.param(state(series(math.nan, 4)), Reason.DEBOUNCE, "not yet", id="one sample after nothing"),
    pytest.param(state(series(4, 4), ordered_out_at=NOW - 14), Reason.COOLDOWN, "14 s ago", id="too soon"),
    pytest.param(
        state(series(8, 8), running=5, scraped=4, demand={"in_flight": 2.0, "cpu": 0.5}),
        Reason.HELD,
        "8 were needed and are kept until every replica is heard, but no more than 2.5 are asked for now.",
        id="a number kept from before",
    ),
    pytest.param(state(series(4, 4), ineffective=True), Reason.INEFFECTIVE, "did not help", id="it does not help"),
    pytest.param(state(series(4, 4), target=4), Reason.IN_PROGRESS, "2 run and 4 were ordered", id="already ordered"),
    pytest.param(state(series(1, before=1), running=3, target=2), Reason.IN_PROGRESS, "one step", id="draining"),
    pytest.param(
        state(series(1, before=1), running=3, history=series(4, before=4)),
        Reason.IN_PROGRESS,
        "there are 3, and Prometheus still counts 4",
        id="a change that nobody remembers and nobody has seen",
    ),
    pytest.param(state(series(1, before=1), burning=True), Reason.BURNING, "burning", id="a budget burns"),
    pytest.param(
        state(series(1, before=1), complete=1), Reason.SIGNAL_INCOMPLETE, "1 of 2 signals", id="a signal is lost"
    ),
    pytest.param(
        state(series(1, before=1), complete=None), Reason.SIGNAL_INCOMPLETE, "an unknown number", id="unknown"
    ),
    pytest.param(
        state(series(1, before=1), complete=math.nan), Reason.SIGNAL_INCOMPLETE, "nan of 2 signals", id="no count"
    ),
    pytest.param(
        state(series(1, before=1), scraped=1), Reason.SIGNAL_INCOMPLETE, "1 of 2 replicas", id="one is not scraped"
    ),
    pytest.param(state(series(1, 1, 1)), Reason.WINDOW, "not yet for 300 s", id="a short memory"),
    pytest.param(state(series(2, 1, before=1)), Reason.WINDOW, "not yet for 300 s", id="needed a moment ago"),
    pytest.param(
        state(series(*[math.nan] * 10, 1, before=1)), Reason.WINDOW, "without a gap", id="a gap in the memory"
    ),
    pytest.param(
        state(series(1, before=1), running=3, ordered_in_at=NOW - 29), Reason.COOLDOWN, "29 s ago", id="just shrunk"
    ),
    pytest.param(
        state(series(1, before=1), running=3, ordered_out_at=NOW - 29), Reason.COOLDOWN, "29 s ago", id="just grown"
    ),
    pytest.param(
        state(series(1, before=1), running=3, history=series(3, before=2)), Reason.COOLDOWN, "1 s ago", id="by others"
    ),
    pytest.param(state(series(1, before=1), running=1), Reason.STEADY, "1 are needed", id="the minimum stays"),
    pytest.param(
        state(series(4, 4), override=Override(replicas=None, until_seconds=NOW + 60, why="deploy")),
        Reason.PAUSED,
        "for another 60 s: deploy",
        id="paused",
    ),
    pytest.param(
        state(series(4, 4), override=Override(replicas=2, until_seconds=NOW + 60)), Reason.PINNED, "to 2", id="pinned"
    ),
    pytest.param(
        state(series(4, 4), running=8, override=Override(replicas=50, until_seconds=NOW + 60)),
        Reason.PINNED,
        "to 8",
        id="pinned within the bounds",
    ),
]


@pytest.mark.parametrize(("known", "reason", "sentence"), HOLD)
def test_in_doubt_nothing_is_changed(known: State, reason: Reason, sentence: str) -> None:
    """And the reason is said in words."""
    decision = decide(known, LIMITS, NOW)

    assert (decision.direction, decision.target, decision.reason) == (Direction.HOLD, None, reason)
    assert sentence in decision.sentence


def test_each_reason_to_hold_is_among_the_cases() -> None:
    """A reason that nothing leads to would be a promise."""
    reached = {case.values[1] for case in HOLD}

    assert reached == set(Reason) - {Reason.DEMAND, Reason.BELOW_MINIMUM}


def test_an_order_by_hand_expires_by_itself() -> None:
    """From that moment the signals decide."""
    known = state(series(4, 4), override=Override(replicas=2, until_seconds=NOW))

    assert decide(known, LIMITS, NOW).reason is Reason.DEMAND


def test_a_longer_need_is_waited_for() -> None:
    """With a policy that wants a minute of it, one weaker sample begins it anew."""
    patient = dataclasses.replace(LIMITS, out_after_seconds=60)

    assert decide(state(series(*[4] * 13)), patient, NOW).reason is Reason.DEMAND
    assert decide(state(series(*[4] * 11)), patient, NOW).reason is Reason.DEBOUNCE
    assert decide(state(series(*[4] * 6, 2, *[4] * 6)), patient, NOW).reason is Reason.DEBOUNCE


def test_a_large_service_may_double() -> None:
    """A step is four, or as many as there are."""
    large = dataclasses.replace(LIMITS, max_replicas=10_000)

    assert decide(state(series(900, 900), running=300), large, NOW).target == 600


def test_limits_are_those_of_the_policy_on_the_rules_clock() -> None:
    """At a twentieth of the time, every duration is a twentieth; numbers stay."""
    policy = parse(GOOD)
    scaling = policy.services["shop"].scaling
    assert isinstance(scaling, Scaling)
    assert isinstance(policy.server, Server)

    real = Limits.of(scaling, policy.server, Clock())
    twin = Limits.of(scaling, policy.server, Clock(Fraction(1, 20)))

    assert (real.in_after_seconds, real.in_cooldown_seconds, real.sample_seconds, real.signals) == (300, 60, 5, 2)
    assert real.in_after_samples == 54
    for field in dataclasses.fields(Limits):
        scale = 20 if field.name.endswith("_seconds") else 1
        assert getattr(twin, field.name) * scale == getattr(real, field.name)


@pytest.mark.parametrize(
    "limits",
    [
        dataclasses.replace(LIMITS, out_after_seconds=3600),
        dataclasses.replace(LIMITS, in_after_seconds=3600),
        dataclasses.replace(LIMITS, out_cooldown_seconds=3600),
        dataclasses.replace(LIMITS, in_cooldown_seconds=3600),
    ],
)
def test_the_window_holds_all_that_has_to_be_remembered(limits: Limits) -> None:
    """After a restart the last change is looked for in what Prometheus is asked for: a cool-down may be the longest."""
    assert limits.window_seconds > 3600


def test_the_last_change_is_found_in_what_is_remembered() -> None:
    """None where nothing changed, or nothing is remembered."""
    assert last_change([]) is None
    assert last_change(series(2, before=2)) is None
    assert last_change(series(2, 3, 3)) == NOW - 1 - 5
