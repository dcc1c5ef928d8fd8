"""The roles as processes of their own, over files and loopback only."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.demo_service.shops import ORDER

pytestmark = pytest.mark.integration


class Processes:
    """Starts roles in one folder and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OBSLIB_", "SHOP_"))},
            "SHOP_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/shop.sqlite3",
            "SHOP_BROKER_URL": f"filesystem://{folder}/queue",
            "OTEL_TRACES_EXPORTER": "none",
        }
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, role: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a role; its output goes to a file of its name."""
        with (self.folder / f"{role}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "demo_service", role, *options], env=self.environ, stdout=log, stderr=log
            )
        self._running.append(process)
        return process

    def lines(self, role: str) -> list[dict[str, object]]:
        """Return what a role has logged."""
        text = (self.folder / f"{role}.log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def end(self) -> None:
        """Stop whatever still runs."""
        for process in self._running:
            process.kill()
            process.wait()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.end()


def test_one_trace_crosses_shop_payments_and_worker(processes: Processes) -> None:
    """Every log line that an order causes, in any process, carries the trace of the request that placed it."""
    shop, payments, worker = _free_ports(3)
    processes.environ["SHOP_PAYMENTS_URL"] = f"http://127.0.0.1:{payments}"
    processes.start("payments", "--port", str(payments))
    processes.start("worker", "--metrics-port", str(worker))
    processes.start("shop", "--port", str(shop))
    _until(lambda: _answers(f"http://127.0.0.1:{shop}/readyz") and _answers(f"http://127.0.0.1:{payments}/readyz"))
    placed = httpx.post(f"http://127.0.0.1:{shop}/v1/orders", json=ORDER, headers={"Idempotency-Key": "key-1"})
    assert placed.json()["status"] == "paid"
    _until(lambda: _order_status(shop, placed.json()["id"]) == "fulfilled")
    order_id = placed.json()["id"]
    events = {
        "shop": ("order_placed", "job_published"),
        "payments": ("payment_authorised",),
        "worker": ("order_fulfilled",),
    }
    _until(lambda: all(_line(processes, role, name, order_id) for role, names in events.items() for name in names))
    ids = {_line(processes, role, name, order_id)["trace_id"] for role, names in events.items() for name in names}
    assert len(ids) == 1
    assert ids != {""}


def test_a_stopped_shop_announces_it_and_finishes_its_requests(processes: Processes) -> None:
    """After SIGTERM the replica is unready, still answers, and ends by itself."""
    (port,) = _free_ports(1)
    # Long enough to look at; the second signal ends it.
    processes.environ["SHOP_DRAIN_SECONDS"] = "60"
    process = processes.start("shop", "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    _until(lambda: _answers(f"{url}/readyz"))
    process.send_signal(signal.SIGTERM)
    _until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
    assert httpx.get(f"{url}/v1/products/1").status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM


@pytest.mark.parametrize("role", ["shop", "payments"])
def test_a_taken_port_is_one_sentence_and_status_2(processes: Processes, role: str) -> None:
    """Who starts a role twice reads what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = processes.start(role, "--port", str(port))
        assert process.wait(60) == 2
    said = (processes.folder / f"{role}.log").read_text()
    assert said.splitlines()[-1].startswith(
        f"demo_service {role}: Cannot listen on 127.0.0.1:{port}: Address already in use."
    )
    assert "Traceback" not in said


@pytest.mark.parametrize("variable", ["SHOP_CACHE_URL", "OBSLIB_LOG_LEVEL", "SHOP_CASH_URL"])
def test_a_broken_setting_is_one_sentence_and_status_2(processes: Processes, variable: str) -> None:
    """Whoever owns the setting, the process names it and ends."""
    processes.environ[variable] = "nonsense"
    process = processes.start("shop", "--port", "0")
    assert process.wait(60) == 2
    said = (processes.folder / "shop.log").read_text()
    assert "Traceback" not in said
    assert said.startswith("demo_service shop: ")


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def _order_status(port: int, order_id: str) -> str:
    return str(httpx.get(f"http://127.0.0.1:{port}/v1/orders/{order_id}").json()["status"])


def _line(processes: Processes, role: str, event: str, order_id: str) -> dict[str, object]:
    found = [line for line in processes.lines(role) if (line["event"], line.get("order_id")) == (event, order_id)]
    return found[0] if found else {}


def _until(condition: Callable[[], object], *, deadline_seconds: float = 120) -> None:
    end = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.05)
