"""Requests that wait to be recorded: in rows, in order, and none of them lost."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar

import pytest

from obslib._backlog import BATCH_REQUESTS, Backlog
from obslib._record import RequestRecord, Scope


class Keeper:
    """A recorder that remembers the paths it was told about, in rows."""

    def __init__(self, signal: str = "logs", told: list[str] | None = None) -> None:
        self.signal = signal
        self.rows: list[list[str]] = []
        self._row: list[str] = []
        self._told = told
        self.on_finished: Callable[[RequestRecord], object] = lambda _: None

    def started(self, record: RequestRecord, scope: Scope) -> None: ...

    def finished(self, records: Iterable[RequestRecord]) -> None:
        for record in records:
            self._row.append(record.path)
            if self._told is not None:
                self._told.append(self.signal)
            self.on_finished(record)

    def hand_over(self) -> None:
        self.rows.append(self._row)
        self._row = []


def a_request(path: str, *, is_urgent: bool = False) -> RequestRecord:
    record = RequestRecord.begin("GET", path, "http", "1.1", {}, "", "", 0, 0)
    record.is_urgent = is_urgent
    return record


class Errors(list[tuple[str, str]]):
    def __call__(self, signal: str, error: BaseException) -> None:
        self.append((signal, str(error)))


@pytest.fixture
def errors() -> Errors:
    return Errors()


@pytest.fixture
def firsts() -> list[str]:
    return []


@pytest.fixture
def backlog(errors: Errors, firsts: list[str]) -> Backlog:
    made = Backlog(errors, lambda: firsts.append("first"))
    made.open()
    return made


def add(backlog: Backlog, count: int) -> list[str]:
    paths = [f"/{number}" for number in range(count)]
    for path in paths:
        backlog.add(a_request(path))
    return paths


def test_nothing_waits_before_it_is_open_and_after_it_is_closed(errors: Errors) -> None:
    """Until then nobody would come to record it."""
    keeper = Keeper()
    backlog = Backlog(errors, lambda: None)
    backlog.recorders = [keeper]
    backlog.add(a_request("/a"))
    assert keeper.rows == [["/a"]]
    backlog.open()
    backlog.add(a_request("/b"))
    assert keeper.rows == [["/a"]]
    assert backlog.close(1)
    backlog.add(a_request("/c"))
    assert keeper.rows == [["/a"], ["/b"], ["/c"]]


def test_a_row_is_recorded_by_one_recorder_after_the_other(backlog: Backlog, firsts: list[str]) -> None:
    """Each recorder's code runs for the whole row at a stretch, and whoever is to come by is told once."""
    told: list[str] = []
    traces, logs = Keeper("traces", told), Keeper("logs", told)
    backlog.recorders = [traces, logs]
    paths = add(backlog, BATCH_REQUESTS - 1)
    assert told == []
    assert firsts == ["first"]
    backlog.add(a_request("/last"))
    assert told == ["traces"] * BATCH_REQUESTS + ["logs"] * BATCH_REQUESTS
    assert traces.rows == logs.rows == [[*paths, "/last"]]


def test_a_full_row_waits_for_the_loop(backlog: Backlog) -> None:
    """The response that fills it goes out first; and what is current in that request is not in the recorders."""
    keeper, current, seen = Keeper(), ContextVar("current", default="nothing"), set()
    keeper.on_finished = lambda _: seen.add(current.get())
    backlog.recorders = [keeper]

    async def serve() -> list[str]:
        current.set("a request")
        paths = add(backlog, BATCH_REQUESTS)
        assert keeper.rows == []
        await asyncio.sleep(0)
        return paths

    assert asyncio.run(serve()) == keeper.rows[0]
    assert len(keeper.rows) == 1
    assert seen == {"nothing"}


def test_a_loop_that_does_not_come_round(backlog: Backlog) -> None:
    """A row twice as long is recorded without it."""
    keeper = Keeper()
    backlog.recorders = [keeper]

    async def serve() -> None:
        paths = add(backlog, 2 * BATCH_REQUESTS - 1)
        assert keeper.rows == []
        backlog.add(a_request("/last"))
        assert keeper.rows == [[*paths, "/last"]]

    asyncio.run(serve())
    assert len(keeper.rows) == 1


