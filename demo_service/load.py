"""
Customers, as Locust plays them: one API key each, all routes in the proportions of a shop, and some mistakes.

Locust replaces the standard library's sockets when it is imported, so this module is imported by the role `load` only.
"""

import random
import signal
import time
import uuid
from itertools import count
from typing import Any, Final

import gevent
from locust import FastHttpUser, LoadTestShape, events, task
from locust.env import Environment
from locust.log import setup_logging

from demo_service.capacity import DEFAULT
from demo_service.load_shapes import Shape, target_rps

_REPORT_SECONDS: Final = 10.0
_TIMEOUT_SECONDS: Final = 30.0
_SPAWN_RATE: Final = 50.0
_PRODUCTS: Final = 200


class Customer(FastHttpUser):
    """Looks around a lot, orders sometimes, errs now and then."""

    connection_timeout = _TIMEOUT_SECONDS
    network_timeout = _TIMEOUT_SECONDS
    _numbers = count(1)

    def on_start(self) -> None:
        """Take the next API key."""
        number = next(self._numbers)
        self._headers = {"X-API-Key": f"load-{number:05d}", "Accept-Encoding": "gzip"}
        self._product = number % _PRODUCTS + 1
        self._cursor: str | None = None
        self._order_id = self._key = ""
        self._body: dict[str, Any] = {}
        gevent.sleep(random.uniform(0, 1 / DEFAULT.user_rps))
        self._next_call = time.monotonic()

    def wait_time(self) -> float:
        """Return the seconds until the next request: locust's own pacing lets customers come in step."""
        now = time.monotonic()
        self._next_call = max(now, self._next_call + random.expovariate(DEFAULT.user_rps))
        return self._next_call - now

    @task(30)
    def list_products(self) -> None:
        """Read the next page, or the first one again."""
        path = "/v1/products?limit=20" + (f"&cursor={self._cursor}" if self._cursor else "")
        page = self._call("GET", path, 200)
        self._cursor = page["next_cursor"] if page else None

    @task(40)
    def show_product(self) -> None:
        """Look at one product."""
        self._product = self._product * 7 % _PRODUCTS + 1
        self._call("GET", f"/v1/products/{self._product}", 200, name="/v1/products/{id}")

    @task(9)
    def place_order(self) -> None:
        """Order something."""
        self._body = {"items": [{"product_id": self._product, "quantity": 1 + self._product % 3}]}
        self._key = str(uuid.uuid4())
        self._send_order("/v1/orders")

    @task(1)
    def repeat_order(self) -> None:
        """Send the last order again, as a client does after a time-out."""
        if self._key:
            self._send_order("/v1/orders repeated")

    @task(8)
    def show_order(self) -> None:
        """Look at the last order."""
        if self._order_id:
            self._call("GET", f"/v1/orders/{self._order_id}", 200, name="/v1/orders/{id}")

    @task(6)
    def list_orders(self) -> None:
        """Look at all orders."""
        self._call("GET", "/v1/orders?limit=10", 200)

    @task(4)
    def miss_product(self) -> None:
        """Follow an old link."""
        self._call("GET", "/v1/products/99999", 404, name="/v1/products/{id} missing")

    @task(2)
    def err_in_order(self) -> None:
        """Send an order that does not fit the schema."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        self._call("POST", "/v1/orders", 422, json={"items": []}, headers=headers, name="/v1/orders invalid")

    def _send_order(self, name: str) -> None:
        headers = {"Idempotency-Key": self._key}
        order = self._call("POST", "/v1/orders", 201, 202, json=self._body, headers=headers, name=name)
        if order:
            self._order_id = order["id"]

    def _call(self, method: str, path: str, *expected: int, name: str = "", **options: Any) -> dict[str, Any] | None:
        headers = self._headers | options.pop("headers", {})
        name = name or path.partition("?")[0]
        with self.client.request(method, path, name=name, headers=headers, catch_response=True, **options) as response:
            if response.status_code not in expected:
                response.failure(f"expected {expected}, got {response.status_code}")
                return None
            response.success()
            return dict(response.json()) if response.status_code < 300 else None


class _Shape(LoadTestShape):
    """Turns a rate into a number of users."""

    def __init__(self, shape: Shape, rate_rps: float | None, duration_seconds: float | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # locust's
        self._arguments = (shape, rate_rps)
        self._duration_seconds = duration_seconds

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there should be, and how fast they come."""
        elapsed_seconds: float = self.get_run_time()  # type: ignore[no-untyped-call] # locust's
        if self._duration_seconds is not None and elapsed_seconds >= self._duration_seconds:
            return None
        shape, rate_rps = self._arguments
        rate = target_rps(shape, elapsed_seconds, capacity=DEFAULT, rate_rps=rate_rps)
        return max(1, round(rate / DEFAULT.user_rps)), _SPAWN_RATE


def run(url: str, *, shape: Shape, rate_rps: float | None, duration_seconds: float | None) -> int:
    """Send load until the time is over or a signal comes; return 0 if every answer was one to expect."""
    setup_logging("WARNING")  # type: ignore[no-untyped-call] # locust's
    environment = Environment(
        user_classes=[Customer], shape_class=_Shape(shape, rate_rps, duration_seconds), host=url, events=events
    )
    runner = environment.create_local_runner()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, runner.quit)
    print(f"load: {shape} on {url}", flush=True)  # noqa: T201 -- progress is what this program prints
    runner.start_shape()
    reporter = gevent.spawn(_report, environment)
    # It ends with the shape, or is killed by `quit`; the runner's own greenlets would go on for ever.
    assert runner.shape_greenlet is not None
    runner.shape_greenlet.join()
    reporter.kill()
    print(_line(environment), flush=True)  # noqa: T201
    runner.quit()
    for error in environment.stats.errors.values():
        print(f"load: {error.occurrences} x {error.method} {error.name}: {error.error}", flush=True)  # noqa: T201
    return 1 if environment.stats.total.num_failures else 0


def _report(environment: Environment) -> None:
    while True:
        gevent.sleep(_REPORT_SECONDS)
        print(_line(environment), flush=True)  # noqa: T201


def _line(environment: Environment) -> str:
    total, runner = environment.stats.total, environment.runner
    return (
        f"load: {time.strftime('%H:%M:%S')} users={runner.user_count if runner else 0} "
        f"rps={total.current_rps:.1f} requests={total.num_requests} unexpected={total.num_failures} "
        f"p50={total.get_current_response_time_percentile(0.5) or 0:.0f}ms "
        f"p95={total.get_current_response_time_percentile(0.95) or 0:.0f}ms"
    )
