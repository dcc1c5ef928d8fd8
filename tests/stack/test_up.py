"""The supervisor as a whole, with stand-ins for the services and none of the components."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from stack import control
from stack.errors import NotRunningError, StackError
from stack.state import ROOT, StateDirectory
from stack.status import RUNNING

PATIENCE_SECONDS = 180.0
WAITS_FOR_A_WORD = b'{"command": "scale", "service": "worker", "replicas": 2, "wait": "no"}\n'
STANDIN = Path(__file__).with_name("standin_services.py")


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.05)


class Up:
    """One `python -m stack up`."""

    def __init__(self, state: StateDirectory, process: "subprocess.Popen[str]") -> None:
        self.state = state
        self.process = process

    def ask(self, command: str, **fields: object) -> dict[str, object]:
        return control.ask(self.state.control_socket, {"command": command, **fields}, timeout_seconds=30)

    def phase(self) -> str:
        try:
            return str(self.ask("status")["phase"])
        except NotRunningError:
            return ""

    def pids(self) -> list[int]:
        processes = self.ask("status")["processes"]
        assert isinstance(processes, list)
        return [process["pid"] for process in processes]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """One command to its end."""
    command = [sys.executable, str(STANDIN), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=180, check=False
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def started(path: Path, *options: str) -> Iterator[Up]:
    command = [sys.executable, str(STANDIN), "--state-dir", str(path), "up", "--no-load", "--port-base", "0", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            state = StateDirectory.at(path)
            running = Up(state, process)
            until(lambda: process.poll() is not None or running.phase() == RUNNING, "the stack is up")
            yield running
        finally:
            process.kill()


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, since sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="obslib-up-") as path:
        yield Path(path)


@pytest.fixture
def up(directory: Path) -> Iterator[Up]:
    """A running stack of stand-ins."""
    with started(directory) as running:
        assert running.process.poll() is None
        yield running


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_runs_without_any_component(up: Up) -> None:
    """One replica, reached directly; what is missing is said."""
    status = up.ask("status")

    processes = status["processes"]
    assert isinstance(processes, list)
    assert [process["name"] for process in processes] == ["shop-1", "payments", "worker-1", "supervisor"]
    assert status["healthy"] is True
    assert status["shop_url"] == processes[0]["url"]
    assert "Missing: jaeger is not there." in run("--state-dir", str(up.state.path), "status").stdout
    assert sorted(status["missing"]) == ["alertmanager", "haproxy", "jaeger", "prometheus", "redis"]  # type: ignore[call-overload] # JSON


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(up: Up, number: signal.Signals) -> None:
    """Ctrl-C, a service manager's stop and a closed terminal end all processes, and the exit status is 0."""
    pids = up.pids()

    up.process.send_signal(number)
    words, _ = up.process.communicate(timeout=PATIENCE_SECONDS)

    assert up.process.returncode == 0, words
    assert "Stopped in" in words
    assert not [pid for pid in pids if is_alive(pid)]


def test_kill_9_of_the_supervisor_leaves_no_orphan(up: Up) -> None:
    """The kernel ends its children."""
    pids = up.pids()

    up.process.kill()
    up.process.wait()

    until(lambda: not any(is_alive(pid) for pid in pids), "no orphan")


def test_a_second_start_is_refused_and_the_first_goes_on(up: Up) -> None:
    """It says who runs and how to see and stop it."""
    second = run("--state-dir", str(up.state.path), "up")

    assert second.returncode == 1
    assert f"A stack already runs here (process {up.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert all(is_alive(pid) for pid in up.pids())


def test_after_kill_9_it_starts_again(directory: Path) -> None:
    """Neither the lock nor the sockets of a dead supervisor are in the way."""
    with started(directory) as first:
        first.process.kill()
        first.process.wait()
    with started(directory) as second:
        assert second.ask("status")["healthy"] is True


