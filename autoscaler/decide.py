"""
What to do about one service, as a function of what is known about it: no clock, no network, no memory.

An alert or a tick only wakes; both come here, with the same samples, and get the same answer. In doubt the answer is to
hold. Too many replicas cost money, too few cost requests: scaling in asks for more proof than scaling out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from autoscaler.actuators import Replicas
from autoscaler.limits import Limits

#: Older than so many evaluations, the newest sample says nothing about now.
_STALE_SAMPLES: Final = 3
#: A number so many times the maximum comes from a mistake, not from load.
_ABSURD_FACTOR: Final = 10


class Direction(StrEnum):
    """Which way a decision goes."""

    OUT = "out"
    IN = "in"
    HOLD = "hold"


class Reason(StrEnum):
    """Why, as a label: few and fixed. The sentence of a decision says it to people."""

    DEMAND = "demand"
    BELOW_MINIMUM = "below_minimum"
    PINNED = "pinned"
    STEADY = "steady"
    PAUSED = "paused"
    ACTUATOR_UNKNOWN = "actuator_unknown"
    ACTUATOR_BACKOFF = "actuator_backoff"
    SIGNAL_UNREADABLE = "signal_unreadable"
    SIGNAL_MISSING = "signal_missing"
    SIGNAL_STALE = "signal_stale"
    SIGNAL_NOT_FINITE = "signal_not_finite"
    SIGNAL_ABSURD = "signal_absurd"
    SIGNAL_INCOMPLETE = "signal_incomplete"
    DEBOUNCE = "debounce"
    COOLDOWN = "cooldown"
    HELD = "held"
    INEFFECTIVE = "ineffective"
    IN_PROGRESS = "in_progress"
    WINDOW = "window"
    BURNING = "burning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a recorded series; `at_seconds` since the epoch."""

    at_seconds: float
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """
    What Prometheus knows about a service.

    Args:
        desired: `service:scale_desired:replicas`, oldest first, over the scale-in window.
        running: `service:scale_running:replicas` over the same time.
        demand: how many each signal asks for, unrounded, by its name; the newest.
        complete: the newest count of demand signals that are finite and reported by every replica; None: unknown.
        scraped: the newest number of replicas that Prometheus scrapes; None: unknown.
        burning: whether an error budget is being burnt too fast.
        ineffective: whether the last scale-out has been seen not to help.
        unreadable: why Prometheus could not be asked, a sentence; empty when it could.

    """

    desired: Sequence[Sample] = ()
    running: Sequence[Sample] = ()
    demand: Mapping[str, float] = field(default_factory=dict)
    complete: float | None = None
    scraped: float | None = None
    burning: bool = False
    ineffective: bool = False
    unreadable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """
    What a person has ordered, until it expires.

    Args:
        replicas: as many, whatever the signals say; None: leave everything as it is.
        until_seconds: since the epoch.
        why: the person's words.

    """

    replicas: int | None
    until_seconds: float
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """
    All that a decision depends on.

    Args:
        replicas: what the actuator has; None when it cannot be asked.
        silent: why it cannot, a sentence.
        signals: what Prometheus knows.
        override: what a person has ordered.
        ordered_out_at: when the last step out was ordered, in seconds since the epoch; None: unknown.
        ordered_in_at: the same of the last step in.
        retry_at: the actuator has failed, and is not to be asked for changes before this.

    """

    replicas: Replicas | None
    signals: Signals
    silent: str = ""
    override: Override | None = None
    ordered_out_at: float | None = None
    ordered_in_at: float | None = None
    retry_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """
    What is to be done, and why.

    Args:
        direction: out, in or hold.
        reason: the label.
        sentence: for people.
        target: the number of replicas to order; None when holding.
        desired: the newest number asked for, if there is one.

    """

    direction: Direction
    reason: Reason
    sentence: str
    target: int | None = None
    desired: float | None = None


def decide(state: State, limits: Limits, now: float) -> Decision:
    """
    Decide about one service.

    Args:
        state: what is known.
        limits: its policy.
        now: seconds since the epoch.

    """
    if state.replicas is None:
        return _hold(Reason.ACTUATOR_UNKNOWN, f"Nobody says how many replicas there are. {state.silent}".strip())
    ordered = state.replicas.target
    decision = _wanted(state, ordered, limits, now)
    if decision.target is not None and state.retry_at is not None and now < state.retry_at:
        wait = state.retry_at - now
        return _hold(
            Reason.ACTUATOR_BACKOFF,
            f"The last order failed; the next attempt is in {wait:.0f} s. {decision.sentence}",
            decision.desired,
        )
    return decision


