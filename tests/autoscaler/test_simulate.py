"""What must hold for every demand and every fault: thousands of made-up runs on a simulated clock."""

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Final

import pytest

from autoscaler.decide import Decision, Direction, Reason
from autoscaler.simulate.faults import Fault, Faults, Period
from autoscaler.simulate.report import Measures
from autoscaler.simulate.run import Run, Setup, with_autoscaler
from autoscaler.simulate.shapes import shape
from autoscaler.simulate.world import Unit
from prometheus.durations import Duration
from prometheus.policy import Scaling, Service
from prometheus.read_policy import read
from tests.prometheus.test_policy import COMMITTED

POLICY = read(COMMITTED)
SHOP = POLICY.services["shop"]
#: A replica of the shop is meant to have three slots of its four busy.
MEANT: Final = 3.0
STEP_SECONDS: Final = 5.0


def scaling_of(service: Service) -> Scaling:
    assert service.scaling is not None
    return service.scaling


def within(service: Service, **changes: object) -> Service:
    """The service with another policy."""
    return replace(service, scaling=replace(scaling_of(service), **changes))  # type: ignore[arg-type] # fields of Scaling


#: The same rules and decisions in a sixth of the time.
HASTY: Final = {
    "scale_in_after": Duration.parse("50s"),
    "cpu_hold": Duration.parse("50s"),
    "scale_out_cooldown": Duration.parse("10s"),
    "scale_in_cooldown": Duration.parse("15s"),
}
WINDOW_SECONDS: Final = 50.0


def made_up(seed: int, minutes: int = 12) -> list[float]:
    """A demand of plateaus, spikes, ramps and noise, for up to a dozen replicas."""
    drawn, values = random.Random(seed), list[float]()
    level = drawn.uniform(0, 12)
    while len(values) < minutes * 60 / STEP_SECONDS:
        length, kind = drawn.randint(1, 40), drawn.random()
        after = drawn.choice((0.0, drawn.uniform(0, 12), drawn.uniform(0, 12), drawn.uniform(0, 40)))
        noise = drawn.choice((0, 0, 0.1, 0.5))
        for step in range(length):
            share = step / length if kind < 0.4 else 1
            values.append(MEANT * (level + (after - level) * share) * drawn.uniform(1 - noise, 1 + noise))
        level = after
    return values[: int(minutes * 60 / STEP_SECONDS)]


def faults_of(seed: int, seconds: float) -> Faults:
    """Up to four things that go wrong, and up to three restarts of the autoscaler."""
    drawn = random.Random(seed)
    periods = []
    for _ in range(drawn.randint(0, 4)):
        begin = drawn.uniform(0, seconds)
        length = drawn.uniform(5, seconds / 2)
        periods.append(Period(fault=drawn.choice(tuple(Fault)), begin_seconds=begin, end_seconds=begin + length))
    return Faults(periods=periods, restarts=[drawn.uniform(0, seconds) for _ in range(drawn.randint(0, 3))])


def hostile(seeds: range) -> Iterator[Run]:
    """Made-up demands for the shop and the worker, with faults."""
    for seed in seeds:
        drawn = random.Random(seed)
        name = drawn.choice(("shop", "shop", "worker"))
        least, more = drawn.randint(1, 3), drawn.choice((0, 3, 8, 30))
        service = within(
            POLICY.services[name],
            **HASTY,
            min_replicas=least,
            max_replicas=least + more,
            scale_in_step=drawn.choice((1, 1, 3)),
            scale_out_step=drawn.choice((1, 4)),
        )
        demand = made_up(seed)
        yield with_autoscaler(
            Setup(
                service=service,
                server=POLICY.server,
                demand=demand,
                step_seconds=STEP_SECONDS,
                unit=drawn.choice(tuple(Unit)),
                seed=seed,
                faults=faults_of(seed, len(demand) * STEP_SECONDS),
                replicas=drawn.choice((None, least + more)),
            )
        )


def steps_in(run: Run) -> list[tuple[float, Decision]]:
    return [(at, decision) for at, decision in run.decisions if decision.direction is Direction.IN]


def about(run: Run) -> str:
    return f"seed {run.setup.seed}"


