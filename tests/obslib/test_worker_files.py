"""Where workers meet, and what they leave there: which processes are a group, whose a slot is, what a file may hold."""

import fcntl
import os
import subprocess
import sys
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from obslib import _worker_slot
from obslib._foreign import ForeignMetrics
from obslib._instruments import Instruments
from obslib._worker_group import Group, find_group, make_directory, remove_if_abandoned, start_time
from obslib._worker_slot import Snapshot, SnapshotError, read_file, take_slot, used_slots
from obslib.exceptions import ConfigurationError

GROUP = Group(os.getpid(), start_time(os.getpid()), "0123456789abcdef")


def fail(error: BaseException) -> None:
    raise error


def an_instruments() -> Instruments:
    return Instruments(CollectorRegistry(), 100, before_reading=lambda: None, on_error=fail)


def a_snapshot() -> Snapshot:
    instruments = an_instruments()
    instruments.counter("jobs_total", 'Jobs\nand "more".', ["kind"]).labels('a"b\n').inc(3)
    instruments.counter("endless_total", "Infinite.").inc(float("inf"))
    instruments.gauge("depth", "Depth.").set(float("nan"))
    histogram = instruments.histogram("wait_seconds", "Wait.", buckets=(0.1, 1))
    histogram.observe(0.5)
    histogram.labels()._exemplars[1] = ("ab" * 16, "cd" * 8, 0.5, 1_700_000_000.25)
    instruments.info("version_info", "Version.", {"version": "1"})
    registry = CollectorRegistry()
    Counter("foreign", "Foreign.", ["kind"], registry=registry).labels("x").inc(2.0, {"trace_id": "e" * 32})
    Gauge("foreign_depth", "Depth.", registry=registry).set(4)
    Histogram("foreign_wait", "Wait.", registry=registry).observe(2)
    Summary("foreign_size", "Size.", registry=registry).observe(7)
    return Snapshot([metric.save() for metric in instruments.all()], ForeignMetrics([registry], fail).save())


# --- which processes are a group ---------------------------------------------------------------------------------------


def call_in(module: str, function: str, work: Callable[[], Any]) -> Any:
    """Call something inside a function of this name in a module of this name."""
    namespace: dict[str, Any] = {"__name__": module}
    exec(f"def {function}(work): return work()", namespace)
    return namespace[function](work)


def test_a_shared_parent_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two services that a shell, systemd or a program has started are not each other's workers."""
    assert find_group("", "shop", 0) is None
    monkeypatch.delitem(sys.modules, "multiprocessing.process", raising=False)
    assert find_group("", "shop", 0) is None


def test_key_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group has one parent, one name, one service and one application of each process."""
    key = find_group("g", "shop", 0)
    assert key == find_group("g", "shop", 0)
    assert key is not None
    assert (key.supervisor_pid, key.supervisor_start) == (os.getppid(), start_time(os.getppid()))
    others = [find_group("h", "shop", 0), find_group("g", "cart", 0), find_group("g", "shop", 1)]
    monkeypatch.setattr(os, "getppid", os.getpid)
    others.append(find_group("g", "shop", 0))
    assert len({key, *others}) == len(others) + 1


def test_worker_of_gunicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs inside the arbiter's worker function is gunicorn's worker, and nothing else that imports gunicorn."""
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", types.ModuleType("gunicorn.arbiter"))
    assert find_group("", "shop", 0) is None
    assert call_in("gunicorn.arbiter", "spawn_worker", lambda: find_group("", "shop", 0)) is not None
    assert call_in("gunicorn.arbiter", "run", lambda: find_group("", "shop", 0)) is None


def test_worker_of_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn's worker is the child that it has started with multiprocessing, and no child that a worker forks."""
    import multiprocessing.process

    def found() -> Group | None:
        return call_in("uvicorn._subprocess", "subprocess_started", lambda: find_group("", "shop", 0))  # type: ignore[no-any-return]

    assert found() is None
    parent = types.SimpleNamespace(pid=os.getppid())
    monkeypatch.setattr(multiprocessing.process, "_parent_process", parent)
    assert found() is not None
    assert find_group("", "shop", 0) is None
    parent.pid += 1
    assert found() is None


