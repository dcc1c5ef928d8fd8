"""What is seen of a spike, and when enough has been seen."""

import asyncio
import http.server
import io
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from prometheus.durations import Clock
from stack import spike_screen
from stack.control import Answer, ControlServer, Request
from stack.ports import any_free
from stack.spike_view import Moment, SpikeView
from stack.terminal import Style

REPLICAS = {"shop": {"running": 2, "target": 4, "error": ""}}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Told:
    """Shows some moments, one after the other; the last is the end."""

    def __init__(self, *moments: Moment) -> None:
        self._left = list(moments)

    def look(self) -> Moment:
        return self._left.pop(0)

    def has_recovered(self, _: Moment) -> bool:
        return not self._left


def moment(seconds: float, running: int, target: int | None = None, **more: Any) -> Moment:
    fields = {"desired": 4.0, "requests_rps": 119.84, "p95_seconds": 0.2184, "errors_rps": 0.0, **more}
    return Moment(seconds=seconds, is_over=seconds > 90, running=running, target=target or running, **fields)


@contextmanager
def answering(answers: Mapping[str, Any]) -> Iterator[str]:
    """A server that answers what is asked for by its path, and by a word in its query."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = parse_qs(url.query).get("query", [""])[0]
            found = next((value for key, value in answers.items() if key in (query or url.path)), None)
            self.send_response(500 if found is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def result(value: str) -> Mapping[str, Any]:
    return {"data": {"result": [{"metric": {}, "value": [0, value]}]}}


@asynccontextmanager
async def supervised(path: Path) -> AsyncIterator[Path]:
    async def replicas(_: Request) -> Answer:
        return {"services": REPLICAS}

    server = ControlServer(path / "control.sock", {"replicas": replicas})
    await server.start()
    try:
        yield path / "control.sock"
    finally:
        await server.stop()


def look(socket: Path, prometheus_url: str, autoscaler_url: str) -> Moment:
    view = SpikeView(socket, prometheus_url, autoscaler_url, 90, Clock())
    try:
        return view.look()
    finally:
        view.close()


async def test_a_moment_is_what_everybody_says(tmp_path: Path) -> None:
    """The supervisor about replicas, Prometheus about requests, the autoscaler about itself."""
    answers = {
        "scale_desired": result("4"),
        "histogram_quantile": result("0.25"),
        "5..": result("1.5"),
        "rate(": result("120"),
        "/v1/decisions": [{"direction": "out", "reason": "4 are needed and there are 2."}],
    }
    with answering(answers) as url:
        async with supervised(tmp_path) as socket:
            seen = await asyncio.to_thread(look, socket, url, url)

    assert seen == Moment(
        seconds=seen.seconds,
        is_over=False,
        running=2,
        target=4,
        desired=4,
        requests_rps=120,
        p95_seconds=0.25,
        errors_rps=1.5,
        said="out: 4 are needed and there are 2.",
    )


async def test_what_nobody_says_is_not_shown(tmp_path: Path) -> None:
    """A quantile of nothing is no number; who is away, or fails, is left out, and the rest is seen."""
    nobody = f"http://127.0.0.1:{any_free(set())}"
    with answering({"histogram_quantile": result("NaN"), "rate(": {"data": {"result": []}}}) as url:
        async with supervised(tmp_path) as socket:
            seen = await asyncio.to_thread(look, socket, url, nobody)
            alone = await asyncio.to_thread(look, socket, "", "")

    assert (seen.running, seen.desired, seen.requests_rps, seen.p95_seconds) == (2, None, None, None)
    assert seen.said == "The autoscaler does not answer."
    assert alone == Moment(seconds=alone.seconds, is_over=False, running=2, target=4)


@pytest.mark.parametrize(
    ("seen", "is_enough"),
    [
        (moment(80, 2), False),
        (moment(95, 2), True),
        (moment(95, 2, p95_seconds=None), True),
        (moment(95, 2, p95_seconds=0.9), False),
        (moment(95, 4), False),
        (moment(95, 2, 1), False),
        (moment(95, 1), True),
        (moment(5000, 4, p95_seconds=0.9), True),
    ],
)
async def test_it_has_recovered_when_it_is_fast_and_as_small_as_before(
    tmp_path: Path, seen: Moment, is_enough: bool
) -> None:
    """And nothing is in progress; after half an hour it is given up."""
    async with supervised(tmp_path) as socket:
        view = await asyncio.to_thread(SpikeView, socket, "", "http://autoscaler", 90, Clock())
        view.close()

        assert view.has_recovered(seen) is is_enough


async def test_where_nobody_scales_it_need_not_be_small(tmp_path: Path) -> None:
    """Who has scaled by hand scales back by hand."""
    async with supervised(tmp_path) as socket:
        view = await asyncio.to_thread(SpikeView, socket, "", "", 90, Clock())
        view.close()

        assert view.has_recovered(moment(95, 4))


def test_lines_come_when_something_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """And every ten seconds; no control sequence is among them."""
    monkeypatch.setattr("stack.spike_screen._EVERY_SECONDS", 0.0)
    view = Told(
        moment(0, 2),
        moment(1, 2, requests_rps=100.0),
        moment(2, 2, 4, said="out: 4 are needed and there are 2."),
        moment(12, 2, 4, said="out: 4 are needed and there are 2."),
        moment(95, 2, p95_seconds=None, desired=None),
    )
    stream = io.StringIO()

    spike_screen.show(view, stream, Style())

    assert stream.getvalue().splitlines() == [
        "       time  desired  running   req/s      p95  errors/s  autoscaler",
        "      0.0 s        4        2   119.8   218 ms       0.0",
        "      2.0 s        4      2→4   119.8   218 ms       0.0  out: 4 are needed and there are 2.",
        "     12.0 s        4      2→4   119.8   218 ms       0.0  out: 4 are needed and there are 2.",
        " 1 min 35 s        -        2   119.8        -       0.0",
        "It is over, and the shop has 2 replicas.",
    ]


def test_a_terminal_shows_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn over by the next."""
    monkeypatch.setattr("stack.spike_screen._EVERY_SECONDS", 0.0)
    stream = Terminal()

    spike_screen.show(Told(moment(1, 2, 4, said="out: …"), moment(95, 1)), stream, Style())

    first, again, second = stream.getvalue().partition("\x1b[5A")
    assert again
    assert first.replace("\x1b[K", "").splitlines() == [
        "  spike  1.0 s  (Ctrl-C ends this view, nothing else)",
        "  replicas   2→4 running, 4 desired",
        "  requests   119.8/s, p95 218 ms",
        "  errors     0.0/s",
        "  autoscaler out: …",
    ]
    assert second.endswith("\nIt is over, and the shop has 1 replica.\n")
    assert second.startswith("  recovering")
