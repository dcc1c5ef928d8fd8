"""
The closed loop: load becomes an alert, the alert wakes the autoscaler, replicas come, and they go when they are not needed.

With the real Prometheus, Alertmanager and HAProxy, on the twin of the rules in which five minutes are thirty seconds;
replicas, load and the two cores are as slow as ever. What would take real minutes is told by the simulator.
"""

import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest

from prometheus import foreign
from prometheus.durations import Clock
from prometheus.files import everything
from prometheus.read_policy import parse
from stack.components.catalogue import Component
from stack.processes import SHOP, WORKER
from stack.state import ROOT
from tests.integration.running import RunningStack, eventually, frozen, running
from tests.integration.traffic import Traffic, down_since, slots

# A replica is meant to have three requests in flight: so many clients, each with one, ask for three replicas.
CLIENTS = 8
TIME_SCALE = "1/10"
PATIENCE_SECONDS = 120


class Loop:
    """A stack that scales itself, and what a test asks about it."""

    def __init__(self, stack: RunningStack) -> None:
        self.stack = stack
        self.url = stack.process_url("autoscaler")

    def replicas(self, service: str = SHOP) -> dict[str, Any]:
        found: dict[str, Any] = self.stack.ask("replicas")["services"][service]
        return found

    def decisions(self, service: str = SHOP) -> list[dict[str, Any]]:
        """All of them, oldest first."""
        answer = self.stack.http.get(f"{self.url}/v1/decisions", params={"service": service, "limit": 1000})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found[::-1]

    def sees_clearly(self) -> bool:
        """Whether it has decided, and not because it does not know."""
        try:
            return self.decisions()[-1]["cause"] in {"steady", "window", "in_progress", "cooldown"}
        except (httpx.TransportError, IndexError):
            return False  # it is just being started

    def steps(self, service: str = SHOP, *, since: float) -> list[dict[str, Any]]:
        """The decisions that changed something, from a moment on."""
        return [
            decision
            for decision in self.decisions(service)
            if decision["direction"] != "hold" and datetime.fromisoformat(decision["time"]).timestamp() >= since
        ]

    def until(self, count: int, service: str = SHOP) -> None:
        """Wait for a number of replicas that nothing is being done about."""
        self._wait(service, f"{count} replicas of {service}", lambda running, target: running == target == count)

    def until_at_least(self, count: int, service: str = SHOP) -> None:
        """Wait until so many run: on two busy cores the CPU may ask for more than what is in flight does."""
        self._wait(service, f"at least {count} replicas of {service}", lambda running, _: running >= count)

    def _wait(self, service: str, what: str, enough: Callable[[int, int], bool]) -> None:
        def reached() -> bool:
            found = self.replicas(service)
            return enough(found["running"], found["target"])

        try:
            eventually(reached, what, PATIENCE_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.decisions(service)[-3:]}") from None

    def balancer_errors(self) -> dict[str, float]:
        """What HAProxy had to answer itself or to try twice, since it was started."""
        found = self.stack.query('sum(haproxy_frontend_http_responses_total{code="5xx", proxy="http"}) or vector(0)')
        redispatched = sum(slot.redispatched for slot in slots(self.stack).values())
        return {"5xx": float(found[0]["value"][1]), "redispatched": redispatched}


@pytest.fixture(scope="module")
def loop(components: Mapping[str, Component]) -> Iterator[Loop]:
    """Two replicas of the shop, one worker, and nobody but the autoscaler who changes that."""
    with (
        tempfile.TemporaryDirectory(prefix="obslib-loop-") as path,
        running(Path(path), components, "--time-scale", TIME_SCALE, autoscaler=True) as stack,
    ):
        loop = Loop(stack)
        eventually(
            lambda: loop.decisions() and loop.decisions()[-1]["cause"] in {"steady", "window"}, "it sees clearly"
        )
        yield loop


@dataclass(frozen=True, slots=True)
class Spike:
    """What load did that came and went."""

    began: float
    steps: list[dict[str, Any]]
    answers: Counter[str]
    balancer_errors: dict[str, float]
    down: list[tuple[str, float]]


@pytest.fixture(scope="module")
def spike(loop: Loop) -> Spike:
    """From one replica to at least three, each of which served, and back to one."""
    loop.until(1)  # nobody needs the second one
    before, began = loop.balancer_errors(), time.time()
    with Traffic(loop.stack.url, CLIENTS) as traffic:
        loop.until_at_least(3)
        served = {slot: status.requests for slot, status in slots(loop.stack).items()}
        eventually(
            lambda: all(slots(loop.stack)[slot].requests > served[slot] + 50 for slot in (1, 2, 3)), "each has requests"
        )
    loop.until(1)
    return Spike(
        began=began,
        steps=loop.steps(since=began),
        answers=traffic.answers,
        balancer_errors={name: count - before[name] for name, count in loop.balancer_errors().items()},
        down=down_since(loop.stack, began),
    )


def test_no_request_notices_that_replicas_come_and_go(spike: Spike) -> None:
    """Every answer is a 200, nothing was tried twice, and no scrape of the shop failed."""
    assert set(spike.answers) == {"200"}, spike.answers
    assert spike.answers["200"] > 300
    assert spike.balancer_errors == {"5xx": 0, "redispatched": 0}
    assert spike.down == []