def test_start_time() -> None:
    """A process has a start time; one that is gone has none."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert int(start_time(child.pid)) >= int(start_time(os.getpid()))
    child.communicate(b"\n")
    assert start_time(child.pid) == ""


def test_machine_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing tells about processes, groups are told apart by the supervisor's number alone."""
    monkeypatch.setattr(Path, "read_text", unreadable)
    monkeypatch.setattr(Path, "readlink", unreadable)
    group = find_group("g", "shop", 0)
    assert group is not None
    assert group.supervisor_start == ""


def unreadable(*_args: object, **_options: object) -> str:
    raise PermissionError(13, "Permission denied")


# --- the directory -----------------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_private_directory(temporary: Path) -> None:
    """Without a choice the group's directory is this user's alone, among the temporary files."""
    directory = make_directory(None, GROUP)
    assert directory == temporary / f"obslib-{os.geteuid()}" / GROUP.directory_name
    assert directory.stat().st_mode & 0o777 == directory.parent.stat().st_mode & 0o777 == 0o700
    assert make_directory(None, GROUP) == directory


def test_link_in_its_place(temporary: Path) -> None:
    """A link that somebody has put there first is not followed."""
    (temporary / "elsewhere").mkdir(mode=0o700)
    (temporary / f"obslib-{os.geteuid()}").symlink_to("elsewhere")
    with pytest.raises(PermissionError):
        make_directory(None, GROUP)
    assert list((temporary / "elsewhere").iterdir()) == []


def test_file_in_its_place(temporary: Path) -> None:
    """A file is no directory, and said to be none."""
    (temporary / f"obslib-{os.geteuid()}").touch(mode=0o600)
    with pytest.raises(PermissionError):
        make_directory(None, GROUP)


def test_directory_that_others_can_read(temporary: Path) -> None:
    """A directory that others can look into is none of this user alone."""
    (temporary / f"obslib-{os.geteuid()}").mkdir(mode=0o755)
    with pytest.raises(PermissionError):
        make_directory(None, GROUP)


def test_chosen_directory(tmp_path: Path) -> None:
    """A chosen directory may be anybody's to read, and nobody else's to write; the group's is private in any case."""
    directory = make_directory(str(tmp_path / "run" / "shop"), GROUP)
    assert directory.stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionError):
        make_directory(str(tmp_path / "open"), GROUP)
    (tmp_path / "open").chmod(0o1777)
    assert make_directory(str(tmp_path / "open"), GROUP).is_dir()


@pytest.fixture
def dead_pid() -> int:
    """The number of a process that is gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def a_directory(path: Path) -> Path:
    path.mkdir(mode=0o700)
    for name in ("0.lock", "0.metrics", "0.sock", "port.lock"):
        (path / name).touch()
    return path


def test_abandoned_directories_are_cleared_away(tmp_path: Path, dead_pid: int) -> None:
    """A group whose supervisor is gone, or whose supervisor's number is another process' now, leaves nothing."""
    digest = "fedcba9876543210"
    alive = Group(os.getpid(), start_time(os.getpid()), digest)
    later = Group(os.getpid(), str(int(start_time(os.getpid())) + 1), digest)
    gone, unknown = Group(dead_pid, "17", digest), Group(dead_pid, "", digest)
    for group in (alive, later, gone, unknown):
        a_directory(tmp_path / group.directory_name)
    a_directory(tmp_path / "something-else")
    directory = make_directory(str(tmp_path), GROUP)
    assert set(tmp_path.iterdir()) == {directory, tmp_path / alive.directory_name, tmp_path / "something-else"}


def test_directory_of_a_supervisor_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor of another user is alive as far as anybody knows; one without a known start is while it runs."""
    mine = a_directory(tmp_path / Group(os.getpid(), "", "fedcba9876543210").directory_name)
    remove_if_abandoned(mine)
    assert mine.is_dir()
    monkeypatch.setattr(os, "kill", unreadable)
    theirs = a_directory(tmp_path / Group(2**22 + 1, "17", "fedcba9876543210").directory_name)
    remove_if_abandoned(theirs)
    assert theirs.is_dir()


