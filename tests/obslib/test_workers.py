"""Several workers behind one `/metrics`: each of them answers for all, and what was shown never goes back."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, Summary
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import obslib
from obslib import _workers, names
from obslib._exposition import OPENMETRICS, TEXT
from obslib._metrics_server import MetricsServer
from obslib._record import RequestRecord
from obslib._telemetry import Telemetry
from obslib._worker_group import Group, start_time
from obslib._worker_sockets import Late, Listener, ask
from obslib._workers import Worker
from obslib.exceptions import ConfigurationError
from obslib.settings import Settings
from tests.obslib.asgi import call, http_scope
from tests.obslib.processes import free_port

GROUP = Group(os.getpid(), start_time(os.getpid()), "0123456789abcdef")
DEADLINE_SECONDS = 180


class Process:
    """What one worker process has: telemetry and a place among its siblings."""

    def __init__(self, directory: Path, registry: CollectorRegistry) -> None:
        self.errors: list[BaseException] = []
        settings = Settings(service_name="shop", extra_registries=(registry,))
        self.telemetry = Telemetry(settings, write=lambda _line, _is_error: None)
        self.instruments = self.telemetry.instruments
        self.worker = Worker(
            GROUP,
            str(directory),
            self.instruments,
            self.telemetry.foreign,
            self.telemetry.exposition,
            on_error=self.errors.append,
        )

    def scrape(self, content_type: str = TEXT) -> list[Metric]:
        text = self.telemetry.exposition.render(content_type).decode()
        return list(parse_openmetrics(text) if content_type == OPENMETRICS else parse_text(text))  # type: ignore[no-untyped-call]

    def samples(self, name: str, **labels: str) -> dict[str, float]:
        """Return the value of a series by worker."""
        return {
            sample.labels[names.LABEL_WORKER]: sample.value
            for family in self.scrape()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        }


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers of one group, and ends them."""
    started: list[Process] = []

    def start_one(registry: CollectorRegistry | None = None) -> Process:
        started.append(Process(tmp_path, CollectorRegistry() if registry is None else registry))
        return started[-1]

    yield start_one
    for process in started:
        if not process.worker._over.is_set():
            process.worker.leave()


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def directory_of(tmp_path: Path) -> Path:
    return tmp_path / GROUP.directory_name


# --- one answer for all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [TEXT, OPENMETRICS])
def test_whoever_is_scraped_answers_for_all(start: Start, content_type: str) -> None:
    """Own metrics and prometheus_client's have a series for each worker, each family stands once, in either format."""
    processes = []
    for number in range(3):
        registry = CollectorRegistry()
        Counter("foreign", "Foreign.", registry=registry).inc(number)
        processes.append(start(registry))
        processes[-1].instruments.gauge("depth", "Depth.").set(number)
    for process in processes:
        families = process.scrape(content_type)
        assert len({family.name for family in families}) == len(families)
        values = {
            (sample.name, sample.labels[names.LABEL_WORKER]): sample.value
            for family in families
            for sample in family.samples
            if family.name in {"foreign", "depth", "obslib_build", "obslib_build_info"}
        }
        assert values == {
            (name, str(number)): 1.0 if name == names.BUILD_INFO else float(number)
            for number in range(3)
            for name in ("foreign_total", "depth", names.BUILD_INFO)
        }
        assert process.errors == []


def test_exemplars_of_siblings(start: Start) -> None:
    """Exemplars of every worker are there."""
    for trace_id in ("a" * 32, "b" * 32):
        start().instruments.histogram("wait_seconds", "Wait.").labels()._exemplars[3] = (trace_id, "c" * 16, 0.04, 1.5)
    [family] = [family for family in start().scrape(OPENMETRICS) if family.name == "wait_seconds"]
    found = {sample.exemplar.labels["trace_id"] for sample in family.samples if sample.exemplar}
    assert found == {"a" * 32, "b" * 32}


