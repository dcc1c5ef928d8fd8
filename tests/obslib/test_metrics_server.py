"""The metrics on a port of their own: the same answers as on the service's, and an end that waits for nobody."""

import http.client
import threading
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from obslib import names
from obslib._metrics_server import MetricsServer
from obslib.settings import Settings
from obslib.testing import Captured, capture
from tests.obslib.asgi import call, http_scope
from tests.obslib.processes import free_port


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "BREW"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer s3cret"},
        {"authorization": "Bearer s3cret", "accept": "application/openmetrics-text", "accept-encoding": "gzip"},
    ],
    ids=["without a token", "wrong token", "text", "OpenMetrics and gzip"],
)
async def test_same_answer_on_either_port(method: str, headers: dict[str, str]) -> None:
    """Status, headers and the kind of body do not depend on where the metrics are served."""
    app, port = FastAPI(), free_port()
    with capture(app, Settings(service_name="shop", extra_registries=(), metrics_token="s3cret")) as telemetry:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        exchange = await call(app, http_scope("/metrics", method, pairs))
        server = MetricsServer(telemetry._telemetry.exposition, "127.0.0.1", port, "")
        server.start()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request(method, "/metrics", headers={"accept-encoding": "identity", **headers})
            response = connection.getresponse()
            body = response.read()
            connection.close()
        finally:
            server.stop()
    said = {name.lower(): value for name, value in response.getheaders() if name.lower() not in {"server", "date"}}
    assert response.status == exchange.sent[0]["status"]
    assert said == {name.decode(): value.decode() for name, value in exchange.headers.items()}
    assert body == exchange.body
    assert (names.TARGET_INFO.encode() in body) is (method == "GET" and response.status == 200 and len(headers) == 1)


@pytest.fixture
def telemetry() -> Iterator[Captured]:
    with capture(FastAPI(), Settings(service_name="shop", extra_registries=())) as captured:
        yield captured


def test_thread_that_cannot_start(telemetry: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no more threads the start says so, and the end does not wait for one."""
    server = MetricsServer(telemetry._telemetry.exposition, "127.0.0.1", free_port(), "")

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            server.start()
    ended = threading.Thread(target=server.stop, daemon=True)
    ended.start()
    ended.join(10)
    assert not ended.is_alive()