def test_load_becomes_capacity_and_idle_capacity_goes(spike: Spike) -> None:
    """Out for a reason that it says, then in by one at a time, and never out again in between."""
    out = [step for step in spike.steps if step["direction"] == "out"]
    back = [step for step in spike.steps if step["direction"] == "in"]

    assert spike.steps == [*out, *back], "a flap"
    assert "in_flight asks for" in out[0]["reason"]
    assert [step["target"] for step in back] == [*range(out[-1]["target"] - 1, 0, -1)]


def test_the_alerts_came_through_alertmanager(loop: Loop, spike: Spike) -> None:
    """Both of those that wake, though the tick may have been faster."""
    for alert in ("ServiceScaleOutNeeded", "ServiceScaleInPossible"):
        assert loop.stack.query(f'max_over_time(ALERTS{{alertname="{alert}", alertstate="firing"}}[15m])'), alert
    (count,) = loop.stack.query(f'max_over_time({foreign.AUTOSCALER_WAKES}{{service="{SHOP}", path="alert"}}[15m])')
    assert float(count["value"][1]) > 0
    refused = loop.stack.query(f"sum({foreign.AUTOSCALER_REJECTED})")
    assert float(refused[0]["value"][1]) == 0


def test_a_decision_can_be_followed_from_the_list_to_its_trace(loop: Loop, spike: Spike) -> None:
    """The trace shows what it asked, and its line is in the log."""
    step = spike.steps[-1]

    spans = loop.stack.complete_trace(step["trace_id"], {"autoscaler"})

    assert "decide shop" in {span.name for span in spans}
    (line,) = loop.stack.log_lines("autoscaler", trace_id=step["trace_id"], event="decided")
    assert line["reason"] == step["reason"]


def test_the_worker_scales_on_its_backlog(loop: Loop) -> None:
    """While the only worker stands still, orders pile up; a second one works them off, and goes again."""
    loop.until(1, WORKER)
    began = time.time()
    with Traffic(loop.stack.url, 1), frozen(loop.stack.pid("worker-1")):
        placed = 0
        while placed < 150:
            assert loop.stack.order().is_success
            placed += 1
        loop.until(2, WORKER)

    loop.until(1, WORKER)
    out, back = loop.steps(WORKER, since=began)
    assert "backlog asks for" in out["reason"]
    assert (out["direction"], back["direction"]) == ("out", "in")


@contextmanager
def cpu_target(stack: RunningStack, share: str) -> Iterator[None]:
    """
    Other rules for a while: with another CPU target for everything.

    What a replica can have of two cores depends on who else uses them; a lower target is above it on a busy machine, too.
    """
    text = (ROOT / "prometheus" / "policy.yml").read_text()
    assert "cpu: 70%" in text

    def load(policy: str) -> None:
        for path, rules in everything(parse(policy), Clock(Fraction(TIME_SCALE))).items():
            if path == "rules/scaling.yml":
                (stack.state.config / path).write_text(rules)
        os.kill(stack.pid("prometheus"), signal.SIGHUP)

    load(text.replace("cpu: 70%", f"cpu: {share}"))
    try:
        yield
    finally:
        load(text)


def test_cpu_above_its_target_for_the_whole_hold_time_adds_one_replica(loop: Loop) -> None:
    """The classic rule: nearly nothing is in flight, and the decision says that it is the CPU that asks."""
    loop.until(1)
    faults = f"{loop.stack.process_url('shop-1')}/faults"
    person = {"Authorization": f"Bearer {loop.stack.state.faults_token.read_text().strip()}"}
    with cpu_target(loop.stack, "20%"):
        began = time.time()
        answer = loop.stack.http.put(faults, json={"duration_seconds": 300, "cpu_cores": 1}, headers=person)
        assert answer.is_success, answer.text
        loop.until(2)
        loop.stack.http.delete(faults, headers=person).raise_for_status()

    step = loop.steps(since=began)[0]
    assert (step["direction"], step["target"]) == ("out", 2)
    assert "cpu asks for 2, in_flight asks for 0" in step["reason"]


@pytest.mark.parametrize("victim", ["prometheus", "alertmanager", "autoscaler"])
def test_whoever_of_them_is_gone_no_replica_goes_with_it(loop: Loop, victim: str) -> None:
    """Killed under load and started again by the supervisor: never fewer replicas, and the loop goes on by itself."""
    with Traffic(loop.stack.url, CLIENTS) as traffic:
        loop.until_at_least(3)
        before, killed = loop.stack.pid(victim), time.time()
        os.kill(before, signal.SIGKILL)

        def is_back() -> bool:
            assert loop.replicas()["running"] >= 3
            return loop.stack.pid_or_none(victim) not in {before, None}

        eventually(is_back, f"{victim} runs again", PATIENCE_SECONDS)
        eventually(loop.sees_clearly, "it sees clearly", PATIENCE_SECONDS)
        assert loop.replicas()["running"] >= 3
        assert [step for step in loop.steps(since=killed) if step["direction"] == "in"] == []

    assert set(traffic.answers) == {"200"}, traffic.answers
