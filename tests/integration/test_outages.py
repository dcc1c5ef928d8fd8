"""What is taken away from the running shop, and what its customers notice of it."""

import itertools
import os
import signal
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from demo_service.capacity import DEFAULT
from obslib import names
from stack.processes import WORKER
from tests.integration.running import RunningStack, eventually, frozen

ORDERS = 30
REPLICAS = ("shop-1", "shop-2")
ON_REDIS = ("cache", "queue", "rate_limit")


class Customer:
    """One API key, and the orders placed with it."""

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack
        self._headers = {"X-API-Key": uuid.uuid4().hex}
        self.placed: list[str] = []
        self._seen_fulfilled: set[str] = set()

    def order(self, url: str) -> httpx.Response:
        answer = self._stack.http.post(
            f"{url}/v1/orders",
            json={"items": [{"product_id": 1, "quantity": 1}]},
            headers={**self._headers, "Idempotency-Key": uuid.uuid4().hex},
        )
        if answer.status_code == 201:
            self.placed.append(answer.json()["id"])
        return answer

    def orders(self, number: int) -> None:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: self.order(self._stack.url), range(number)))
        assert {answer.status_code for answer in answers} == {201}

    def fulfilled(self) -> int:
        """How many of the orders the worker says it has fulfilled; each at most once."""
        lines = self._stack.log_lines(WORKER, **{names.LOG_EVENT: "order_fulfilled"})
        times = Counter(line["order_id"] for line in lines)
        assert max((times[order] for order in self.placed), default=0) <= 1
        return sum(times[order] for order in self.placed)

    def all_fulfilled(self) -> bool:
        """Whether the shop says so of every order; slow, since asking counts against the rate limit."""
        for order in self.placed:
            if order not in self._seen_fulfilled:
                answer = self._stack.http.get(f"{self._stack.url}/v1/orders/{order}", headers=self._headers)
                assert answer.status_code == 200
                if answer.json()["status"] != "fulfilled":
                    time.sleep(1)
                    return False
                self._seen_fulfilled.add(order)
        return True


def readiness(stack: RunningStack, replica: str) -> tuple[int, dict[str, str]]:
    answer = stack.http.get(f"{stack.process_url(replica)}/readyz")
    return answer.status_code, answer.json()["checks"]


def well(stack: RunningStack) -> None:
    eventually(lambda: stack.status().healthy, "everything is well again")


def test_a_worker_killed_amid_its_jobs_costs_no_order(stack: RunningStack) -> None:
    """`kill -9`: the supervisor starts it again, and the job it had in hand is done when its lease has ended."""
    customer = Customer(stack)
    pid = stack.pid("worker-1")
    customer.orders(ORDERS)
    eventually(lambda: customer.fulfilled() >= 1, "the worker is at work")
    os.kill(pid, signal.SIGKILL)
    done = customer.fulfilled()
    assert 0 < done < ORDERS

    eventually(customer.all_fulfilled, "every order is fulfilled", 120)
    assert stack.pid_or_none("worker-1") != pid
    well(stack)


def test_jobs_that_redis_forgot_are_published_again(stack: RunningStack) -> None:
    """`kill -9` of Redis with the queue in its memory: the outbox has the jobs still, and the worker finds its way back."""
    customer = Customer(stack)
    pid = stack.pid("redis")
    with frozen(stack.pid("worker-1")):
        customer.orders(5)
        eventually(lambda: published(stack, customer) == len(customer.placed), "all are published")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: stack.pid_or_none("redis") not in {None, pid}, "Redis was started again")

    eventually(customer.all_fulfilled, "every order is fulfilled", 120)
    well(stack)


def published(stack: RunningStack, customer: Customer) -> int:
    lines = stack.log_lines("shop", **{names.LOG_EVENT: "job_published"})
    return len({line["order_id"] for line in lines} & set(customer.placed))


def test_without_redis_the_shop_is_ready_and_takes_orders(stack: RunningStack) -> None:
    """A Redis that says nothing: cache, queue and limit are named degraded, nothing is refused, all is made up for."""
    customer = Customer(stack)
    urls = {replica: stack.process_url(replica) for replica in REPLICAS}
    with frozen(stack.pid("redis")):
        for replica, url in urls.items():
            started = time.monotonic()
            assert customer.order(url).status_code == 201
            # Each store is waited for once, and then left alone for a while.
            assert time.monotonic() - started < 5
            eventually(
                lambda replica=replica: {readiness(stack, replica)[1][name] for name in ON_REDIS} == {"degraded"},  # type: ignore[misc] # a default binds the loop's variable
                f"{replica} names what is degraded",
            )
            assert readiness(stack, replica)[0] == 200
        assert stack.http.get(f"{stack.url}/v1/products", headers={"X-API-Key": "redis"}).status_code == 200
        assert not customer.all_fulfilled()

    def recovered() -> bool:
        # What nobody uses is not asked either: requests are what finds out.
        for url in urls.values():
            assert customer.order(url).status_code == 201
        return all(set(readiness(stack, replica)[1].values()) == {"ok"} for replica in REPLICAS)

    eventually(recovered, "both replicas have everything again")
    eventually(customer.all_fulfilled, "every order is fulfilled", 120)
    well(stack)


def test_replicas_share_one_rate_limit(stack: RunningStack) -> None:
    """A key's requests count wherever they go: both replicas refuse what is over, and say when to come back."""
    urls = [stack.process_url(replica) for replica in REPLICAS]
    headers = {"X-API-Key": uuid.uuid4().hex}

    def ask(url: str) -> httpx.Response:
        # Counted like any other, and nothing is held for it.
        return stack.http.get(f"{url}/v1/nothing", headers=headers)

    with ThreadPoolExecutor(8) as threads:
        turns = itertools.islice(itertools.cycle(urls), DEFAULT.requests_per_key + 40)
        statuses = Counter(answer.status_code for answer in threads.map(ask, turns))

    # One or two more where the sliding window's two halves meet in the middle of the test.
    assert statuses[404] == pytest.approx(DEFAULT.requests_per_key, abs=2)
    for url in urls:
        answer = ask(url)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 2 * DEFAULT.rate_window_seconds
