"""One simulated run: a service, a demand, and whoever scales it."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from autoscaler.decide import Decision
from autoscaler.limits import Limits
from autoscaler.simulate.faults import Faults
from autoscaler.simulate.hpa import SYNC_SECONDS, Hpa
from autoscaler.simulate.loop import Loop
from autoscaler.simulate.monitoring import Monitoring
from autoscaler.simulate.replicas import ReplicaSet
from autoscaler.simulate.rules import Rules
from autoscaler.simulate.world import Capacity, Unit, World
from prometheus.durations import Clock
from prometheus.policy import Scaling, Server, Service

#: From an evaluation that makes the alert fire until the autoscaler has its webhook.
_ALERT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """
    What is simulated.

    Args:
        service: with its policy; it scales.
        server: how often Prometheus scrapes and evaluates.
        demand: step by step, in `unit`.
        step_seconds: how long a step is.
        unit: what the demand counts.
        seed: decides the phases of all periodic things, and how long replicas take to start and to leave.
        faults: what goes wrong.
        replicas: how many there are in the beginning; None: the least.

    """

    service: Service
    server: Server
    demand: Sequence[float]
    step_seconds: float = 1.0
    unit: Unit = Unit.WORK
    seed: int = 1
    faults: Faults = field(default_factory=Faults)
    replicas: int | None = None

    @property
    def scaling(self) -> Scaling:
        assert self.service.scaling is not None
        return self.service.scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A change of the number of replicas that was ordered."""

    at_seconds: float
    before: int
    after: int


@dataclass(slots=True, kw_only=True)
class Run:
    """
    What has happened, step by step.

    Args:
        name: of whoever scaled.
        setup: what was simulated.
        desired: how many replicas were asked for; NaN: nobody knew.
        running: how many existed.
        serving: how many of them served.
        busy_share: the part of the serving replicas' slots that was busy.
        delay_seconds: how long a new request had to wait.
        violated: whether the service was overloaded, or answered too late.
        orders: what was ordered.
        decisions: every decision, with its moment; only of the autoscaler of this project.

    """

    name: str
    setup: Setup
    desired: list[float] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    serving: list[int] = field(default_factory=list)
    busy_share: list[float] = field(default_factory=list)
    delay_seconds: list[float] = field(default_factory=list)
    violated: list[bool] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    decisions: list[tuple[float, Decision]] = field(default_factory=list)


class Periodic:
    """Something that happens again and again, from a drawn moment on."""

    def __init__(self, every_seconds: float, drawn: random.Random) -> None:
        self._every_seconds = every_seconds
        self._next_at = drawn.uniform(0, every_seconds)

    def is_due(self, now: float) -> bool:
        """Whether it happens in this step; it happens at most once in one."""
        if now < self._next_at:
            return False
        self._next_at += self._every_seconds
        return True


class _Simulation:
    """What both ways to scale have in common."""

    def __init__(self, setup: Setup, name: str) -> None:
        scaling = setup.scaling
        drawn = random.Random(setup.seed)
        every = float(setup.server.scrape_interval.seconds)
        clock = Clock()
        self.limits = Limits.of(scaling, setup.server, clock)
        rules = Rules(setup.service, setup.server, clock)
        self.replicas = ReplicaSet(
            scaling.min_replicas if setup.replicas is None else setup.replicas,
            random.Random(setup.seed),
            setup.faults,
            rules.hold_seconds,
        )
        self.world = World(self.replicas, Capacity.of(setup.service), setup.unit)
        self.monitoring = Monitoring(rules, self.limits, scaling, self.replicas, self.world, setup.faults)
        self.scrapes = Periodic(every, drawn)
        self.evaluations = Periodic(every, drawn)
        self.ticks = Periodic(every, drawn)
        self.syncs = Periodic(SYNC_SECONDS, drawn)
        self.run = Run(name=name, setup=setup)

    def play(self, scale: Callable[[float], float]) -> Run:
        """
        Replay the demand.

        Args:
            scale: is called at each step, and says what is desired.

        """
        setup, run, world = self.run.setup, self.run, self.world
        seconds = setup.step_seconds
        for step, demand in enumerate(setup.demand):
            now = step * seconds
            self.replicas.advance(now)
            world.step(demand, now, seconds)
            desired = scale(now)
            run.desired.append(desired)
            run.running.append(self.replicas.running)
            run.serving.append(world.serving)
            run.busy_share.append(world.busy / world.slots if world.serving else 0.0)
            run.delay_seconds.append(world.delay_seconds)
            run.violated.append(world.violated)
        return run

    def ordered(self, before: int, now: float) -> None:
        after = self.replicas.replicas().target
        if after != before:
            self.run.orders.append(Order(at_seconds=now, before=before, after=after))


def with_autoscaler(setup: Setup) -> Run:
    """Replay the demand with this project's rules and decisions."""
    simulation = _Simulation(setup, "obslib")
    monitoring, replicas, run = simulation.monitoring, simulation.replicas, simulation.run
    loop = Loop(simulation.limits, monitoring, replicas, setup.faults)
    alert = _Alert(simulation.limits.out_after_seconds)

    def scale(now: float) -> float:
        if simulation.scrapes.is_due(now):
            monitoring.scrape(now, loop.known)
        if simulation.evaluations.is_due(now):
            monitoring.evaluate(now)
            recorded = None if monitoring.dead(now) else monitoring.recorded
            alert.evaluated(now, None if recorded is None else (recorded.desired, recorded.running))
        if simulation.ticks.is_due(now) or alert.arrives(now):
            before = replicas.replicas().target
            run.decisions.append((now, loop.look(now)))
            simulation.ordered(before, now)
        last = monitoring.recorded
        return math.nan if last is None or last.desired is None or monitoring.dead(now) else last.desired

    return simulation.play(scale)


def with_hpa(setup: Setup) -> Run:
    """Replay the demand with an HPA that reads the same demand."""
    simulation = _Simulation(setup, "HPA")
    monitoring, replicas = simulation.monitoring, simulation.replicas
    hpa = Hpa(min_replicas=setup.scaling.min_replicas, max_replicas=setup.scaling.max_replicas)
    desired = float(replicas.replicas().target)

    def scale(now: float) -> float:
        nonlocal desired
        if simulation.scrapes.is_due(now):
            monitoring.scrape(now, replicas.replicas())
        if simulation.syncs.is_due(now):
            before = replicas.replicas().target
            count = hpa.sync(monitoring.metrics(now), before, now)
            replicas.order(count)
            simulation.ordered(before, now)
            desired = float(count)
        return desired

    return simulation.play(scale)


class _Alert:
    """`ServiceScaleOutNeeded`: fires when more has been needed for long enough, and wakes once."""

    def __init__(self, lasting_seconds: float) -> None:
        self._lasting_seconds = lasting_seconds
        self._since: float | None = None
        self._arrives_at = math.inf
        self._fires = False

    def evaluated(self, now: float, numbers: tuple[float | None, float | None] | None) -> None:
        desired, running = numbers or (None, None)
        if desired is None or running is None or desired <= running:
            self._since, self._fires = None, False
            return
        self._since = now if self._since is None else self._since
        if not self._fires and now - self._since >= self._lasting_seconds:
            self._fires = True
            self._arrives_at = now + _ALERT_SECONDS

    def arrives(self, now: float) -> bool:
        if now < self._arrives_at:
            return False
        self._arrives_at = math.inf
        return True