def test_whatever_goes_wrong_replicas_stay_within_the_policy() -> None:
    """Fifteen hundred demands with faults: bounds, steps and cool-downs hold, also after restarts."""
    reasons = set[Reason]()
    for run in hostile(range(1500)):
        scaling = run.setup.scaling
        reasons |= {decision.reason for _, decision in run.decisions}
        assert Measures.of(run).out_of_bounds == 0, about(run)
        for order in run.orders:
            assert scaling.min_replicas <= order.after <= scaling.max_replicas, about(run)
            assert order.after - order.before <= max(scaling.scale_out_step, order.before), about(run)
            assert order.before - order.after <= scaling.scale_in_step, about(run)
        for before, after in pairwise(run.orders):
            waited = after.at_seconds - before.at_seconds
            if after.after < after.before:
                assert waited >= float(scaling.scale_in_cooldown.seconds), about(run)

    # The runs are worth their time: all of this has happened.
    assert reasons >= {
        Reason.DEMAND,
        Reason.STEADY,
        Reason.ACTUATOR_UNKNOWN,
        Reason.ACTUATOR_BACKOFF,
        Reason.SIGNAL_UNREADABLE,
        Reason.SIGNAL_INCOMPLETE,
        Reason.DEBOUNCE,
        Reason.COOLDOWN,
        Reason.IN_PROGRESS,
        Reason.WINDOW,
        Reason.BURNING,
    }


NO_STEP_IN = (
    Fault.PROMETHEUS_DEAD,
    Fault.DEMAND_LOST,
    Fault.CPU_LOST,
    Fault.SCRAPES_MISSED,
    Fault.BURNING,
    Fault.ACTUATOR_SILENT,
    Fault.ACTUATOR_REFUSES,
)
#: From the beginning of a fault until the rules have seen it: a scrape, and an evaluation.
SEEN_SECONDS = 2 * 5 + STEP_SECONDS


def test_no_replica_is_given_up_while_something_is_wrong() -> None:
    """A lost signal, a missed scrape, a dead Prometheus, a burning budget: more may come, none may go."""
    stepped = 0
    for run in hostile(range(10_000, 10_700)):
        for at, decision in steps_in(run):
            stepped += 1
            for period in run.setup.faults.periods:
                seen = period.begin_seconds + SEEN_SECONDS
                if period.fault in NO_STEP_IN:
                    assert not seen <= at < period.end_seconds, (about(run), at, decision, period)
                if period.fault is Fault.PROMETHEUS_DEAD:
                    # What nobody saw is no proof: of the ten samples of a window at most one may be missing.
                    unseen = min(at, period.end_seconds) - max(at - WINDOW_SECONDS, period.begin_seconds)
                    assert unseen <= 3 * STEP_SECONDS, (about(run), at, decision, period)
    assert stepped > 400


def test_noise_on_a_wave_moves_no_replica_back_and_forth() -> None:
    """Half an hour, up and down, with ten per cent of noise: no order is taken back within five minutes."""
    for seed in range(60):
        drawn = random.Random(seed)
        most = drawn.choice((8, 8, 20, 100))
        highest = most * drawn.uniform(0.3, 1.2)
        demand = shape(
            "wave-noise",
            highest=MEANT * highest,
            length_seconds=1800,
            step_seconds=STEP_SECONDS,
            seed=seed,
        )
        service = within(SHOP, max_replicas=most)
        run = with_autoscaler(
            Setup(
                service=service,
                server=POLICY.server,
                demand=demand,
                step_seconds=STEP_SECONDS,
                seed=seed,
                # Enough for where the wave begins, and no queue: what has piled up asks for more than the wave does.
                replicas=math.ceil(0.11 * highest),
                unit=Unit.IN_FLIGHT,
            )
        )
        measured = Measures.of(run)
        assert measured.scale_outs, about(run)
        assert measured.flaps == 0, (about(run), run.orders)