def _wanted(state: State, ordered: int, limits: Limits, now: float) -> Decision:
    override = state.override
    if override is not None and now < override.until_seconds:
        return _overridden(override, ordered, limits, now)
    if ordered < limits.min_replicas:
        return Decision(
            direction=Direction.OUT,
            reason=Reason.BELOW_MINIMUM,
            sentence=f"There are {ordered}, fewer than the minimum of {limits.min_replicas}.",
            target=limits.min_replicas,
        )
    flaw = _flaw(state.signals, limits, now)
    if flaw is not None:
        return flaw
    desired = state.signals.desired[-1].value
    bounded = min(max(int(desired), limits.min_replicas), limits.max_replicas)
    if bounded > ordered:
        return _out(state, ordered, desired, limits, now)
    if bounded < ordered:
        return _in(state, ordered, desired, limits, now)
    if state.replicas is not None and state.replicas.running != ordered:
        return _hold(Reason.IN_PROGRESS, f"{state.replicas.running} run and {ordered} were ordered.", desired)
    return _hold(Reason.STEADY, f"{ordered} are needed, and there are {ordered}.", desired)


def _overridden(override: Override, ordered: int, limits: Limits, now: float) -> Decision:
    left = f"for another {override.until_seconds - now:.0f} s" + (f": {override.why}" if override.why else "")
    if override.replicas is None:
        return _hold(Reason.PAUSED, f"Paused by hand {left}.")
    pinned = min(max(override.replicas, limits.min_replicas), limits.max_replicas)
    if pinned == ordered:
        return _hold(Reason.PINNED, f"Pinned by hand to {pinned} {left}.")
    return Decision(
        direction=Direction.OUT if pinned > ordered else Direction.IN,
        reason=Reason.PINNED,
        sentence=f"Pinned by hand to {pinned} {left}.",
        target=pinned,
    )


def _flaw(signals: Signals, limits: Limits, now: float) -> Decision | None:
    """Why the newest number cannot be believed, None when it can."""
    if signals.unreadable:
        return _hold(Reason.SIGNAL_UNREADABLE, signals.unreadable)
    if not signals.desired:
        return _hold(Reason.SIGNAL_MISSING, "Prometheus has no desired number: see ScaleSignalMissing's runbook.")
    newest = signals.desired[-1]
    age = now - newest.at_seconds
    if abs(age) > _STALE_SAMPLES * limits.sample_seconds:
        when = f"{age:.1f} s old" if age > 0 else f"{-age:.1f} s in the future"
        return _hold(
            Reason.SIGNAL_STALE,
            f"The newest desired number is {when}; it should come every {limits.sample_seconds:g} s.",
        )
    if not math.isfinite(newest.value):
        return _hold(Reason.SIGNAL_NOT_FINITE, f"The desired number is {newest.value}.")
    if newest.value < 0 or newest.value != int(newest.value) or newest.value > _ABSURD_FACTOR * limits.max_replicas:
        return _hold(
            Reason.SIGNAL_ABSURD,
            f"The desired number is {newest.value:g}, and at most {limits.max_replicas} are allowed: "
            "the rules and this policy are not of one piece.",
        )
    return None


def _out(state: State, ordered: int, desired: float, limits: Limits, now: float) -> Decision:
    needed = [
        sample
        for sample in state.signals.desired
        if sample.at_seconds > now - limits.out_after_seconds - _STALE_SAMPLES * limits.sample_seconds
    ]
    # The newest ones without a gap that all ask for more: a burst of one evaluation is no need.
    lasting: list[Sample] = []
    for sample in reversed(needed):
        if not math.isfinite(sample.value) or sample.value <= ordered:
            break
        lasting.append(sample)
        if _lasts(lasting, limits):
            break
    if not _lasts(lasting, limits):
        return _hold(
            Reason.DEBOUNCE,
            f"{desired:g} are needed and there are {ordered}, but not yet for {limits.out_after_seconds:g} s.",
            desired,
        )
    present = _present(state)
    if present is not None and present <= ordered:
        return _hold(
            Reason.HELD,
            f"{desired:g} were needed and are kept until every replica is heard, "
            f"but no more than {present:.3g} are asked for now.",
            desired,
        )
    if state.signals.ineffective:
        return _hold(
            Reason.INEFFECTIVE,
            f"{desired:g} are asked for, but the last replicas did not help: what is slow is behind the service.",
            desired,
        )
    since = _age(now, state.ordered_out_at)
    if since < limits.out_cooldown_seconds:
        return _hold(Reason.COOLDOWN, f"{desired:g} are needed; the last step out was {since:.0f} s ago.", desired)
    step = max(limits.out_step, ordered)
    target = min(*(math.ceil(sample.value) for sample in lasting), limits.max_replicas, ordered + step)
    return Decision(
        direction=Direction.OUT,
        reason=Reason.DEMAND,
        sentence=f"{desired:g} are needed and there are {ordered}{_asked(state.signals)}.",
        target=target,
        desired=desired,
    )