def test_an_urgent_request_is_recorded_now_with_those_before_it(backlog: Backlog) -> None:
    """The order is kept."""
    keeper = Keeper()
    backlog.recorders = [keeper]
    paths = add(backlog, 3)
    backlog.add(a_request("/error", is_urgent=True))
    assert keeper.rows == [[*paths, "/error"]]


def test_what_was_recorded_refers_to_nothing_of_the_request(backlog: Backlog) -> None:
    """A span or an exception that stayed would keep the request's frames, in a cycle."""
    seen = []
    keeper = Keeper()
    keeper.on_finished = lambda record: seen.append(record.exception)
    backlog.recorders = [keeper]
    record = a_request("/a", is_urgent=True)
    record.exception = error = ValueError("x")
    backlog.add(record)
    assert seen == [error]
    left: tuple[object, object] = (record.exception, record.span)
    assert left == (None, None)


def test_a_recorder_that_fails_silences_nobody(backlog: Backlog, errors: Errors) -> None:
    """Neither the other requests of the row nor the other recorders, whatever it is that fails."""
    broken, whole = Keeper("traces"), Keeper("logs")

    def fail(record: RequestRecord) -> None:
        if record.path == "/1":
            raise RuntimeError("finished")

    def fail_to_hand_over() -> None:
        raise RuntimeError("hand_over")

    broken.on_finished = fail
    broken.hand_over = fail_to_hand_over  # type: ignore[method-assign]
    backlog.recorders = [broken, whole]
    paths = add(backlog, 3)
    backlog.work_off()
    assert whole.rows == [paths]
    assert broken._row == paths
    assert errors == [("traces", "finished"), ("traces", "hand_over")]


def test_a_recorder_that_always_fails(backlog: Backlog, errors: Errors) -> None:
    """Each request is tried once, also by one that fails before it takes any."""

    class Broken(Keeper):
        def finished(self, records: Iterable[RequestRecord]) -> None:
            raise RuntimeError("always")

    whole = Keeper()
    backlog.recorders = [Broken("traces"), whole]
    paths = add(backlog, 3)
    backlog.work_off()
    assert whole.rows == [paths]
    assert errors == [("traces", "always")] * 3


def test_a_request_that_ends_while_others_are_recorded(backlog: Backlog) -> None:
    """A coroutine may be thrown away at any allocation, and then the frame that records meets itself."""
    keeper = Keeper()

    def end_another(record: RequestRecord) -> None:
        if record.path == "/0":
            backlog.add(a_request("/thrown-away", is_urgent=True))

    keeper.on_finished = end_another
    backlog.recorders = [keeper]
    paths = add(backlog, 2)
    backlog.work_off()
    assert keeper.rows == [paths, ["/thrown-away"]]


def test_a_thread_that_records_is_left_to_it_and_waited_for(backlog: Backlog) -> None:
    """Nobody stands in line; `flush` waits, as long as it is told to."""
    inside, go_on = threading.Event(), threading.Event()
    keeper = Keeper()

    def wait(record: RequestRecord) -> None:
        if record.path == "/0":
            inside.set()
            assert go_on.wait(30)

    keeper.on_finished = wait
    backlog.recorders = [keeper]
    add(backlog, 1)
    thread = threading.Thread(target=backlog.work_off)
    thread.start()
    assert inside.wait(30)
    backlog.add(a_request("/meanwhile", is_urgent=True))
    assert keeper.rows == []
    assert not backlog.flush(0.01)
    go_on.set()
    assert backlog.flush(30)
    thread.join()
    assert keeper.rows == [["/0"], ["/meanwhile"]]


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Let the interpreter change from thread to thread as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless_threads")
def test_threads_lose_nothing(backlog: Backlog) -> None:
    """However many add and work off at once, each request is recorded once."""
    keeper = Keeper()
    backlog.recorders = [keeper]

    def serve(thread: int) -> None:
        for number in range(2000):
            backlog.add(a_request(f"/{thread}/{number}", is_urgent=number % 7 == 0))
            if number % 5 == 0:
                backlog.work_off()

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backlog.flush(30)
    recorded = [path for row in keeper.rows for path in row]
    assert len(recorded) == len(set(recorded)) == 8000


def test_a_child_records_nothing_of_its_parents(backlog: Backlog) -> None:
    """The parent does."""
    keeper = Keeper()
    backlog.recorders = [keeper]
    add(backlog, 3)
    backlog.reset_after_fork()
    backlog.work_off()
    assert keeper.rows == []
