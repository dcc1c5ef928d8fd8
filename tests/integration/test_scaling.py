"""Replicas come and go under traffic, and no request notices."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from obslib import names
from stack.errors import StackError
from stack.processes import SHOP, WORKER
from tests.integration.running import RunningStack, eventually, frozen
from tests.integration.traffic import Traffic, down_since, scraped, serving, slots


@contextmanager
def two_replicas_afterwards(stack: RunningStack) -> Iterator[None]:
    try:
        yield
    finally:
        stack.scale(SHOP, 2)


def test_scaling_out_and_in_loses_no_request(stack: RunningStack) -> None:
    """Two replicas, four, one, under constant traffic: every answer is a 200, and none had to be tried twice."""
    redispatched = {slot: status.redispatched for slot, status in slots(stack).items()}
    with two_replicas_afterwards(stack), Traffic(stack.url) as traffic:
        time.sleep(1)
        stack.scale(SHOP, 4)
        assert serving(stack) == {1, 2, 3, 4}
        eventually(lambda: scraped(stack) == {"shop-1", "shop-2", "shop-3", "shop-4"}, "four scraped replicas")
        before = {slot: status.requests for slot, status in slots(stack).items()}
        eventually(
            lambda: all(slots(stack)[slot].requests > before[slot] for slot in (1, 2, 3, 4)), "requests in every slot"
        )
        asked_to_leave = time.time()
        stack.scale(SHOP, 1)
        assert serving(stack) == {1}
        # Prometheus marks a forgotten target's series stale two scrapes later.
        eventually(lambda: scraped(stack) == {"shop-1"}, "one scraped replica")

    assert set(traffic.answers) == {"200"}, traffic.answers
    assert traffic.answers["200"] > 100
    assert {slot: status.redispatched for slot, status in slots(stack).items()} == redispatched
    # A replica that was asked to leave is forgotten before it stops: nothing ever saw it down.
    assert down_since(stack, asked_to_leave) == []


def drained(stack: RunningStack) -> bool:
    return slots(stack)[3].status.startswith("DRAIN")


def forgotten(stack: RunningStack) -> bool:
    groups = json.loads(stack.state.services_targets.read_text())
    return "shop-3" not in {group["labels"]["replica"] for group in groups}


@pytest.mark.parametrize("moment", [drained, forgotten])
def test_a_scale_in_that_is_interrupted_by_a_scale_out_loses_no_request(
    stack: RunningStack, moment: Callable[[RunningStack], bool]
) -> None:
    """Those who were to leave serve again at once, as the processes they were, and Prometheus never sees one down."""
    with two_replicas_afterwards(stack):
        stack.scale(SHOP, 3)
        eventually(lambda: scraped(stack) == {"shop-1", "shop-2", "shop-3"}, "three scraped replicas")
        pids = {slot: stack.pid(f"shop-{slot}") for slot in (1, 2, 3)}
        redispatched = {slot: status.redispatched for slot, status in slots(stack).items()}
        asked_to_leave = time.time()
        with Traffic(stack.url) as traffic:
            stack.begin_to_scale(SHOP, 1)
            eventually(lambda: moment(stack), "the third replica is leaving")
            assert stack.replicas(SHOP) == {"running": 3, "target": 1, "error": ""}
            stack.scale(SHOP, 4)
            assert serving(stack) == {1, 2, 3, 4}
            before = {slot: status.requests for slot, status in slots(stack).items()}
            eventually(lambda: all(slots(stack)[slot].requests > before[slot] for slot in (2, 3)), "they serve again")

        assert {slot: stack.pid(f"shop-{slot}") for slot in (1, 2, 3)} == pids
        assert set(traffic.answers) == {"200"}, traffic.answers
        assert {slot: status.redispatched for slot, status in slots(stack).items()} == redispatched
        names_of_four = {f"shop-{slot}" for slot in (1, 2, 3, 4)}
        eventually(lambda: scraped(stack) == names_of_four, "four scraped replicas")
        assert down_since(stack, asked_to_leave) == []


def test_services_do_not_wait_for_each_other(stack: RunningStack) -> None:
    """A worker's leave hangs on a Prometheus that says nothing; meanwhile the shop gets a replica, and all is told at once."""
    with two_replicas_afterwards(stack):
        stack.scale(WORKER, 2)
        with frozen(stack.pid("prometheus")):
            stack.begin_to_scale(WORKER, 1)
            stack.scale(SHOP, 3)
            assert serving(stack) == {1, 2, 3}
            assert stack.replicas(WORKER) == {"running": 2, "target": 1, "error": ""}
            stack.begin_to_scale(WORKER, 2)
        eventually(
            lambda: stack.replicas(WORKER) == {"running": 2, "target": 2, "error": ""}, "the second worker stays"
        )
        stack.scale(WORKER, 1)


def test_the_worker_scales_without_haproxy(stack: RunningStack) -> None:
    """A second worker is started and scraped, and leaves again."""
    stack.scale("worker", 2)
    try:
        query = f'up{{{names.LABEL_SERVICE}="worker"}} == 1'
        eventually(lambda: len(stack.query(query)) == 2, "two scraped workers")
    finally:
        stack.scale("worker", 1)
    eventually(lambda: len(stack.query(query)) == 1, "one scraped worker")


@pytest.mark.parametrize(
    ("service", "replicas", "sentence"),
    [
        ("shop", 0, "1 to 8 replicas"),
        ("shop", 9, "1 to 8 replicas"),
        ("shop", -1, "1 to 8 replicas"),
        ("redis", 2, "cannot be scaled"),
        ("shop", "3", "scale needs"),
        ("shop", True, "scale needs"),
    ],
)
def test_an_impossible_scale_is_refused(stack: RunningStack, service: str, replicas: object, sentence: str) -> None:
    """The answer is a sentence, and nothing changes."""
    with pytest.raises(StackError, match=sentence):
        stack.ask("scale", service=service, replicas=replicas)

    assert stack.status().replicas == {"shop": 2, "worker": 1}


def test_haproxys_slots_are_filled_again_after_its_death(stack: RunningStack) -> None:
    """HAProxy starts with empty slots; the supervisor puts the replicas back."""
    pid = stack.pid("haproxy")
    os.kill(pid, signal.SIGKILL)

    def served() -> bool:
        try:
            return stack.http.get(f"{stack.url}/v1/products", headers={"X-API-Key": "again"}).status_code == 200
        except httpx.HTTPError:
            return False

    eventually(served, "requests are served again")
    eventually(lambda: serving(stack) == {1, 2}, "both replicas in their slots")
    assert stack.pid("haproxy") != pid
