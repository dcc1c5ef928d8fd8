"""How workers ask each other: a word over a unix socket, and an answer that says its length."""

import contextlib
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_LENGTH: Final = struct.Struct(">Q")
_MAX_QUESTION_BYTES: Final = 256
#: An answer of more than this is nobody's.
_MAX_ANSWER_BYTES: Final = 1 << 30
_CHUNK_BYTES: Final = 256 * 1024
#: How many siblings may ask at once; it bounds connections that the kernel keeps, not those being answered.
_BACKLOG: Final = 128


class Late(Exception):  # noqa: N818 -- it is an answer, too
    """Somebody is there, but has not answered in time."""


class Listener:
    """
    Answers from daemon threads, so that neither a blocked event loop nor a slow sibling is in the way.

    Args:
        path: Removed first if it is there: the caller owns it.
        answer: Gets the question.
        on_error: Told what `answer` raised; the sibling then gets none.
        timeout_seconds: For a sibling to ask and to take the answer.
    """

    def __init__(
        self,
        path: str,
        answer: Callable[[str], bytes],
        on_error: Callable[[BaseException], None],
        timeout_seconds: float,
    ) -> None:
        self._path = path
        self._answer = answer
        self._on_error = on_error
        self._timeout_seconds = timeout_seconds
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()
        with contextlib.ExitStack() as undos:
            self._socket = undos.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            self._socket.bind(path)
            self._socket.listen(_BACKLOG)
            undos.pop_all()

    def start(self) -> None:
        """Answer from now on, those first who have asked already."""
        threading.Thread(target=self._run, name="obslib-worker", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        with contextlib.suppress(FileNotFoundError):
            Path(self._path).unlink()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closing alone would not
        self._socket.close()

    def abandon(self) -> None:
        """In a fork's child, leave the socket to the parent."""
        self._socket.close()

    def keep(self) -> None:
        """Show what clears old temporary files away that the socket is in use."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="obslib-worker-answer", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # A sibling that goes away or never asks is its own affair.
        with connection, contextlib.suppress(OSError):
            connection.settimeout(self._timeout_seconds)
            question = b""
            while not question.endswith(b"\n") and len(question) < _MAX_QUESTION_BYTES:
                more = connection.recv(_MAX_QUESTION_BYTES)
                if not more:
                    return
                question += more
            try:
                answer = self._answer(question.decode("utf-8", "replace").strip())
            except Exception as error:  # noqa: BLE001 -- the guard: a thread that ends tells nobody
                self._on_error(error)
                return
            connection.sendall(_LENGTH.pack(len(answer)))
            connection.sendall(answer)


def ask(paths: Mapping[int, str], question: str, timeout_seconds: float) -> dict[int, bytes | Late]:
    """
    Ask several at once; return what those who are there have answered.

    Args:
        paths: By any number, which the answers have, too.
        timeout_seconds: For all of them together.
    """
    deadline = time.monotonic() + timeout_seconds
    answers: dict[int, bytes | Late] = {}
    with contextlib.ExitStack() as open_sockets, selectors.DefaultSelector() as selector:
        waiting = 0
        for number, path in paths.items():
            try:
                connection = open_sockets.enter_context(_connect(path, question))
            except BlockingIOError:  # more wait to be answered than the kernel keeps
                answers[number] = Late()
                continue
            except OSError:
                continue
            answers[number] = Late()
            selector.register(connection, selectors.EVENT_READ, (number, bytearray()))
            waiting += 1
        while waiting and (left_seconds := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left_seconds):
                number, received = key.data
                if _receive(key.fileobj, received):  # type: ignore[arg-type]  # only sockets are registered
                    continue
                selector.unregister(key.fileobj)
                waiting -= 1
                if _is_whole(received):
                    answers[number] = bytes(memoryview(received)[_LENGTH.size :])
                else:
                    del answers[number]  # it ended while it answered
    return answers


def _connect(path: str, question: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(path)
        connection.sendall(f"{question}\n".encode())  # it fits into any socket's buffer
    except BaseException:
        connection.close()
        raise
    return connection


def _receive(connection: socket.socket, received: bytearray) -> bool:
    """Take what has come; tell whether more may."""
    try:
        chunk = connection.recv(_CHUNK_BYTES)
    except OSError:
        return False
    received += chunk
    return bool(chunk) and len(received) <= _MAX_ANSWER_BYTES


def _is_whole(received: bytearray) -> bool:
    return len(received) >= _LENGTH.size and _LENGTH.unpack_from(received)[0] == len(received) - _LENGTH.size