@pytest.mark.parametrize("unit", Unit)
def test_after_the_last_change_there_are_as_many_as_are_needed(unit: Unit) -> None:
    """From any beginning, through any demand and fault: what is needed rounded up, or what carries it with tolerance."""
    calm = 240
    for seed in range(200):
        drawn = random.Random(seed)
        service = within(SHOP, **HASTY, min_replicas=1, max_replicas=12, scale_in_step=3)
        before = made_up(seed, minutes=5)
        needed = drawn.choice((0.0, drawn.uniform(0, 12), drawn.uniform(0, 12)))
        faults = faults_of(seed, len(before) * STEP_SECONDS / 2)
        run = with_autoscaler(
            Setup(
                service=service,
                server=POLICY.server,
                demand=[*before, *[needed * MEANT] * calm],
                step_seconds=STEP_SECONDS,
                unit=unit,
                seed=seed,
                faults=faults,
                replicas=drawn.randint(1, 12),
            )
        )
        left = run.running[-1]
        assert left == max(1, math.ceil(needed)) or left < needed <= 1.1 * left, (about(run), needed, left)
        assert run.orders == [order for order in run.orders if order.at_seconds < len(run.running) * STEP_SECONDS - 300]
        assert not run.violated[-1], about(run)


#: A step in lasts: the drain, the scrape and the evaluation that see its end, and the look that sees the cool-down's.
STEP_LASTS_SECONDS: Final = 10 + 5 + 5 + 5


@pytest.mark.parametrize("step", [1, 2, 7])
def test_what_is_no_longer_needed_is_given_up_in_time(step: int) -> None:
    """After the window, one step for each cool-down, counted from the end of the step before."""
    for seed in range(20):
        service = within(SHOP, max_replicas=8, scale_in_step=step)
        ends = 60
        run = with_autoscaler(
            Setup(
                service=service,
                server=POLICY.server,
                demand=[*[7.9 * MEANT] * ends, *[0.0] * 840],
                step_seconds=1.0,
                unit=Unit.IN_FLIGHT,
                seed=seed,
                replicas=8,
            )
        )
        scaling = scaling_of(service)
        steps = math.ceil(7 / step)
        window, pause = float(scaling.scale_in_after.seconds), float(scaling.scale_in_cooldown.seconds)
        assert len(run.orders) == steps, about(run)
        assert ends + window * 0.9 <= run.orders[0].at_seconds, about(run)
        assert run.orders[-1].at_seconds <= ends + window + 15 + (steps - 1) * (pause + STEP_LASTS_SECONDS), about(run)
        assert run.running[-1] == 1, about(run)


def test_restarts_of_the_autoscaler_shorten_no_pause() -> None:
    """One that forgets all it knew every half minute keeps to cool-downs and windows all the same."""
    scaling = scaling_of(SHOP)
    for seed in range(60):
        drawn = random.Random(seed)
        demand = made_up(seed, minutes=20)
        restarts = [drawn.uniform(0, 30) + 30 * number for number in range(40)]
        run = with_autoscaler(
            Setup(
                service=SHOP,
                server=POLICY.server,
                demand=demand,
                step_seconds=STEP_SECONDS,
                seed=seed,
                faults=Faults(restarts=restarts),
                replicas=8,
            )
        )
        for before, after in pairwise(run.orders):
            waited = after.at_seconds - before.at_seconds
            fewer = after.after < after.before
            pause = scaling.scale_in_cooldown if fewer else scaling.scale_out_cooldown
            if fewer or before.after > before.before:
                assert waited >= float(pause.seconds), (about(run), before, after)
            if fewer and before.after > before.before:
                assert waited >= float(scaling.scale_in_after.seconds) * 0.9, (about(run), before, after)


def test_ten_thousand_replicas_are_no_special_case() -> None:
    """A service of that size gets what it needs and no more than it may have."""
    service = within(SHOP, min_replicas=100, max_replicas=10_000, scale_in_step=1000)
    demand = [MEANT * 500] * 20 + [MEANT * 9_000] * 160 + [MEANT * 200] * 400
    run = with_autoscaler(
        Setup(
            service=service,
            server=POLICY.server,
            demand=demand,
            step_seconds=STEP_SECONDS,
            unit=Unit.IN_FLIGHT,
            replicas=500,
        )
    )

    measured = Measures.of(run)
    assert measured.out_of_bounds == 0
    assert max(run.serving) == 9_000
    assert run.running[-1] == 200
    assert measured.flaps == 0
