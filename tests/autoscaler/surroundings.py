"""What the autoscaler talks to, on real sockets: a Prometheus that says what a test wants, and a supervisor's socket."""

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

from prometheus import recorded
from stack.control import Answer, ControlServer, Request
from stack.errors import StackError

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass(kw_only=True)
class Prometheus:
    """
    Answers instant queries about the shop; of others it knows nothing.

    Args:
        step_seconds: between samples; the newest is a tenth of it old.
        values: of each series, oldest first.
        firing: alerts.
        raw: what is answered instead, to anything, with its status.
        drips_seconds: how long after each byte of an answer the next one comes.
        held_up: a question with this in it sets the first event, and is answered when the second one is.
    """

    step_seconds: float = 0.625
    values: dict[str, list[float]] = field(default_factory=dict)
    firing: list[str] = field(default_factory=list)
    raw: tuple[int, bytes] | None = None
    drips_seconds: float = 0
    held_up: tuple[str, threading.Event, threading.Event] | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def says(self, *desired: float, scraped: float = 2, complete: float = 2, running: Sequence[float] = (2,)) -> None:
        """Let it know these numbers."""
        self.values = {
            recorded.SCALE_DESIRED: list(desired),
            recorded.SCALE_RUNNING: list(running),
            f"{recorded.SCALE_DEMAND} in_flight": [desired[-1] - 0.25],
            f"{recorded.SCALE_DEMAND} cpu": [0.5],
            recorded.SCALE_DEMAND_COMPLETE: [complete],
            recorded.UP: [scraped],
        }

    def answer(self, query: str) -> tuple[int, bytes]:
        self.asked.append(query)
        if self.held_up and self.held_up[0] in query:
            _, asked, may_answer = self.held_up
            asked.set()
            may_answer.wait(20)
        if self.raw is not None:
            return self.raw
        now = time.time()
        result: list[dict[str, Any]] = []
        if query.startswith("ALERTS"):
            result = [{"metric": {"alertname": name}, "value": [now, "1"]} for name in self.firing]
        else:
            ranged = query.endswith("ms]")
            for name in _NAME.findall(query) if 'service="shop"' in query else ():
                for key in self.values.keys() & {name, f"{name} in_flight", f"{name} cpu"}:
                    samples = self._samples(self.values[key], now)
                    place = {"values": samples} if ranged else {"value": samples[-1]}
                    _, _, signal = key.partition(" ")
                    labels = {"__name__": name, "instance": "autoscaler", **({"signal": signal} if signal else {})}
                    result.append({"metric": labels, **place})
        document = {"status": "success", "data": {"resultType": "matrix", "result": result}}
        return 200, json.dumps(document).encode()

    def _samples(self, values: list[float], now: float) -> list[list[Any]]:
        first = now - self.step_seconds * (len(values) - 0.9)
        return [[first + self.step_seconds * place, _text(value)] for place, value in enumerate(values)]


def _text(value: float) -> str:
    return {"nan": "NaN", "inf": "+Inf"}.get(str(value), str(value))


@contextmanager
def prometheus() -> Iterator[Prometheus]:
    """A Prometheus on a port of its own."""
    told = Prometheus()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            status, body = told.answer(form["query"][0])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not told.drips_seconds:
                self.wfile.write(body)
                return
            with contextlib.suppress(OSError):  # nobody waits for the end
                for place in range(len(body)):
                    self.wfile.write(body[place : place + 1])
                    time.sleep(told.drips_seconds)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Supervisor:
    """The supervisor's socket, with counts instead of processes."""

    def __init__(self, path: Path) -> None:
        self.counts = {"shop": 2, "worker": 1}
        self.targets: dict[str, int] = {}
        self.error = ""
        self.refusal = ""
        #: Whether orders are carried out at once, or only taken.
        self.diligent = True
        self.orders: list[tuple[str, int]] = []
        #: For each question in turn: set when the replicas have been counted, and waited for before they are told.
        self.held_up: list[tuple[asyncio.Event, asyncio.Event]] = []
        self.socket = path
        self._server = ControlServer(path, {"replicas": self._replicas, "scale": self._scale})

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    async def _replicas(self, _: Request) -> Answer:
        answer: Answer = {
            "services": {
                name: {"running": count, "target": self.targets.get(name, count), "error": self.error}
                for name, count in self.counts.items()
            }
        }
        if self.held_up:
            counted, arrives = self.held_up.pop(0)
            counted.set()
            await arrives.wait()
        return answer

    async def _scale(self, request: Request) -> Answer:
        assert request["wait"] is False
        self.orders.append((request["service"], request["replicas"]))
        if self.refusal:
            raise StackError(self.refusal)
        (self.counts if self.diligent else self.targets)[request["service"]] = request["replicas"]
        return {}
