"""WebSockets through a real server and a real client, over each implementation of the protocol that uvicorn has."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from obslib import names
from tests.obslib.collector import Collector, running_collector
from tests.obslib.processes import DEADLINE_SECONDS, Server, serving

APP = """
import asyncio
import obslib
from fastapi import Depends, FastAPI, WebSocket, WebSocketException
from starlette.responses import PlainTextResponse
app = FastAPI()
obslib.instrument(app)
log = obslib.get_logger("served")

@app.websocket("/rooms/{room}")
async def echo(websocket: WebSocket, room: str):
    await websocket.accept()
    log.info("joined", room=room)
    while True:
        text = await websocket.receive_text()
        if text == "raise":
            raise ValueError("broken")
        if text == "return":
            return
        if text == "close":
            await websocket.close(4000, "enough")
            return
        await websocket.send_text(text)

@app.websocket("/refused")
async def refused(websocket: WebSocket):
    raise WebSocketException(1008)

@app.websocket("/denied")
async def denied(websocket: WebSocket):
    await websocket.send_denial_response(PlainTextResponse("no", 429))

@app.websocket("/broken")
async def broken(websocket: WebSocket):
    raise ValueError("broken")
"""


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module", params=["websockets-sansio", "wsproto"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Collector]]:
    with running_collector() as collector:
        env = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        with serving(APP, tmp_path_factory.mktemp("served"), "--ws", request.param, **env) as server:
            yield server, collector


Ending = Callable[[ClientConnection], None]


def leave(connection: ClientConnection) -> None:
    connection.close(1000)


def leave_by_a_code_of_ones_own(connection: ClientConnection) -> None:
    connection.close(4999)


def hang_up(connection: ClientConnection) -> None:
    connection.socket.shutdown(socket.SHUT_RDWR)


def make_it(text: str) -> Ending:
    def end(connection: ClientConnection) -> None:
        connection.send(text)
        with pytest.raises(ConnectionClosed):
            connection.recv(DEADLINE_SECONDS)

    return end


def access_line(server: Server, path: str) -> dict[str, Any]:
    """Return the only access line of a path, once it is there."""
    [line] = wait_for(lambda: [line for line in server.lines if line.get("url_path") == path])
    return line  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("end", "code", "error_type"),
    [
        (leave, 1000, ""),
        (leave_by_a_code_of_ones_own, 4999, ""),
        (hang_up, 1006, "client_disconnect"),
        (make_it("close"), 4000, ""),
        (make_it("return"), 1006, "incomplete_response"),
        (make_it("raise"), 1006, "exception"),
    ],
    ids=["leave", "own code", "hang up", "server closes", "returns", "raises"],
)
def test_end(served: tuple[Server, Collector], end: Ending, code: int, error_type: str) -> None:
    """Every end of a connection is one line and one span that agree, in the caller's trace."""
    server, collector = served
    room = f"{code}{error_type or 'fine'}"
    trace_id = room.encode().hex().ljust(32, "0")[:32]
    headers = {"traceparent": f"00-{trace_id}-000000000000ef01-01"}
    url = f"{server.url.replace('http', 'ws', 1)}/rooms/{room}?token=hunter2"
    with connect(url, additional_headers=headers) as connection:
        request_id = connection.response.headers["x-request-id"]  # type: ignore[union-attr]
        for _ in range(20):
            connection.send("grün")
            assert connection.recv(DEADLINE_SECONDS) == "grün"
        end(connection)
        line = access_line(server, f"/rooms/{room}")
    is_text = end not in (leave, leave_by_a_code_of_ones_own, hang_up)
    assert (line["websocket_close_code"], line["error_type"]) == (code, error_type)
    assert (line["websocket_messages_sent"], line["websocket_sent_bytes"]) == (20, 100)
    assert line["websocket_messages_received"] == 20 + is_text
    assert (line["request_id"], line["trace_id"]) == (request_id, trace_id)
    assert line["http_route"] == "/rooms/{room}"
    [joined] = [other for other in server.lines if other["event"] == "joined" and other["room"] == room]
    assert (joined["trace_id"], joined["span_id"]) == (trace_id, line["span_id"])
    [span] = wait_for(lambda: [span for span in collector.spans if span.trace_id.hex() == trace_id])
    assert (span.name, span.span_id.hex()) == ("WS /rooms/{room}", line["span_id"])
    assert [event.name for event in span.events] == (["exception"] if error_type == "exception" else [])


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [("/refused", 403, "/refused"), ("/denied", 429, "/denied"), ("/broken", 500, "/broken"), ("/none", 403, "")],
)
def test_refused(served: tuple[Server, Collector], path: str, status: int, route: str) -> None:
    """The line of a handshake that leads nowhere has the status that the client is sent."""
    server, _ = served
    with pytest.raises(InvalidStatus) as raised, connect(server.url.replace("http", "ws", 1) + path):
        pass
    assert raised.value.response.status_code == status
    line = access_line(server, path)
    assert (line["http_response_status_code"], line["http_route"]) == (status, route)
    assert line["websocket_close_code"] is None


def test_metrics_and_lines_of_the_server(served: tuple[Server, Collector]) -> None:
    """Open connections and their messages are scraped; uvicorn adds no lines, least of all with query strings."""
    server, _ = served
    gauge = f'{names.WEBSOCKET_SERVER_ACTIVE_CONNECTIONS}{{http_route="/rooms/{{room}}",worker="0"}} '

    def scraped() -> str:
        return server.get("/metrics")[1].decode()

    with connect(f"{server.url.replace('http', 'ws', 1)}/rooms/m?token=hunter2") as connection:
        wait_for(lambda: f"{gauge}1.0" in scraped())
        connection.send("hi")
        connection.recv(DEADLINE_SECONDS)
        assert (
            f'{names.WEBSOCKET_SERVER_MESSAGES}{{http_route="/rooms/{{room}}",network_io_direction="transmit"'
            in scraped()
        )
    access_line(server, "/rooms/m")
    assert f"{gauge}0.0" in scraped()
    assert "hunter2" not in server.text
    assert [line for line in server.lines if "WebSocket" in str(line["event"])] == []
    assert [line for line in server.lines if "Exception in ASGI" in str(line["event"])] == []


def test_shutdown(tmp_path: Path) -> None:
    """A server that stops says so to its connections (1012); their lines and spans arrive before it ends."""
    with running_collector() as collector:
        env = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        with serving(APP, tmp_path, **env) as server:
            with connect(f"{server.url.replace('http', 'ws', 1)}/rooms/1") as connection:
                connection.send("hi")
                connection.recv(DEADLINE_SECONDS)
                server.stop()
            line = access_line(server, "/rooms/1")
            assert (line["websocket_close_code"], line["error_type"]) == (1012, "")
        assert [span.name for span in collector.spans] == ["WS /rooms/{room}"]