def _present(state: State) -> float | None:
    """
    How many replicas are asked for now, as if those that are not heard had as much to do as the others.

    The desired number does not fall while replicas start, and says nothing new then. None: nobody knows.
    """
    signals, replicas = state.signals, state.replicas
    asked = [count for count in signals.demand.values() if math.isfinite(count)]
    if replicas is None or not asked or not signals.scraped or not math.isfinite(signals.scraped):
        return None
    return max(asked) * max(1.0, replicas.running / signals.scraped)


def _lasts(samples: Sequence[Sample], limits: Limits) -> bool:
    """Whether samples, newest first, are at least two and as long as more has to be needed; clocks tick unevenly."""
    span = samples[0].at_seconds - samples[-1].at_seconds if samples else 0
    return len(samples) > 1 and span > limits.out_after_seconds - limits.sample_seconds / 2


def _in(state: State, ordered: int, desired: float, limits: Limits, now: float) -> Decision:
    assert state.replicas is not None
    signals = state.signals
    if state.replicas.running != ordered:
        return _hold(
            Reason.IN_PROGRESS,
            f"{desired:g} are enough; {state.replicas.running} run and {ordered} were ordered: one step at a time.",
            desired,
        )
    # Nobody else remembers the last change after a restart, and a drained replica is counted until the next scrape.
    if signals.running and signals.running[-1].value != ordered:
        return _hold(
            Reason.IN_PROGRESS,
            f"{desired:g} are enough; there are {ordered}, and Prometheus still counts "
            f"{signals.running[-1].value:g}: when that changed is not known yet.",
            desired,
        )
    if signals.burning:
        return _hold(Reason.BURNING, f"{desired:g} are enough, but an error budget is burning.", desired)
    if signals.complete != limits.signals or signals.scraped != ordered:
        return _hold(
            Reason.SIGNAL_INCOMPLETE,
            f"{desired:g} seem enough, but {_count(signals.complete)} of {limits.signals} signals are complete and "
            f"{_count(signals.scraped)} of {ordered} replicas are scraped.",
            desired,
        )
    since = now - limits.in_after_seconds
    window = [sample.value for sample in signals.desired if sample.at_seconds > since and math.isfinite(sample.value)]
    if len(window) < limits.in_after_samples or max(window) >= ordered:
        return _hold(
            Reason.WINDOW,
            f"{desired:g} are enough, but not yet for {limits.in_after_seconds:g} s without a gap.",
            desired,
        )
    changed = min(
        _age(now, state.ordered_out_at), _age(now, state.ordered_in_at), _age(now, last_change(signals.running))
    )
    if changed < limits.in_cooldown_seconds:
        return _hold(Reason.COOLDOWN, f"{desired:g} are enough; the last change was {changed:.0f} s ago.", desired)
    target = max(math.ceil(max(window)), ordered - limits.in_step, limits.min_replicas)
    return Decision(
        direction=Direction.IN,
        reason=Reason.DEMAND,
        sentence=f"At no moment of the last {limits.in_after_seconds:g} s were more than {max(window):g} needed, "
        f"and there are {ordered}.",
        target=target,
        desired=desired,
    )


def last_change(running: Sequence[Sample]) -> float | None:
    """
    When a number last changed, None if it never did.

    Args:
        running: its samples, oldest first.

    """
    for before, after in zip(reversed(running[:-1]), reversed(running[1:]), strict=True):
        if before.value != after.value:
            return after.at_seconds
    return None


def _asked(signals: Signals) -> str:
    """Which signals ask for how many, the largest first."""
    asking = sorted(signals.demand.items(), key=lambda signal: (-signal[1], signal[0]))
    return ": " + ", ".join(f"{name} asks for {count:.3g}" for name, count in asking) if asking else ""


def last_rise(running: Sequence[Sample]) -> float | None:
    """
    When a number last rose, None if it never did: what a restart has forgotten of the last step out.

    Args:
        running: its samples, oldest first.

    """
    for before, after in zip(reversed(running[:-1]), reversed(running[1:]), strict=True):
        if after.value > before.value:
            return after.at_seconds
    return None


def _age(now: float, moment: float | None) -> float:
    return math.inf if moment is None else now - moment


def _count(value: float | None) -> str:
    return "an unknown number" if value is None else f"{value:g}"


def _hold(reason: Reason, sentence: str, desired: float | None = None) -> Decision:
    return Decision(direction=Direction.HOLD, reason=reason, sentence=sentence, desired=desired)
