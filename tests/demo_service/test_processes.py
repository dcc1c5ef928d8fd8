"""The roles as processes of their own, over files and loopback only."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from demo_service.config import Config
from tests.demo_service.roles import Roles, answers, free_ports, until
from tests.demo_service.shops import ORDER

pytestmark = pytest.mark.integration


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Roles]:
    started = Roles(tmp_path)
    yield started
    started.end()


def test_one_trace_crosses_shop_payments_and_worker(processes: Roles) -> None:
    """Every log line that an order causes, in any process, carries the trace of the request that placed it."""
    shop, payments, worker = free_ports(3)
    processes.environ["SHOP_PAYMENTS_URL"] = f"http://127.0.0.1:{payments}"
    processes.start("payments", "--port", str(payments))
    processes.start("worker", "--metrics-port", str(worker))
    processes.start("shop", "--port", str(shop))
    until(lambda: answers(f"http://127.0.0.1:{shop}/readyz") and answers(f"http://127.0.0.1:{payments}/readyz"))
    placed = httpx.post(f"http://127.0.0.1:{shop}/v1/orders", json=ORDER, headers={"Idempotency-Key": "key-1"})
    assert placed.json()["status"] == "paid"
    until(lambda: _order_status(shop, placed.json()["id"]) == "fulfilled")
    order_id = placed.json()["id"]
    events = {
        "shop": ("order_placed", "job_published"),
        "payments": ("payment_authorised",),
        "worker": ("order_fulfilled",),
    }
    until(lambda: all(_line(processes, role, name, order_id) for role, names in events.items() for name in names))
    ids = {_line(processes, role, name, order_id)["trace_id"] for role, names in events.items() for name in names}
    assert len(ids) == 1
    assert ids != {""}


def test_a_stopped_shop_announces_it_and_finishes_its_requests(processes: Roles) -> None:
    """After SIGTERM the replica is unready, still answers, and ends by itself."""
    (port,) = free_ports(1)
    # Long enough to look at; the second signal ends it.
    processes.environ["SHOP_DRAIN_SECONDS"] = "60"
    process = processes.start("shop", "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    until(lambda: answers(f"{url}/readyz"))
    process.send_signal(signal.SIGTERM)
    until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
    assert httpx.get(f"{url}/v1/products/1").status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM


def test_a_stopped_shop_waits_for_a_long_request(processes: Roles) -> None:
    """As long as it is told to, where the balancer does not wait for it."""
    (port,) = free_ports(1)
    processes.environ |= {"SHOP_DRAIN_SECONDS": "0", "SHOP_GRACEFUL_SECONDS": "60"}
    process = processes.start("shop", "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    until(lambda: answers(f"{url}/readyz"))

    def body() -> Iterator[bytes]:
        yield b"{"
        process.send_signal(signal.SIGTERM)
        # Longer than it waits by default.
        time.sleep(Config.graceful_seconds + 1)
        yield json.dumps(ORDER).removeprefix("{").encode()

    headers = {"Idempotency-Key": "key-1", "Content-Type": "application/json"}
    # Accepted, and no more: there is nobody to authorise the payment.
    assert httpx.post(f"{url}/v1/orders", content=body(), headers=headers, timeout=60).status_code == 202
    assert process.wait(60) == -signal.SIGTERM


@pytest.mark.parametrize("role", ["shop", "payments"])
def test_a_taken_port_is_one_sentence_and_status_2(processes: Roles, role: str) -> None:
    """Who starts a role twice reads what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = processes.start(role, "--port", str(port))
        assert process.wait(60) == 2
    said = processes.said(role)
    assert said.splitlines()[-1].startswith(
        f"demo_service {role}: Cannot listen on 127.0.0.1:{port}: Address already in use."
    )
    assert "Traceback" not in said


def test_a_taken_metrics_port_is_one_sentence_and_status_2(processes: Roles) -> None:
    """The worker's only port is the one it is scraped at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = processes.start("worker", "--metrics-port", str(port))
        assert process.wait(60) == 2
    said = processes.said("worker").splitlines()[-1]
    assert said.startswith(
        f"demo_service worker: The metrics cannot be served on 127.0.0.1:{port}: Address already in use."
    )


@pytest.mark.parametrize(("role", "option"), [("shop", "--port"), ("worker", "--metrics-port")])
def test_a_queue_that_cannot_be_made_is_one_sentence_and_status_2(processes: Roles, role: str, option: str) -> None:
    """A shop without its relay would take orders that nobody ever fulfils."""
    (processes.folder / "file").touch()
    processes.environ["SHOP_BROKER_URL"] = f"filesystem://{processes.folder}/file/queue"
    process = processes.start(role, option, str(free_ports(1)[0]))
    assert process.wait(60) == 2
    said = processes.said(role)
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"demo_service {role}: SHOP_BROKER_URL: no queue can be made in ")


@pytest.mark.parametrize("variable", ["SHOP_CACHE_URL", "OBSLIB_LOG_LEVEL", "SHOP_CASH_URL"])
def test_a_broken_setting_is_one_sentence_and_status_2(processes: Roles, variable: str) -> None:
    """Whoever owns the setting, the process names it and ends."""
    processes.environ[variable] = "nonsense"
    process = processes.start("shop", "--port", "0")
    assert process.wait(60) == 2
    said = processes.said("shop")
    assert "Traceback" not in said
    assert said.startswith("demo_service shop: ")


def _order_status(port: int, order_id: str) -> str:
    return str(httpx.get(f"http://127.0.0.1:{port}/v1/orders/{order_id}").json()["status"])


def _line(processes: Roles, role: str, event: str, order_id: str) -> dict[str, object]:
    found = [line for line in processes.lines(role) if (line["event"], line.get("order_id")) == (event, order_id)]
    return found[0] if found else {}
