"""What the stack writes: target files, secrets, logs."""

import json
import stat
from pathlib import Path

import pytest

from obslib import names
from stack import logs
from stack.errors import StackError
from stack.state import Lock, StateDirectory
from stack.targets import Target, TargetFile, render


def test_a_target_file_is_what_prometheus_reads() -> None:
    """One group a process, in an order that does not depend on when it came."""
    targets = [
        Target(service="shop", replica="shop-2", port=8102),
        Target(service="payments", replica="payments", port=8090),
    ]

    assert json.loads(render(targets)) == [
        {"targets": ["127.0.0.1:8090"], "labels": {"service": "payments", "replica": "payments"}},
        {"targets": ["127.0.0.1:8102"], "labels": {"service": "shop", "replica": "shop-2"}},
    ]
    assert render(targets) == render(reversed(targets))


def test_targets_come_and_go(tmp_path: Path) -> None:
    """The file is complete at every moment, beginning with none."""
    path = tmp_path / "services.json"
    file = TargetFile(path)
    assert json.loads(path.read_text()) == []

    file.add(Target(service="shop", replica="shop-1", port=1), Target(service="shop", replica="shop-2", port=2))
    file.add(Target(service="shop", replica="shop-2", port=2))
    file.remove("shop-1", "never-there")

    assert [group["labels"]["replica"] for group in json.loads(path.read_text())] == ["shop-2"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["services.json"]


def test_a_target_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Said in a sentence; the next change that can be written brings what is missing."""
    path = tmp_path / "config" / "services.json"
    path.parent.mkdir()
    file = TargetFile(path)
    path.parent.rename(tmp_path / "away")

    with pytest.raises(StackError, match=r"services\.json cannot be written: No such file or directory"):
        file.add(Target(service="shop", replica="shop-1", port=1))
    (tmp_path / "away").rename(path.parent)
    file.add(Target(service="shop", replica="shop-2", port=2))

    assert [group["labels"]["replica"] for group in json.loads(path.read_text())] == ["shop-1", "shop-2"]


def test_secrets_are_for_one_pair_of_eyes(tmp_path: Path) -> None:
    """0600 in a 0700 directory, new at each start."""
    state = StateDirectory.at(tmp_path)
    state.create()
    first = state.new_secret(state.faults_token)
    second = state.new_secret(state.faults_token)

    assert first != second
    assert state.faults_token.read_text().strip() == second
    assert stat.S_IMODE(state.faults_token.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.run.stat().st_mode) == 0o700


def test_a_deep_directory_gets_its_sockets_elsewhere(tmp_path: Path) -> None:
    """A unix socket's path has 107 bytes at most; the place is the same for every command."""
    deep = tmp_path / "/".join(["a-long-name-of-a-directory"] * 6)
    state = StateDirectory.at(deep)
    state.create()
    try:
        assert len(str(state.control_socket)) < 100
        assert stat.S_IMODE(state.run.stat().st_mode) == 0o700
        assert StateDirectory.at(deep).run == state.run != StateDirectory.at(deep / "other").run
    finally:
        state.run.rmdir()


def test_one_stack_a_directory(tmp_path: Path) -> None:
    """The second is told who runs and how to see and to stop it."""
    state = StateDirectory.at(tmp_path)
    state.create()
    lock = Lock(state)
    try:
        with pytest.raises(StackError, match=r"already runs here \(process \d+") as refusal:
            Lock(state)
        assert f"--state-dir {tmp_path} stop" in str(refusal.value)
    finally:
        lock.release()
    Lock(state).release()


def test_a_grown_log_is_set_aside(tmp_path: Path) -> None:
    """The newest two are kept."""
    path = tmp_path / "shop-1.log"
    for number in range(4):
        path.write_text(f"{number}" * 100)
        logs.rotate(path, largest_bytes=100)

    assert {entry.name: entry.read_text()[0] for entry in tmp_path.iterdir()} == {
        "shop-1.log.1": "3",
        "shop-1.log.2": "2",
    }


def test_a_small_log_is_continued(tmp_path: Path) -> None:
    """A restart does not cost the lines before it."""
    path = tmp_path / "shop-1.log"
    for word in (b"before\n", b"after\n"):
        with logs.open_log(path) as log:
            log.write(word)

    assert logs.tail(path, 5) == ["before", "after"]


def test_the_lines_of_a_trace_are_found_in_all_logs_in_order(tmp_path: Path) -> None:
    """By the field, not by chance: a line that merely mentions the id is another request's."""

    def line(timestamp: str, trace_id: str, **more: str) -> str:
        return json.dumps({names.LOG_TIMESTAMP: timestamp, names.LOG_TRACE_ID: trace_id, **more}) + "\n"

    (tmp_path / "shop-1.log").write_text(
        line("2", "abc") + line("3", "def", parent="abc") + "no json: abc\n" + "{broken abc\n"
    )
    (tmp_path / "worker-1.log").write_text(line("4", "abc") + line("1", "abc"))

    found = list(logs.lines_of_trace(tmp_path, "abc"))

    assert [(name, json.loads(text)[names.LOG_TIMESTAMP]) for name, text in found] == [
        ("worker-1", "1"),
        ("shop-1", "2"),
        ("worker-1", "4"),
    ]
