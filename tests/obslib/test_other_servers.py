"""Servers beside uvicorn and gunicorn: the same signals, whoever calls the application, on asyncio and on trio."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from obslib import names
from tests.obslib.collector import running_collector
from tests.obslib.processes import free_port, serving_by

APP = """
import obslib
from fastapi import FastAPI, WebSocket
from starlette.responses import StreamingResponse

app = FastAPI()
obslib.instrument(app, obslib.Settings.from_env(service_name="shop"))
log = obslib.get_logger("shop")

@app.get("/items/{item_id}")
async def item(item_id: int):
    log.info("looked_up", item_id=item_id)
    return item_id

@app.get("/in_thread")
def in_thread():
    log.info("looked_up", item_id=-1)
    return -1

@app.get("/stream")
async def stream():
    async def pieces():
        for _ in range(3):
            yield b"x" * 10
    return StreamingResponse(pieces())

@app.get("/boom")
async def boom():
    raise RuntimeError("broken")

@app.websocket("/rooms/{room}")
async def rooms(room: str, socket: WebSocket):
    await socket.accept()
    await socket.send_text(room)
    await socket.close(1000)
"""

SERVERS = {
    "hypercorn": ("hypercorn", "served:app", "--bind", "127.0.0.1:{port}"),
    "hypercorn on trio": ("hypercorn", "served:app", "--bind", "127.0.0.1:{port}", "--worker-class", "trio"),
    "granian": ("granian", "served:app", "--interface", "asgi", "--port", "{port}"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_each_request_is_one_record_and_sigterm_loses_nothing(tmp_path: Path, name: str) -> None:
    """One SERVER span, one observation and one access line each, that agree; all of them there after the end."""
    port = free_port()
    command = [part.format(port=port) for part in SERVERS[name]]
    with running_collector() as collector:
        env = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OBSLIB_SPAN_FLUSH_INTERVAL_SECONDS": "60",
        }
        with serving_by(command, port, APP, tmp_path, **env) as server:
            assert server.get("/items/1") == (200, b"1")
            assert server.get("/in_thread") == (200, b"-1")
            assert server.get("/stream") == (200, b"x" * 30)
            assert server.get("/boom")[0] == 500
            assert server.get("/nowhere")[0] == 404
            with connect(server.url.replace("http", "ws", 1) + "/rooms/blue") as socket:
                assert socket.recv() == "blue"
                with pytest.raises(Exception, match="1000"):
                    socket.recv()
            status, body = server.get("/metrics", headers={"Accept-Encoding": "identity"})
            assert status == 200
            server.stop()
            lines = server.lines
        spans = {span.name: span for span in collector.spans}

    access = {line[names.LABEL_ROUTE]: line for line in lines if line.get("event") == names.ACCESS_EVENT}
    assert {route: line[names.LABEL_STATUS_CODE] for route, line in access.items()} == {
        "/items/{item_id}": 200,
        "/in_thread": 200,
        "/stream": 200,
        "/boom": 500,
        "": 404,
    }
    assert set(spans) == {
        "GET /items/{item_id}", "GET /in_thread", "GET /stream", "GET /boom", "GET", "WS /rooms/{room}",
    }  # fmt: skip
    assert len(collector.spans) == len(spans)
    for route, line in access.items():
        assert spans[f"GET {route}".strip()].trace_id.hex() == line[names.LOG_TRACE_ID]
    assert {line[names.LOG_TRACE_ID] for line in lines if line.get("event") == "looked_up"} == {
        access["/items/{item_id}"][names.LOG_TRACE_ID], access["/in_thread"][names.LOG_TRACE_ID],
    }  # fmt: skip
    counted = {
        sample.labels[names.LABEL_ROUTE]: sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == f"{names.HTTP_SERVER_REQUEST_DURATION}_count" and sample.value
    }
    assert counted == dict.fromkeys(access, 1)
