"""What a container asks about itself."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name there
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """Answers with the status that the path names."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _ask(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demo_service.healthcheck", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_ready_is_healthy(server: str) -> None:
    """Silence and 0."""
    answer = _ask(f"{server}/200")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_draining_is_not(server: str) -> None:
    """1, and Docker keeps why."""
    answer = _ask(f"{server}/503")
    assert answer.returncode == 1
    assert "503" in answer.stderr


def test_nobody_there_is_not() -> None:
    """Port 1 is nobody's."""
    answer = _ask("http://127.0.0.1:1/readyz")
    assert answer.returncode == 1
    assert "refused" in answer.stderr
