"""The way to stdout: nothing waits for it but whoever asks to, and what is dropped is counted."""

import os
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, Any, Literal

import pytest

from obslib import names
from obslib._sink import LineSink


class Pipe:
    """A stdout that is read only when the test wants to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.read_end, write_end = os.pipe()
        self.stream: IO[str] = os.fdopen(write_end, "w")

    def sink(
        self,
        drops: "Drops",
        overflow: Literal["drop", "block"] = "drop",
        buffer_bytes: int = 64 * 1024,
        interval: float = 0.01,
        before_writing: Callable[[], None] = lambda: None,
    ) -> LineSink:
        """Make this the process' stdout (pytest puts its own back between a test's phases), and a sink that uses it."""
        self._monkeypatch.setattr(sys, "stdout", self.stream)
        return make(drops, overflow, buffer_bytes, interval, before_writing)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = os.read(self.read_end, size - len(data))
            if not chunk:
                break
            data += chunk
        return data


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe(monkeypatch)
    yield pipe
    os.close(pipe.read_end)
    try:
        pipe.stream.close()
    except OSError:
        return


class Drops(Counter[str]):
    def __call__(self, reason: str, lines: int) -> None:
        self[reason] += lines


def make(
    drops: Drops,
    overflow: Literal["drop", "block"] = "drop",
    buffer_bytes: int = 64 * 1024,
    interval: float = 0.01,
    before_writing: Callable[[], None] = lambda: None,
) -> LineSink:
    return LineSink(
        buffer_bytes=buffer_bytes,
        overflow=overflow,
        flush_interval_seconds=interval,
        on_dropped=drops,
        before_writing=before_writing,
    )


def test_direct_before_start_and_after_close(stdout: Pipe) -> None:
    """Without a thread a line is written by its caller."""
    drops = Drops()
    sink = stdout.sink(drops)
    sink.write(b"one\n")
    assert stdout.read(4) == b"one\n"
    sink.start()
    sink.start()
    sink.write(b"two\n")
    assert sink.close(10)
    assert sink.close(10)
    sink.write(b"three\n")
    assert stdout.read(10) == b"two\nthree\n"
    assert not drops


def test_line_that_races_with_the_close(stdout: Pipe) -> None:
    """A line that comes between a close's decision and its end is written by its caller."""
    drops = Drops()
    sink = stdout.sink(drops, interval=60)
    sink.start()
    lock = sink._lock

    class Overtaken:
        def __enter__(self) -> bool:
            sink._lock = lock
            sink.close(10)  # as another thread would, just before the writer of a line gets the lock
            return lock.acquire()

        def __exit__(self, *_error: object) -> None:
            lock.release()

    sink._lock = Overtaken()  # type: ignore[assignment]  # as much of a lock as is needed
    sink.write(b"line\n")
    os.set_blocking(stdout.read_end, False)
    assert os.read(stdout.read_end, 100) == b"line\n"
    assert not drops


def test_order_is_kept(stdout: Pipe) -> None:
    """Lines come out in the order in which they went in, errors and others alike."""
    sink = stdout.sink(Drops())
    sink.start()
    lines = [f"{number}\n".encode() for number in range(500)]
    for number, line in enumerate(lines):
        sink.write(line, is_error=number % 7 == 0)
    expected = b"".join(lines)
    assert stdout.read(len(expected)) == expected
    assert sink.close(10)


def test_error_lines_do_not_wait(stdout: Pipe) -> None:
    """An error line is written at once, however long the interval is."""
    sink = stdout.sink(Drops(), interval=60)
    sink.start()
    sink.write(b"fine\n")
    sink.write(b"error\n", is_error=True)
    assert stdout.read(11) == b"fine\nerror\n"
    assert sink.close(10)


def test_flush(stdout: Pipe) -> None:
    """After a flush everything accepted before it is written."""
    sink = stdout.sink(Drops(), interval=60)
    sink.start()
    sink.write(b"line\n")
    assert sink.flush(10)
    os.set_blocking(stdout.read_end, False)
    assert os.read(stdout.read_end, 100) == b"line\n"
    assert sink.close(10)
    assert sink.flush(0)


def fill(sink: LineSink, drops: Drops, line: bytes, limit: int) -> int:
    """Write until a line is dropped; return how many were accepted."""
    accepted = 0
    while not drops and accepted < limit:
        sink.write(line)
        accepted += 1
    return accepted - 1