def test_a_port_that_was_asked_for_and_is_taken_is_a_sentence(directory: Path) -> None:
    """No stack trace, nothing started."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        result = run("--state-dir", str(directory), "up", "--port-base", str(port))

    assert result.returncode == 1
    assert f"asks for ports that are taken: {port} (http)" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_a_service_that_cannot_start_ends_the_start(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words are shown, and what had started already is stopped."""
    monkeypatch.setenv("STANDIN_BROKEN", "payments")
    result = run("--state-dir", str(directory), "up", "--no-load", "--port-base", "0")

    assert result.returncode == 1
    assert "payments exited with status 1 before it was ready" in result.stderr
    assert "payments cannot start" in result.stderr
    assert "Stopped in" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_what_dies_is_started_again(up: Up) -> None:
    """Under a new pid, and counted."""
    pid = up.pids()[0]
    os.kill(pid, signal.SIGKILL)

    def again() -> bool:
        processes = up.ask("status")["processes"]
        assert isinstance(processes, list)
        return bool(processes[0]["healthy"]) and processes[0]["pid"] != pid and processes[0]["restarts"] == 1

    until(again, "the replica is back")


def test_the_worker_scales_and_the_shop_cannot_without_haproxy(up: Up) -> None:
    """Replicas without a balancer are of use only where they fetch their work."""
    up.ask("scale", service="worker", replicas=3)
    targets = json.loads(up.state.services_targets.read_text())
    assert [group["labels"]["replica"] for group in targets] == [
        "payments",
        "shop-1",
        "worker-1",
        "worker-2",
        "worker-3",
    ]

    up.ask("scale", service="worker", replicas=1)
    assert up.ask("status")["replicas"] == {"shop": 1, "worker": 1}

    with pytest.raises(StackError, match="cannot be scaled without HAProxy"):
        up.ask("scale", service="shop", replicas=2)


def test_the_probe_asks_for_a_shop_that_has_been_started(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails, or takes long, breaks no promise: Prometheus reads of the probe when the shop is there."""

    def scraped() -> list[str]:
        targets = json.loads(StateDirectory.at(directory).platform_targets.read_text())
        return [group["labels"]["replica"] for group in targets]

    with started(directory):
        assert scraped() == ["probe"]
    monkeypatch.setenv("STANDIN_BROKEN", "shop")
    run("--state-dir", str(directory), "up", "--no-load", "--port-base", "0")
    assert scraped() == []


def test_the_newest_of_several_orders_holds(up: Up) -> None:
    """All are answered, those that were overtaken with that, and what was ordered last is what there is."""
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda count: up.ask("scale", service="worker", replicas=count), (3, 1, 2, 3)))

    assert [answer["replicas"] for answer in answers] == [3, 1, 2, 3]
    held = {answer["replicas"] for answer in answers if not answer["superseded"]}
    worker = replicas(up)["worker"]
    assert worker == {"running": worker["target"], "target": worker["target"], "error": ""}
    assert worker["target"] in held
    assert len(up.pids()) == 3 + worker["running"]


def test_an_order_need_not_be_waited_for(up: Up) -> None:
    """It is accepted with what there is, and carried out."""
    accepted = up.ask("scale", service="worker", replicas=2, wait=False)

    assert (accepted["running"], accepted["target"]) == (1, 2)
    assert accepted["seconds"] == 0
    until(lambda: replicas(up)["worker"] == {"running": 2, "target": 2, "error": ""}, "two workers")
    # Running from its first moment, ready when it answers: only the latter is the end of the order.
    up.ask("scale", service="worker", replicas=2)
    assert up.ask("status")["healthy"] is True


def replicas(up: Up) -> dict[str, dict[str, int]]:
    """What there is of each service, and what was ordered."""
    services: dict[str, dict[str, int]] = up.ask("replicas")["services"]  # type: ignore[assignment] # JSON
    return services


def test_the_socket_answers_nonsense_with_a_sentence(up: Up) -> None:
    """And goes on answering."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(up.state.control_socket))
        with connection.makefile("rwb") as stream:
            for line in (b"no json\n", b"[1]\n", b'{"command": "fly"}\n', b'{"command": "scale"}\n', WAITS_FOR_A_WORD):
                stream.write(line)
                stream.flush()
                answer = json.loads(stream.readline())
                assert answer["ok"] is False
                assert answer["error"].endswith(".")
    assert up.ask("status")["healthy"] is True


def test_stop_from_another_terminal(up: Up) -> None:
    """`stop` returns when everything has ended; a second one says that nothing runs."""
    result = run("--state-dir", str(up.state.path), "stop")
    up.process.wait(PATIENCE_SECONDS)

    assert (result.returncode, result.stdout) == (0, "Stopped.\n")
    with pytest.raises(NotRunningError):
        up.ask("status")
    again = run("--state-dir", str(up.state.path), "stop")
    assert again.returncode == 1
    assert "No stack runs here" in again.stderr
