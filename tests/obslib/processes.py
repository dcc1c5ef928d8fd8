"""Real processes: programs that use obslib as its users do, and what they print."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 180


def environment(**values: str) -> dict[str, str]:
    """
    Return this process' environment without telemetry settings, and with these.

    Unbuffered, `print` writes a line and its end one after the other, and another thread's line may come in between.
    """
    left_out = ("OTEL_", "OBSLIB_", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "OTEL_SERVICE_NAME": "tested",
        "OTEL_TRACES_EXPORTER": "none",
        **values,
    }


def run_python(code: str, **env: str) -> list[dict[str, Any]]:
    """Run a program to its end; return the JSON lines it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server process."""

    def __init__(self, process: subprocess.Popen[str], port: int, output: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self._output = output

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> tuple[int, bytes]:
        """Send one request."""
        request = urllib.request.Request(self.url + path, headers=dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    @property
    def text(self) -> str:
        """Everything it has printed."""
        return self._output.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines it has printed; one that is being written is none yet."""
        whole, _, _ = self.text.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """End it and return its exit status."""
        self.process.send_signal(with_signal)
        return self.process.wait(DEADLINE_SECONDS)

    def wait_until_it_answers(self) -> None:
        """Wait until it takes requests."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.text
            try:
                self.get("/metrics")
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"It never answered:\n{self.text}")


@contextmanager
def serving(code: str, tmp_path: Path, *options: str, **env: str) -> Iterator[Server]:
    """Run an application, in a module `served` under the name `app`, with uvicorn."""
    port = free_port()
    with serving_by(["uvicorn", "served:app", "--port", str(port), *options], port, code, tmp_path, **env) as server:
        yield server


@contextmanager
def serving_by(module: Sequence[str], port: int, code: str, tmp_path: Path, **env: str) -> Iterator[Server]:
    """Run a server, a module with its options, beside a module `served`, until it answers on the port."""
    (tmp_path / "served.py").write_text(textwrap.dedent(code))
    output = tmp_path / "output.txt"
    command = [sys.executable, "-m", *module]
    with output.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(**env), stdout=stream, stderr=subprocess.STDOUT, text=True
        )
    server = Server(process, port, output)
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