def test_stalled_stdout_drops_and_counts(stdout: Pipe) -> None:
    """When nobody reads stdout, lines beyond the buffer are dropped and counted; an error line still finds room."""
    drops = Drops()
    sink = stdout.sink(drops)
    sink.start()
    line = b"x" * 1023 + b"\n"
    accepted = fill(sink, drops, line, 10_000)
    assert drops == {names.DROPPED_BUFFER_FULL: 1}
    sink.write(b"E" * 1023 + b"\n", is_error=True)
    assert drops == {names.DROPPED_BUFFER_FULL: 1}
    assert not sink.flush(0)
    everything = stdout.read((accepted + 1) * 1024)
    assert everything == line * accepted + b"E" * 1023 + b"\n"
    assert sink.close(10)


def test_blocking_mode_waits(stdout: Pipe) -> None:
    """In `block` mode nothing is dropped: the caller waits until there is room."""
    drops = Drops()
    sink = stdout.sink(drops, "block")
    sink.start()
    line = b"y" * 1023 + b"\n"

    def write_all() -> None:
        for _ in range(400):
            sink.write(line)

    writer = threading.Thread(target=write_all)
    writer.start()
    assert stdout.read(400 * 1024) == line * 400
    writer.join()
    assert sink.close(10)
    assert not drops


def test_line_larger_than_the_buffer(stdout: Pipe) -> None:
    """A line that can never fit is dropped in either mode."""
    drops = Drops()
    sink = stdout.sink(drops, "block")
    sink.start()
    sink.write(b"z" * 70_000 + b"\n")
    assert drops == {names.DROPPED_BUFFER_FULL: 1}
    assert sink.close(10)


def test_close_gives_up_on_a_stalled_stdout(stdout: Pipe) -> None:
    """Closing honours its deadline; what was not written is counted, and later lines do not hang."""
    drops = Drops()
    sink = stdout.sink(drops, buffer_bytes=256 * 1024)  # more than the pipe takes
    sink.start()
    line = b"x" * 1023 + b"\n"
    fill(sink, drops, line, 10_000)
    # The writer now hangs in what the pipe does not take, and has made room for lines that it will never come to.
    deadline = time.monotonic() + 60
    while True:
        before = drops.total()
        sink.write(line)
        if drops.total() == before:
            break
        assert time.monotonic() < deadline
    assert not sink.close(0.05)
    sink.write(b"late\n")
    assert drops[names.DROPPED_SHUTDOWN] >= 1


def test_broken_stdout(stdout: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stdout that is closed costs lines, which are counted, and nothing else."""
    drops = Drops()
    sink = stdout.sink(drops)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        sink.write(b"direct\n")
        sink.start()
        sink.write(b"threaded\n")
        assert sink.close(10)
    assert drops == {names.DROPPED_WRITE_FAILED: 2}


def test_stdout_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that stand in for stdout, and none at all, are written to as far as they go."""
    written: list[str] = []

    class Stand:
        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None: ...

    sink = make(Drops())
    for stream in (Stand(), None):
        monkeypatch.setattr(sys, "stdout", stream)
        sink.write(b"line\n")
    assert written == ["line\n"]


def test_non_blocking_stdout(stdout: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stdout that somebody made non-blocking, and that is full, is waited for."""
    waiting = threading.Event()
    wait = select.select

    def seen(*args: Any) -> Any:
        waiting.set()
        return wait(*args)

    monkeypatch.setattr("obslib._sink.select.select", seen)
    os.set_blocking(stdout.stream.fileno(), False)
    sink = stdout.sink(Drops(), buffer_bytes=1 << 20)
    sink.start()
    for _ in range(300):
        sink.write(b"w" * 1023 + b"\n")
    assert waiting.wait(60)
    assert stdout.read(300 * 1024) == (b"w" * 1023 + b"\n") * 300
    assert sink.close(10)


def test_fork_forgets(stdout: Pipe) -> None:
    """After a fork the child has neither the parent's thread nor its lines."""
    sink = stdout.sink(Drops(), interval=60)
    sink.start()
    sink.write(b"parent\n")
    result: dict[str, Any] = {}
    threads_before = sink.flush(10)
    sink.reset_after_fork()
    sink.write(b"child\n")
    result["data"] = stdout.read(13)
    assert threads_before
    assert result["data"] == b"parent\nchild\n"


def test_lines_that_waited_elsewhere_find_room_in_a_full_buffer(stdout: Pipe) -> None:
    """The writer brings them itself: if it waited for room, nobody could make any."""
    drops = Drops()
    line = b"y" * 999 + b"\n"
    waiting = [line] * 8

    def bring() -> None:
        while waiting:
            sink.write(waiting.pop())

    sink = stdout.sink(drops, "block", buffer_bytes=8000, interval=60, before_writing=bring)
    sink.start()
    for _ in range(7):  # the eighth place is kept for errors
        sink.write(line)
    sink.expect()
    threading.Thread(target=sink.flush, args=(30,)).start()
    assert stdout.read(15_000) == line * 15
    assert sink.close(10)
    assert not drops