def test_workers_that_outlive_their_supervisor(tmp_path: Path, dead_pid: int) -> None:
    """While one of its workers still ends, a directory stays."""
    directory = a_directory(tmp_path / Group(dead_pid, "17", "fedcba9876543210").directory_name)
    with (directory / "0.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_if_abandoned(directory)
        assert (directory / "0.metrics").exists()
    remove_if_abandoned(directory)
    assert not directory.exists()


def test_link_to_a_directory_is_left_alone(tmp_path: Path, dead_pid: int) -> None:
    """What looks like an abandoned directory and is a link is not followed to what it points to."""
    target = a_directory(tmp_path / "precious")
    link = tmp_path / Group(dead_pid, "17", "fedcba9876543210").directory_name
    link.symlink_to(target)
    remove_if_abandoned(link)
    assert (target / "0.metrics").exists()


# --- slots -------------------------------------------------------------------------------------------------------------


def test_lowest_free_slot(tmp_path: Path) -> None:
    """Each takes the lowest slot that is free, so that numbers stay few."""
    first, second, third = take_slot(tmp_path), take_slot(tmp_path), take_slot(tmp_path)
    assert [first.number, second.number, third.number] == [0, 1, 2]
    second.release()
    again = take_slot(tmp_path)
    assert again.number == 1
    assert used_slots(tmp_path) == [0, 1, 2]
    for slot in (first, again, third):
        slot.release()


def test_no_slot_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The label `worker` is bounded."""
    monkeypatch.setattr(_worker_slot, "MAX_SLOTS", 1)
    slot = take_slot(tmp_path)
    with pytest.raises(ConfigurationError, match="All 1 worker slots are taken"):
        take_slot(tmp_path)
    slot.release()


def test_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """The kernel's limit is said in words, with the way out."""
    with pytest.raises(ConfigurationError, match="Set OBSLIB_WORKER_DIRECTORY to a shorter one"):
        take_slot(tmp_path / ("x" * 100))


def test_lock_that_was_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that is no longer there would keep nobody out: the slot is passed by."""
    flock = fcntl.flock

    def clear_away(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        (tmp_path / "0.lock").unlink(missing_ok=True)
        if (tmp_path / "1.lock").exists():
            (tmp_path / "2.lock").unlink(missing_ok=True)
            (tmp_path / "2.lock").touch()

    monkeypatch.setattr(fcntl, "flock", clear_away)
    slots = [take_slot(tmp_path) for _ in range(2)]
    assert [slot.number for slot in slots] == [1, 3]
    for slot in slots:
        slot.release()


# --- the file ----------------------------------------------------------------------------------------------------------


def test_a_file_says_what_was_saved(tmp_path: Path) -> None:
    """Numbers, infinities, labels with quotes and exemplars come back as they were, and the file is private."""
    slot, snapshot = take_slot(tmp_path), a_snapshot()
    slot.write(snapshot.to_bytes())
    found = read_file(tmp_path / "0.metrics")
    assert found is not None
    assert found.to_bytes() == snapshot.to_bytes()
    assert (tmp_path / "0.metrics").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.lock", "0.metrics"]
    assert read_file(tmp_path / "1.metrics") is None
    slot.release()


def test_torn_file() -> None:
    """No part of a file is taken for the whole, nor one in which a byte has changed."""
    data = a_snapshot().to_bytes()
    assert Snapshot.from_bytes(data).own
    for torn in (*(data[:length] for length in range(0, len(data), 97)), data + b"x", data.replace(b"jobs", b"jabs")):
        with pytest.raises(SnapshotError):
            Snapshot.from_bytes(torn)


METRIC = {"kind": "counter", "name": "a_total", "documentation": "", "label_names": [], "bounds": [], "children": []}
FAMILY = {"name": "a", "documentation": "", "type": "counter", "unit": "", "samples": []}
BAD_METRICS: list[Any] = [
    None,
    {},
    {**METRIC, "kind": "sum"},
    {**METRIC, "name": 7},
    {**METRIC, "label_names": "ab"},
    {**METRIC, "label_names": [1]},
    {**METRIC, "children": [[]]},
    {**METRIC, "children": [[["x"], 1]]},
    {**METRIC, "children": [[[], -1]]},
    {**METRIC, "children": [[[], True]]},
    {**METRIC, "children": [[[], "much"]]},
    {**METRIC, "children": [[[], None]]},
    {**METRIC, "kind": "gauge", "children": [[[], []]]},
    {**METRIC, "kind": "histogram", "bounds": ["x"]},
    {**METRIC, "kind": "histogram", "bounds": [1], "children": [[[], 5]]},
    {**METRIC, "kind": "histogram", "bounds": [1], "children": [[[], [[1], 5, [None]]]]},
    {**METRIC, "kind": "histogram", "bounds": [1], "children": [[[], [[1, -1], 5, [None, None]]]]},
    {**METRIC, "kind": "histogram", "bounds": [1], "children": [[[], [[1, 1], 5, [None, ["a"]]]]]},
    {**METRIC, "kind": "histogram", "bounds": [1], "children": [[[], [[1, 1], 5, [None, ["}\n", "b", 1, 1]]]]]},
]
BAD_FAMILIES: list[Any] = [
    7,
    {},
    {**FAMILY, "name": "a\nb"},
    {**FAMILY, "samples": [["a\nb_total", {}, 1, None]]},
    {**FAMILY, "type": "sum"},
    {**FAMILY, "unit": None},
    {**FAMILY, "samples": [[]]},
    {**FAMILY, "samples": [["b_total", {}, 1, None]]},
    {**FAMILY, "samples": [["a_total", {"x": 1}, 1, None]]},
    {**FAMILY, "samples": [["a_total", {'x"\n': "y"}, 1, None]]},
    {**FAMILY, "samples": [["a_total", {}, [], None]]},
    {**FAMILY, "samples": [["a_total", {}, 1, [7, 1, 1]]]},
]


def written(content: Any) -> bytes:
    body = orjson.dumps(content)
    return b"obslib-worker-1 %d %d\n%s" % (len(body), zlib.crc32(body), body)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"own": []},
        *({"own": [metric], "foreign": []} for metric in BAD_METRICS),
        *({"own": [], "foreign": [family]} for family in BAD_FAMILIES),
    ],
)
def test_hostile_file(content: Any) -> None:
    """A file with a right checksum and a wrong content is refused, not half used."""
    assert Snapshot.from_bytes(written({"own": [METRIC], "foreign": [FAMILY]})).own
    with pytest.raises(SnapshotError):
        Snapshot.from_bytes(written(content))


def test_file_that_is_no_json() -> None:
    """Neither is anything else with a right checksum."""
    with pytest.raises(SnapshotError):
        Snapshot.from_bytes(b"obslib-worker-1 1 %d\n{" % zlib.crc32(b"{"))


@pytest.fixture(params=["link", "pipe", "directory"])
def odd_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Something in the place of a slot's file that is no file."""
    path = tmp_path / "0.metrics"
    if request.param == "link":
        (tmp_path / "target").write_bytes(a_snapshot().to_bytes())
        path.symlink_to("target")
    elif request.param == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    return path


def test_something_else_in_the_place_of_a_file(odd_file: Path) -> None:
    """A link is not followed, and a pipe keeps nobody waiting."""
    with pytest.raises(SnapshotError):
        read_file(odd_file)