async def test_scrape_on_the_services_own_port(start: Start) -> None:
    """The ASGI way in gives the same answer as the port of its own."""
    first, second = start(), start()
    second.instruments.counter("jobs_total", "Jobs.").inc(4)
    sent: list[Mapping[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await first.telemetry.exposition.serve(http_scope("/metrics"), send)
    assert b'jobs_total{worker="1"} 4.0\n' in sent[1]["body"]
    assert sent[1]["body"].count(b"# TYPE obslib_build_info ") == 1


def test_blocked_worker(start: Start) -> None:
    """A worker whose event loop is blocked answers all the same: a thread of its own does."""
    first, second = start(), start()
    blocked, release = threading.Event(), threading.Event()

    async def block() -> None:
        blocked.set()
        release.wait(DEADLINE_SECONDS)

    loop = threading.Thread(target=asyncio.run, args=(block(),))
    loop.start()
    blocked.wait(DEADLINE_SECONDS)
    second.instruments.counter("jobs_total", "Jobs.").inc()
    assert first.samples("jobs_total") == {"1": 1.0}
    release.set()
    loop.join()


def test_workers_of_different_versions(start: Start) -> None:
    """Where two workers disagree about what a name means, the answer keeps to one of them and the error is counted."""
    first, second = start(), start()
    first.instruments.gauge("depth", "Depth.").set(1)
    second.instruments.histogram("depth", "Depth.").observe(1)
    assert {sample.name for family in first.scrape() if family.name == "depth" for sample in family.samples} == {
        "depth"
    }
    assert first.telemetry.self_telemetry.internal_errors.labels("metrics").save() == 1.0


# --- successors --------------------------------------------------------------------------------------------------------


def test_successor_goes_on(start: Start) -> None:
    """A slot's next worker begins with what the last one had counted; gauges begin anew."""
    registry = CollectorRegistry()
    first = start(registry)
    first.instruments.counter("jobs_total", "Jobs.", ["kind"]).labels("a").inc(3)
    histogram = first.instruments.histogram("wait_seconds", "Wait.", buckets=(1, 2))
    histogram.observe(1.5)
    histogram.labels()._exemplars[1] = ("a" * 32, "b" * 16, 1.5, 1.0)
    first.instruments.gauge("depth", "Depth.").set(9)
    first.worker.leave()
    second = start()
    jobs = second.instruments.counter("jobs_total", "Jobs.", ["kind"])
    jobs.labels("b").inc()
    histogram = second.instruments.histogram("wait_seconds", "Wait.", buckets=(1, 2))
    histogram.observe(0.5)
    second.instruments.gauge("depth", "Depth.")
    assert second.samples("jobs_total", kind="a") == {"0": 3.0}
    assert second.samples("jobs_total", kind="b") == {"0": 1.0}
    assert second.samples("wait_seconds_bucket", le="1.0") == {"0": 1.0}
    assert second.samples("wait_seconds_bucket", le="2.0") == {"0": 2.0}
    assert second.samples("wait_seconds_sum") == {"0": 2.0}
    assert second.samples("depth") == {"0": 0.0}
    assert histogram.labels()._exemplars[1] == ("a" * 32, "b" * 16, 1.5, 1.0)


def test_successor_whose_metric_comes_later(start: Start) -> None:
    """What the successor has no metric for yet is shown, and kept for whoever comes after it."""
    first = start()
    first.instruments.counter("jobs_total", "Jobs.").inc(3)
    first.worker.leave()
    second = start()
    assert second.samples("jobs_total") == {"0": 3.0}
    second.worker.leave()
    third = start()
    jobs = third.instruments.counter("jobs_total", "Jobs.")
    jobs.inc()
    assert third.samples("jobs_total") == {"0": 4.0}
    other = start()
    assert other.samples("jobs_total") == {"0": 4.0}


def test_successor_with_other_code(start: Start) -> None:
    """A metric that has changed begins at zero rather than with numbers of another one."""
    first = start()
    first.instruments.histogram("wait_seconds", "Wait.", buckets=(1, 2)).observe(1)
    first.worker.leave()
    second = start()
    second.instruments.histogram("wait_seconds", "Wait.", buckets=(1, 3)).observe(1)
    assert second.samples("wait_seconds_count") == {"0": 1.0}


def foreign_registry(bounds: tuple[float, ...] = (1.0, 2.0)) -> tuple[CollectorRegistry, Counter]:
    registry = CollectorRegistry()
    jobs = Counter("jobs", "Jobs.", ["kind"], registry=registry)
    Gauge("depth", "Depth.", registry=registry).set(1)
    Histogram("wait_seconds", "Wait.", buckets=bounds, registry=registry).observe(1.5)
    Summary("size_bytes", "Size.", registry=registry).observe(10)
    return registry, jobs


class Orders:
    """A collector of a user's that says what a database says: the same in every process, and after every restart."""

    def collect(self) -> Iterator[Metric]:
        metric = Metric("orders", "Orders.", "counter")
        metric.add_sample("orders_total", {}, 1000)
        yield metric


def test_successor_goes_on_with_prometheus_clients_metrics(start: Start) -> None:
    """prometheus_client's counts go on, too, and what a collector has from elsewhere is not added to itself."""
    registry, jobs = foreign_registry()
    registry.register(Orders())
    jobs.labels("a").inc(3)
    jobs.labels("b").inc(5)
    start(registry).worker.leave()
    registry, jobs = foreign_registry()
    registry.register(Orders())
    second = start(registry)
    jobs.labels("a").inc()
    assert second.samples("jobs_total", kind="a") == {"0": 4.0}
    assert second.samples("jobs_total", kind="b") == {"0": 5.0}
    assert second.samples("wait_seconds_bucket", le="2.0") == {"0": 2.0}
    assert second.samples("size_bytes_sum") == {"0": 20.0}
    assert second.samples("depth") == {"0": 1.0}
    assert second.samples("orders_total") == {"0": 1000.0}
    second.worker.leave()
    third = start()
    assert third.samples("jobs_total", kind="a") == {"0": 4.0}
    third.worker.leave()
    registry, _ = foreign_registry((1.0, 3.0))
    assert start(registry).samples("wait_seconds_count") == {"0": 1.0}


# --- workers that do not answer ----------------------------------------------------------------------------------------


def test_dead_worker(start: Start, tmp_path: Path) -> None:
    """Of a worker that is gone the counts stay, and its gauges go."""
    first, second = start(), start(foreign_registry()[0])
    second.instruments.counter("done_total", "Done.").inc(2)
    second.instruments.gauge("level", "Level.").set(7)
    second.worker.leave()
    for _ in range(2):  # the second time from memory
        assert first.samples("done_total") == {"1": 2.0}
        assert first.samples("wait_seconds_count") == {"1": 1.0}
        assert first.samples("level") == first.samples("depth") == {}
    assert first.samples(names.WORKER_ANSWERS_MISSED) == {"0": 0.0, "1": 0.0}
    assert first.samples(names.TARGET_INFO) == {"0": 1.0}


def test_nothing_shown_is_lost(start: Start, tmp_path: Path) -> None:
    """Whatever an answer has shown is in the file before: a worker that is killed then takes nothing back."""
    first, second = start(), start()
    own, other = first.instruments.counter("a_total", "A."), second.instruments.counter("b_total", "B.")
    file = directory_of(tmp_path)
    for round_number in range(1, 4):
        own.inc()
        other.inc()
        first.scrape()
        for number, name in ((0, b'"a_total"'), (1, b'"b_total"')):
            content = (file / f"{number}.metrics").read_bytes()
            _, _, after = content.partition(b'"name":' + name)
            assert after.partition(b'"children":')[2].startswith(b"[[[],%d.0]]" % round_number)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for siblings only a moment."""
    monkeypatch.setattr(_workers, "ANSWER_TIMEOUT_SECONDS", 0.2)


def test_late_worker(start: Start, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is there and does not answer in time is shown as it was last, gauges included, and counted."""
    first, second = start(), start(foreign_registry()[0])
    second.instruments.gauge("level", "Level.").set(7)
    second.worker.save()
    hold = threading.Event()
    original = second.telemetry.exposition.own_parts

    def stopped(content_type: str) -> Iterator[bytes]:
        hold.wait(DEADLINE_SECONDS)
        return original(content_type)

    monkeypatch.setattr(second.telemetry.exposition, "own_parts", stopped)
    assert first.samples("level") == {"1": 7.0}
    assert first.samples("depth") == {"1": 1.0}
    assert first.samples(names.WORKER_ANSWERS_MISSED) == {"0": 2.0, "1": 0.0}
    hold.set()


def test_torn_file(start: Start, tmp_path: Path) -> None:
    """A file that is torn or hostile is left out, counted once, and no hindrance for the slot's next worker."""
    first, second = start(), start()
    second.instruments.counter("jobs_total", "Jobs.").inc(2)
    second.worker.leave()
    path = directory_of(tmp_path) / "1.metrics"
    path.write_bytes(path.read_bytes()[:-1])
    assert first.samples("jobs_total") == {}
    assert first.samples("jobs_total") == {}
    assert first.samples(names.WORKER_SNAPSHOTS_REJECTED) == {"0": 1.0}
    again = start()
    assert again.samples(names.WORKER_SNAPSHOTS_REJECTED) == {"0": 1.0, "1": 1.0}
    assert len(again.errors) == 1


def test_file_with_a_name_that_no_metric_can_have(start: Start, tmp_path: Path) -> None:
    """A file that can be read and not be shown is rejected, too."""
    first, second = start(), start()
    made = second.instruments.counter("jobs_total", "Jobs.")
    made.name = "jobs"
    second.worker.leave()
    assert first.samples(names.INTERNAL_ERRORS)
    assert first.samples(names.WORKER_SNAPSHOTS_REJECTED) == {"0": 1.0}


def test_slot_without_a_file(start: Start, tmp_path: Path) -> None:
    """A worker that ended before it counted anything leaves nothing to show."""
    first, second = start(), start()
    second.worker.leave()
    (directory_of(tmp_path) / "1.metrics").unlink()
    assert set(first.samples(names.BUILD_INFO)) == {"0"}
    assert first.errors == []


def test_file_that_goes_away_meanwhile(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does one whose file is cleared away just now."""
    first, second = start(), start()
    second.worker.leave()
    monkeypatch.setattr(_workers, "read_file", lambda _path: None)
    assert set(first.samples(names.BUILD_INFO)) == {"0"}


def test_worker_that_fails_to_answer(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while a worker answers is its own to report; the scrape shows what it had written down."""
    first, second = start(), start()
    second.instruments.counter("jobs_total", "Jobs.").inc(2)
    second.worker.save()

    def broken(_content_type: str) -> Iterator[bytes]:
        raise RuntimeError("broken")

    monkeypatch.setattr(second.telemetry.exposition, "own_parts", broken)
    assert first.samples("jobs_total") == {"1": 2.0}
    assert [str(error) for error in second.errors] == ["broken"]


def test_nothing_is_written_after_the_end(start: Start, tmp_path: Path) -> None:
    """A worker that has left its slot writes no more: the file is its successor's."""
    process = start()
    process.worker.leave()
    (directory_of(tmp_path) / "0.metrics").unlink()
    process.worker.save()
    assert not (directory_of(tmp_path) / "0.metrics").exists()


def test_disk_is_full(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be written fails no scrape."""
    process = start()
    monkeypatch.setattr(process.worker._slot, "write", full)
    assert process.samples(names.BUILD_INFO) == {"0": 1.0}
    assert [type(error) for error in process.errors] == [OSError]


def full(_data: bytes) -> None:
    raise OSError(28, "No space left on device")


def test_socket_that_cannot_be_made(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that cannot listen takes no slot either: another start finds the same one free."""

    def refuse(_socket: socket.socket, _path: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    class Unbindable(socket.socket):
        bind = refuse  # type: ignore[assignment]

    monkeypatch.setattr("obslib._worker_sockets.socket.socket", Unbindable)
    with pytest.raises(ConfigurationError, match="Operation not permitted"):
        start()
    monkeypatch.undo()
    assert set(start().samples(names.BUILD_INFO)) == {"0"}


def test_directory_is_gone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the siblings cannot even be looked for, the answer has this worker's part."""
    process = start()
    monkeypatch.setattr(_workers, "used_slots", unreadable)
    assert process.samples(names.BUILD_INFO) == {"0": 1.0}
    assert [type(error) for error in process.errors] == [PermissionError]


def unreadable(_directory: Path) -> list[int]:
    raise PermissionError(13, "Permission denied")


def test_saved_every_few_seconds(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any scrape the file is written, too, and the lock and the socket look used."""
    monkeypatch.setattr(_workers, "SAVE_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(_workers, "_PORT_INTERVAL_SECONDS", 0.01)
    process = start()
    for name in ("0.lock", "0.sock"):
        os.utime(directory_of(tmp_path) / name, (0, 0))
    process.instruments.counter("jobs_total", "Jobs.").inc(7)
    file = directory_of(tmp_path) / "0.metrics"
    eventually(lambda: file.exists() and b"[[[],7.0]]" in file.read_bytes())
    for name in ("0.lock", "0.sock"):
        eventually(lambda name=name: (directory_of(tmp_path) / name).stat().st_mtime > 0)  # type: ignore[misc]


def test_gauge_that_raises(start: Start) -> None:
    """A gauge whose function raises is left out of the file, as it is of the answer."""

    def broken() -> float:
        raise RuntimeError("broken")

    process = start()
    process.instruments.gauge("level", "Level.", function=broken)
    gauge = Gauge("depth", "Depth.", registry=(registry := CollectorRegistry()))
    gauge.set_function(broken)
    other = start(registry)
    process.worker.save()
    other.worker.save()
    assert other.errors == []
    assert process.telemetry.self_telemetry.internal_errors.labels("metrics").save() == 1.0
    assert other.telemetry.self_telemetry.internal_errors.labels("metrics").save() == 1.0


def test_requests_of_the_parent_are_not_in_flight_in_a_child(start: Start) -> None:
    """After a fork, requests that the parent serves are the parent's: neither in flight nor counted in the child."""
    process = start()
    recorder = process.telemetry.metrics_recorder
    assert recorder is not None
    done, served = (RequestRecord.begin(method, "/", "http", "1.1", {}, "", "", 0, 0) for method in ("GET", "PUT"))
    process.telemetry.backlog.in_flight.add(served)
    recorder.finished([done])
    assert process.samples(names.HTTP_SERVER_ACTIVE_REQUESTS, http_request_method="PUT") == {"0": 1.0}
    process.telemetry.reset_after_fork()
    assert process.samples(names.HTTP_SERVER_ACTIVE_REQUESTS, http_request_method="PUT") == {"0": 0.0}
    assert process.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count") == {"0": 0.0}
    recorder.finished([done])
    assert process.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count") == {"0": 1.0}


def test_lock_that_a_thread_of_the_parent_held(start: Start) -> None:
    """A thread of the parent that counts just then does not exist in a fork's child, and keeps nobody waiting there."""
    process = start()
    recorder = process.telemetry.metrics_recorder
    assert recorder is not None
    record = RequestRecord.begin("GET", "/", "http", "1.1", {}, "", "", 0, 0)
    recorder.finished([record])
    recorder._lock.acquire()
    process.telemetry.reset_after_fork()
    child = threading.Thread(target=recorder.finished, args=([record],), daemon=True)
    child.start()
    child.join(DEADLINE_SECONDS)
    assert not child.is_alive()
    assert process.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count") == {"0": 1.0}


# --- the port of the metrics -------------------------------------------------------------------------------------------


def test_one_worker_has_the_port(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first worker serves the port, for all; when it is gone another one does."""
    monkeypatch.setattr(_workers, "_PORT_INTERVAL_SECONDS", 0.01)
    port, processes = free_port(), [start(), start()]
    servers = [MetricsServer(process.telemetry.exposition, "127.0.0.1", port, "") for process in processes]
    for process, server in zip(processes, servers, strict=True):
        process.worker.serve_port(server)
    assert [server._serving is not None for server in servers] == [True, False]
    processes[0].worker.leave()
    eventually(lambda: servers[1]._serving is not None)
    socket.create_connection(("127.0.0.1", port)).close()


def test_stranger_has_the_port(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that no sibling has is an error, which is counted as long as it lasts."""
    monkeypatch.setattr(_workers, "_PORT_INTERVAL_SECONDS", 0.01)
    process = start()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        server = MetricsServer(process.telemetry.exposition, "127.0.0.1", port, "")
        with pytest.raises(OSError, match="in use"):
            process.worker.serve_port(server)
        eventually(lambda: process.errors)
    eventually(lambda: server._serving is not None)


# --- sockets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare_listener(tmp_path: Path) -> Iterator[Callable[[str, int], socket.socket]]:
    """Makes sockets that listen and say nothing by themselves."""
    made = []

    def listen(name: str, backlog: int) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(tmp_path / name))
        listener.listen(backlog)
        made.append(listener)
        return listener

    yield listen
    for listener in made:
        listener.close()


def test_who_is_asked_and_who_answers(tmp_path: Path, bare_listener: Callable[[str, int], socket.socket]) -> None:
    """A whole answer counts; a part of one, a wrong length or nobody is no answer; silence is a late one."""
    answering = Listener(str(tmp_path / "0"), lambda question: question.upper().encode() * 100_000, print, 60)
    answering.start()
    bare_listener("1", 8)
    cut = bare_listener("2", 8)
    full_up = bare_listener("3", 0)
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2)]
    for client in waiting:
        client.setblocking(False)
        try:
            client.connect(str(tmp_path / "3"))
        except BlockingIOError:
            break

    def answer_in_part() -> None:
        connection, _ = cut.accept()
        connection.sendall(b"\0\0\0\0\0\0\0\x05abc")
        connection.close()

    thread = threading.Thread(target=answer_in_part)
    thread.start()
    answers = ask({number: str(tmp_path / str(number)) for number in range(5)}, "hello", 0.3)
    thread.join()
    assert answers.pop(0) == b"HELLO" * 100_000
    assert {number: type(answer) for number, answer in answers.items()} == {1: Late, 3: Late}
    for client in waiting:
        client.close()
    full_up.close()
    answering.close()
    assert ask({0: str(tmp_path / "0")}, "hello", 60) == {}


def test_sibling_that_asks_nothing(tmp_path: Path) -> None:
    """One that connects and goes away, or talks without an end, gets no answer and harms nobody."""
    listener = Listener(str(tmp_path / "0"), lambda _question: b"answer", print, 60)
    listener.start()
    for said in (b"", b"x" * 300):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(tmp_path / "0"))
            client.sendall(said)
            if not said:
                client.shutdown(socket.SHUT_WR)
                assert client.recv(10) == b""
    assert ask({0: str(tmp_path / "0")}, "hello", 60) == {0: b"answer"}
    (tmp_path / "0").unlink()
    listener.keep()
    listener.close()


def test_socket_that_a_dead_worker_left(tmp_path: Path) -> None:
    """The slot's next worker takes the place of a socket that nobody listens on."""
    path = str(tmp_path / "0")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(path)
    assert ask({0: path}, "hello", 60) == {}
    listener = Listener(path, lambda _question: b"answer", print, 60)
    listener.start()
    assert ask({0: path}, "hello", 60) == {0: b"answer"}
    listener.close()


def test_connection_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sibling that is killed while it answers is one that does not answer."""

    def reset(_connection: socket.socket, _size: int) -> bytes:
        raise ConnectionResetError(104, "Connection reset by peer")

    class Broken(socket.socket):
        recv = reset  # type: ignore[assignment]

    listener = Listener(str(tmp_path / "0"), lambda _question: b"answer", print, 60)
    listener.start()
    monkeypatch.setattr("obslib._worker_sockets.socket.socket", Broken)
    assert ask({0: str(tmp_path / "0")}, "hello", 60) == {}
    monkeypatch.undo()
    listener.close()


# --- the public API ----------------------------------------------------------------------------------------------------


def in_group(tmp_path: Path, **values: Any) -> Settings:
    return Settings(
        service_name="shop",
        traces_enabled=False,
        logs_enabled=False,
        extra_registries=(),
        worker_group="tests",
        worker_directory=str(tmp_path),
        **values,
    )


def found_in(tmp_path: Path, pattern: str = "*") -> list[Path]:
    return sorted(tmp_path.glob(pattern))


async def test_applications_of_one_process(tmp_path: Path) -> None:
    """Two applications of one process are no workers of each other: each is the first worker of its own group."""
    apps = [FastAPI(), FastAPI()]
    observabilities = [obslib.instrument(app, in_group(tmp_path)) for app in apps]
    try:
        for app in apps:
            exchange = await call(app, http_scope("/metrics"))
            assert exchange.body.count(b"obslib_build_info{") == 1
            assert b'worker="0"' in exchange.body
        assert len(found_in(tmp_path)) == 2
    finally:
        for observability in observabilities:
            observability.shutdown()


async def test_nothing_is_made_for_one_process(tmp_path: Path) -> None:
    """A process that is no member of a group has no directory and no self-metrics about workers."""
    app = FastAPI()
    settings = Settings(service_name="shop", logs_enabled=False, traces_enabled=False, worker_directory=str(tmp_path))
    with obslib.instrument(app, settings):
        exchange = await call(app, http_scope("/metrics"))
    assert b"obslib_worker" not in exchange.body
    assert found_in(tmp_path) == []


async def test_nothing_is_made_for_metrics_that_nobody_asks_for(tmp_path: Path) -> None:
    """Neither has one whose metrics are answered nowhere."""
    app = FastAPI()
    with obslib.instrument(app, in_group(tmp_path, metrics_path="")):
        await call(app, http_scope("/"))
    assert found_in(tmp_path) == []


async def lifespan(app: FastAPI) -> list[dict[str, Any]]:
    incoming: list[Any] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await app({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
    except ConfigurationError:
        assert sent
    return sent


async def test_counts_survive_the_end_of_a_lifespan(tmp_path: Path) -> None:
    """The end of a lifespan writes everything down, and a second one in the same process counts nothing twice."""
    app = FastAPI()
    with obslib.instrument(app, in_group(tmp_path)) as observability:
        jobs = observability.counter("jobs_total", "Jobs.")
        jobs.inc()
        assert [message["type"] for message in await lifespan(app)][-1] == "lifespan.shutdown.complete"
        [file] = found_in(tmp_path, "*/0.metrics")
        assert b"[[[],1.0]]" in file.read_bytes()
        jobs.inc()
        await lifespan(app)
        assert b'jobs_total{worker="0"} 2.0' in (await call(app, http_scope("/metrics"))).body


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file where a directory is wanted."""
    (tmp_path / "file").touch()
    return tmp_path / "file"


async def test_directory_that_does_not_work(file: Path) -> None:
    """Workers that cannot meet fail the application's start, with the fix in the sentence; another start may work."""
    app = FastAPI()
    settings = in_group(file)
    with pytest.raises(ConfigurationError, match="Set OBSLIB_WORKER_DIRECTORY"):
        obslib.instrument_process(settings)
    with obslib.instrument(app, settings) as observability:
        [failed] = await lifespan(app)
        assert failed["type"] == "lifespan.startup.failed"
        assert "Set OBSLIB_WORKER_DIRECTORY" in failed["message"]
        assert observability.registry.get_sample_value(names.INTERNAL_ERRORS, {"signal": "metrics"}) == 1
        await asyncio.to_thread(file.unlink)
        completed, _ = await lifespan(app)
        assert completed["type"] == "lifespan.startup.complete"


def test_process_without_asgi(tmp_path: Path) -> None:
    """A program without ASGI may be one of several, too: the port answers for all of them."""
    port = free_port()
    with obslib.instrument_process(in_group(tmp_path, metrics_port=port)):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b"obslib_worker_answers_missed_total" in answer
