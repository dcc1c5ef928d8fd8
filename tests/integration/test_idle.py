"""What a stack does while nobody asks it anything: scrapes, health checks and polling, and no trace of them."""

import time
import uuid

from obslib import names
from stack.processes import PAYMENTS, SHOP, WORKER
from stack.traces import Span
from tests.integration.running import RunningStack, eventually

SERVER = 2
SCRAPES = 3
PROCESSES = ("shop-1", "shop-2", "payments", "worker-1")
# What Jaeger keeps.
ALL = 10_000


def every_trace(stack: RunningStack) -> list[list[Span]]:
    return [trace for service in (SHOP, PAYMENTS, WORKER) for trace in stack.jaeger.newest(service, ALL)]


def last_scrapes(stack: RunningStack) -> dict[str, float]:
    """When each of our processes was scraped last (of an expression Prometheus would give the time of the question)."""
    found = stack.query('timestamp(up{job="services"})')
    return {entry["metric"][names.LABEL_INSTANCE]: float(entry["value"][1]) for entry in found}


def scraped_again(stack: RunningStack) -> None:
    asked = time.time()

    def all_later() -> bool:
        scraped = last_scrapes(stack)
        return all(scraped.get(process, 0) > asked for process in PROCESSES)

    eventually(all_later, "every process is scraped again")


def flushed(stack: RunningStack) -> None:
    """Whatever a process sent before an order's spans has arrived with them."""
    for replica in ("shop-1", "shop-2"):
        answer = stack.http.post(
            f"{stack.process_url(replica)}/v1/orders",
            json={"items": [{"product_id": 1, "quantity": 1}]},
            headers={"Idempotency-Key": uuid.uuid4().hex, "X-API-Key": uuid.uuid4().hex},
        )
        trace_id = stack.access_line(SHOP, answer.headers["x-request-id"])[names.LOG_TRACE_ID]
        stack.complete_trace(trace_id, {SHOP, PAYMENTS, WORKER})


def test_an_idle_stack_makes_no_trace(stack: RunningStack) -> None:
    """Three scrapes of everything, HAProxy's checks, the relays' and the worker's polling: not one span."""
    eventually(lambda: [entry["value"][1] for entry in stack.query("sum(shop_outbox_backlog_jobs)")] == ["0"], "idle")
    flushed(stack)
    scraped_again(stack)
    since_ns = time.time_ns()
    for _ in range(SCRAPES):
        scraped_again(stack)
    until_ns = time.time_ns()
    flushed(stack)

    idle = [span for trace in every_trace(stack) for span in trace if since_ns < span.start_ns < until_ns]
    assert {(span.service, span.name) for span in idle} == set()


def test_every_trace_begins_with_a_request(stack: RunningStack) -> None:
    """Nothing a process does for itself, its start included, is a trace of its own."""
    flushed(stack)

    roots = [span for trace in every_trace(stack) for span in trace if not span.parent_id]
    assert roots
    assert {(span.service, span.name) for span in roots if span.kind != SERVER} == set()
