"""The simulated Prometheus: scrapes the replicas, evaluates the rules, and answers the autoscaler."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from autoscaler.actuators import Replicas
from autoscaler.decide import Sample, Signals
from autoscaler.limits import Limits
from autoscaler.simulate.faults import Fault, Faults
from autoscaler.simulate.replicas import ReplicaSet
from autoscaler.simulate.rules import Past, Recorded, Reported, Rules, Scraped
from autoscaler.simulate.world import World
from prometheus.policy import Scaling

#: Older than so many evaluations, a count says nothing about now: as autoscaler/prometheus_api.py has it.
_STALE_SAMPLES: Final = 3


class Monitoring:
    """
    What Prometheus knows of a service. All its replicas are scraped at the same moments.

    Args:
        rules: what to evaluate.
        limits: how far back the autoscaler asks.
        scaling: which signals there are.
        replicas: who is scraped.
        world: what they report.
        faults: what goes wrong.

    """

    def __init__(
        self, rules: Rules, limits: Limits, scaling: Scaling, replicas: ReplicaSet, world: World, faults: Faults
    ) -> None:
        self._rules = rules
        self._limits = limits
        self._scaling = scaling
        self._replicas = replicas
        self._world = world
        self._faults = faults
        self._past = Past()
        self._scraped: Scraped | None = None
        self._desired: deque[Sample] = deque()
        self._running: deque[Sample] = deque()
        self.recorded: Recorded | None = None
        self._window_seconds = limits.window_seconds

    def dead(self, now: float) -> bool:
        """Whether nobody answers."""
        return self._faults.at(Fault.PROMETHEUS_DEAD, now)

    def scrape(self, now: float, known: Replicas | None) -> None:
        """
        Read what the replicas and the autoscaler say.

        Args:
            now: when.
            known: what the autoscaler says of the replicas; None: it knows nothing.

        """
        if self.dead(now):
            return
        ready = self._replicas.ready(now)
        targets = sum(cohort.count for cohort in ready)
        heard = targets - 1 if targets and self._faults.at(Fault.SCRAPES_MISSED, now) else targets
        for cohort in ready:
            cohort.cpu.scraped(now, cohort.cpu_seconds)
        cpu = []
        left = heard
        for cohort in ready:
            rate = cohort.cpu.rate(now)
            told = min(left, cohort.count)
            left -= told
            if rate is not None and told:
                cpu.append(Reported(value=rate, replicas=told))
        cpu_lost = self._faults.at(Fault.CPU_LOST, now)
        demand_lost = self._faults.at(Fault.DEMAND_LOST, now) or not heard
        in_flight = (self._world.busy + self._world.waiting) / targets if targets else 0.0
        self._scraped = Scraped(
            reported=None if known is None else known.running,
            discovered=targets,
            up=heard,
            in_flight=() if demand_lost else (Reported(value=in_flight, replicas=heard),),
            queue=(0.0,),
            cpu=() if cpu_lost else cpu,
            cpu_usable=None if cpu_lost or not heard else heard,
            backlog=() if demand_lost else (Reported(value=self._world.waiting),),
        )

    def evaluate(self, now: float) -> None:
        """Evaluate the rules with what was scraped last."""
        last = self._scraped
        if self.dead(now) or last is None:
            return
        self.recorded = self._rules.record(last, self._past, now)
        if self.recorded.desired is not None:
            self._desired.append(Sample(at_seconds=now, value=self.recorded.desired))
        if self.recorded.running is not None:
            self._running.append(Sample(at_seconds=now, value=self.recorded.running))
        for kept in (self._desired, self._running):
            while kept and kept[0].at_seconds <= now - self._window_seconds:
                kept.popleft()

    def signals(self, now: float) -> Signals:
        """What the autoscaler is told."""
        if self.dead(now):
            return Signals(unreadable="Prometheus gives no answer (ConnectError).")
        begin = now - self._window_seconds
        last = self.recorded
        fresh = last is not None and last.at_seconds >= now - _STALE_SAMPLES * self._limits.sample_seconds
        return Signals(
            desired=[sample for sample in self._desired if sample.at_seconds > begin],
            running=[sample for sample in self._running if sample.at_seconds > begin],
            demand=dict(last.demand) if last is not None and fresh else {},
            complete=last.complete if last is not None and fresh else None,
            scraped=last.up if last is not None and fresh else None,
            burning=self._faults.at(Fault.BURNING, now),
        )

    def metrics(self, now: float) -> list[float | None]:
        """What each signal asks for, in replicas and unrounded, as an HPA would read it; None: it fails."""
        last, scaling = self._scraped, self._scaling
        if last is None or self.dead(now):
            return [None] * len(scaling.signals())
        found: list[float | None] = []
        if scaling.in_flight_per_replica is not None:
            found.append(_total(last.in_flight, float(scaling.in_flight_per_replica)))
        if scaling.cpu is not None:
            found.append(_total(last.cpu, float(scaling.cpu)))
        if scaling.backlog is not None:
            found.append(_total(last.backlog, float(scaling.backlog.jobs_per_replica)))
        return found


def _total(parts: Sequence[Reported], target: float) -> float | None:
    return sum(part.value * part.replicas for part in parts) / target if parts else None
