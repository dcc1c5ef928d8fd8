"""Replicas come and go under traffic, and no request notices."""

import asyncio
import itertools
import json
import math
import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import httpx
import pytest

from obslib import names
from stack.errors import StackError
from stack.haproxy import HAProxy, SlotStatus
from stack.processes import SHOP, WORKER
from tests.integration.running import RunningStack, eventually, frozen

CLIENTS = 6
REQUESTS_A_KEY = 100


class Traffic:
    """Clients that send one request after another until told to stop, and remember every answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = uuid.uuid4().hex
        self._stop = threading.Event()
        self.answers: Counter[str] = Counter()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            await asyncio.gather(*(self._client(http, number) for number in range(CLIENTS)))

    async def _client(self, http: httpx.AsyncClient, number: int) -> None:
        for count in itertools.count():
            if self._stop.is_set():
                return
            # A key may send so many requests a minute; the limit is not what is tested here.
            headers = {"X-API-Key": f"{self._name}-{number}-{count // REQUESTS_A_KEY}"}
            try:
                answer = await http.get(f"{self._url}/v1/products/{count % 50 + 1}", headers=headers)
                self.answers[str(answer.status_code)] += 1
            except httpx.HTTPError as error:
                self.answers[repr(error)] += 1


@contextmanager
def two_replicas_afterwards(stack: RunningStack) -> Iterator[None]:
    try:
        yield
    finally:
        stack.scale(SHOP, 2)


def slots(stack: RunningStack) -> dict[int, SlotStatus]:
    return asyncio.run(HAProxy(stack.state.haproxy_socket).slots())


def serving(stack: RunningStack) -> set[int]:
    return {slot for slot, status in slots(stack).items() if status.status.startswith("UP")}


def scraped(stack: RunningStack) -> set[str]:
    up = stack.query(f'up{{{names.LABEL_SERVICE}="{SHOP}"}} == 1')
    return {entry["metric"][names.LABEL_INSTANCE] for entry in up}


def down_since(stack: RunningStack, moment: float) -> list[tuple[str, float]]:
    """The scrapes of the shop that failed: which replica, and how many seconds after the moment."""
    seconds = math.ceil(time.time() - moment)
    failed = stack.query(f'(up{{{names.LABEL_SERVICE}="{SHOP}"}} == 0)[{seconds}s:1s]')
    return [(entry["metric"][names.LABEL_INSTANCE], entry["values"][0][0] - moment) for entry in failed]


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
