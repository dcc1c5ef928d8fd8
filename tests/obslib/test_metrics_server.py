"""The metrics on a port of their own: the same answers as on the service's, and an end that waits for nobody."""

import threading
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from obslib._metrics_server import MetricsServer
from obslib.settings import Settings
from obslib.testing import Captured, capture
from tests.obslib.processes import free_port


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
