"""Several worker processes behind one `/metrics`: whichever is scraped answers for all of them.

Each has a slot, answers its siblings on a unix socket and writes its numbers down, every few seconds and before
anything is shown to anybody: what was shown never goes back, whoever is killed.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from obslib import names
from obslib._exposition import LONE_WORKER, PAUSE_SECONDS, Exposition
from obslib._foreign import Families, ForeignMetrics
from obslib._instruments import Counter, Instruments
from obslib._merge import merge
from obslib._worker_group import Group, base_directory, make_directory
from obslib._worker_slot import Snapshot, SnapshotError, file_path, lock, read_file, socket_path, take_slot, used_slots
from obslib._worker_sockets import Listener, ask
from obslib.exceptions import ConfigurationError

if TYPE_CHECKING:
    from obslib._metrics_server import MetricsServer

#: How much a SIGKILL may lose: what was counted since the last time, and that nobody was shown.
SAVE_INTERVAL_SECONDS: Final = 5.0
#: How long a scrape waits for siblings. Prometheus waits ten seconds for a scrape, unless it is told otherwise.
ANSWER_TIMEOUT_SECONDS: Final = 1.0
#: How long the port of the metrics may stay closed when the worker that had it is gone.
_PORT_INTERVAL_SECONDS: Final = 1.0
_MAX_LABEL_SETS: Final = 1 << 30

#: Inode, time of change and size: what tells one version of a slot's file from another.
_Version = tuple[int, int, int]


class Worker:
    """
    This process as one of several.

    Args:
        on_error: Told what went wrong; nothing of it stops the others.

    Raises:
        ConfigurationError: The workers cannot meet; the sentence says what to change.
    """

    def __init__(
        self,
        group: Group,
        chosen_directory: str | None,
        instruments: Instruments,
        foreign: ForeignMetrics,
        exposition: Exposition,
        *,
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._instruments = instruments
        self._foreign = foreign
        self._exposition = exposition
        self._on_error = on_error
        self._saving = threading.Lock()
        self._over = threading.Event()
        self._server: MetricsServer | None = None
        self._port_descriptor: int | None = None
        self._taking_port = threading.Lock()
        #: What the files of slots without an answer say, by slot, format and whether the worker is only late.
        self._shown: dict[tuple[int, str, bool], tuple[_Version, bytes]] = {}
        self._missed = _obtain_counter(
            instruments,
            names.WORKER_ANSWERS_MISSED,
            "Scrapes that a worker did not answer in time, so that its last numbers were shown.",
        )
        self._rejected = _obtain_counter(
            instruments,
            names.WORKER_SNAPSHOTS_REJECTED,
            "Files of worker slots that were torn or not understood, and left out.",
        )
        try:
            self._directory = make_directory(chosen_directory, group)
            self._slot = take_slot(self._directory)
            with ExitStack() as undos:
                undos.callback(self._slot.release)
                self._listener = Listener(self._slot.socket_path, self._answer, on_error, ANSWER_TIMEOUT_SECONDS)
                undos.pop_all()
        except OSError as error:
            raise ConfigurationError(
                f"The worker processes of a service meet in {base_directory(chosen_directory)}, which does not work: "
                f"{error.strerror or error}. Set OBSLIB_WORKER_DIRECTORY to a directory that this user can write and "
                "nobody else."
            ) from error
        self._go_on()
        exposition.join(str(self._slot.number), self)
        self._listener.start()
        threading.Thread(target=self._keep, name="obslib-worker-keeper", daemon=True).start()

    # --- what the exposition calls -----------------------------------------------------------------------------------

    def gather(self, content_type: str) -> list[bytes]:
        """Return what the siblings say, and what the files of those say that do not answer. Does not raise."""
        try:
            others = [number for number in used_slots(self._directory) if number != self._slot.number]
            answers = ask(
                {number: str(socket_path(self._directory, number)) for number in others},
                content_type,
                ANSWER_TIMEOUT_SECONDS,
            )
            texts = [self._unclaimed(content_type)]
            for number in others:
                answer = answers.get(number)
                if isinstance(answer, bytes):
                    texts.append(answer)
                    continue
                if answer is not None:
                    self._missed.inc()
                texts.append(self._read(number, content_type, is_late=answer is not None))
        except Exception as error:  # noqa: BLE001 -- the guard: this worker's own part of the answer must go out
            self._on_error(error)
            return []
        return texts

    def before_answer(self) -> None:
        """Write down what is going to be shown, so that it outlives this process. Does not raise."""
        try:
            self.save()
        except Exception as error:  # noqa: BLE001 -- the guard: a full disk must not fail a scrape
            self._on_error(error)

    # --- what the lifetime calls -------------------------------------------------------------------------------------

    def save(self) -> None:
        """
        Write down what was counted.

        Raises:
            OSError: It cannot be written.
        """
        with self._saving:
            if self._over.is_set():
                return
            carried = self._instruments.carried()
            own = [metric.save() for metric in self._instruments.all()]
            made = {saved.name for saved in own}
            own += [saved for saved in carried if saved.name not in made]
            self._slot.write(Snapshot(own, self._foreign.save()).to_bytes())

    def serve_port(self, server: "MetricsServer") -> None:
        """
        Serve the metrics on their own port, now or when the worker that does is gone.

        Raises:
            OSError: Somebody else has the port, and it is no worker of this group.
        """
        self._server = server
        self._take_port()

    def leave_port(self) -> None:
        """Serve the port no longer, and let another worker do it."""
        with self._taking_port:
            if self._server is not None:
                self._server.stop()
                self._server = None
            if self._port_descriptor is not None:
                os.close(self._port_descriptor)
                self._port_descriptor = None

    def leave(self) -> None:
        """Write everything down and leave the slot to a successor."""
        self.leave_port()
        self.before_answer()
        with self._saving:
            self._over.set()
        self._listener.close()
        self._slot.release()
        self._exposition.join(LONE_WORKER, None)

    def abandon(self) -> None:
        """In a fork's child, leave everything to the parent."""
        self._listener.abandon()
        self._slot.release()
        if self._port_descriptor is not None:
            os.close(self._port_descriptor)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Begin with what the slot's last worker had counted."""
        try:
            snapshot = read_file(file_path(self._directory, self._slot.number))
        except SnapshotError as error:
            self._reject(error)
            return
        if snapshot is not None:
            self._instruments.carry(snapshot.own)
            self._foreign.carry(snapshot.foreign)

    def _answer(self, content_type: str) -> bytes:
        """Say what this process has counted, with pauses in which requests pass."""
        parts = []
        for part in self._exposition.own_parts(content_type):
            parts.append(part)
            time.sleep(PAUSE_SECONDS)
        self.before_answer()
        return merge([b"".join(parts), self._unclaimed(content_type)], self._on_error)

    def _unclaimed(self, content_type: str) -> bytes:
        """Say what the slot's last worker had counted and this one has no metric for yet."""
        return _render(Snapshot(self._instruments.carried(), []), self._slot.number, content_type, self._on_error)

    def _read(self, number: int, content_type: str, *, is_late: bool) -> bytes:
        """Say what a slot's file says: everything if its worker is there, else what outlives it."""
        path = file_path(self._directory, number)
        try:
            found = path.stat()
        except FileNotFoundError:
            return b""
        version = (found.st_ino, found.st_mtime_ns, found.st_size)
        key = (number, content_type, is_late)
        known, text = self._shown.get(key, (None, b""))
        if known != version:
            text = self._read_anew(number, path, content_type, is_late=is_late)
            self._shown[key] = version, text
        return text

    def _read_anew(self, number: int, path: Path, content_type: str, *, is_late: bool) -> bytes:
        try:
            snapshot = read_file(path)
            if snapshot is None:
                return b""
            return _render(snapshot if is_late else snapshot.cumulative(), number, content_type, self._on_error)
        except (SnapshotError, ConfigurationError) as error:
            self._reject(error)
            return b""

    def _reject(self, error: Exception) -> None:
        self._rejected.inc()
        self._on_error(error)

    def _keep(self) -> None:
        next_save_seconds = time.monotonic() + SAVE_INTERVAL_SECONDS
        while not self._over.wait(_PORT_INTERVAL_SECONDS):
            try:
                self._take_port()
            except OSError as error:
                self._on_error(error)
            if time.monotonic() >= next_save_seconds:
                next_save_seconds = time.monotonic() + SAVE_INTERVAL_SECONDS
                self.before_answer()
                self._listener.keep()

    def _take_port(self) -> None:
        """Serve the port if there is one to serve and no sibling does."""
        with self._taking_port:
            if self._server is None or self._port_descriptor is not None:
                return
            descriptor = lock(self._directory / "port.lock")
            if descriptor is None:
                return
            try:
                self._server.start()
            except OSError:
                os.close(descriptor)
                raise
            self._port_descriptor = descriptor


def _render(snapshot: Snapshot, number: int, content_type: str, on_error: Callable[[BaseException], None]) -> bytes:
    instruments = Instruments(CollectorRegistry(), _MAX_LABEL_SETS, before_reading=lambda: None, on_error=on_error)
    for saved in snapshot.own:
        instruments.show(saved)
    foreign = ForeignMetrics([Families(snapshot.foreign)], on_error)
    exposition = Exposition(instruments, foreign, worker=str(number), token=None, on_error=on_error)
    return exposition.render(content_type)


def _obtain_counter(instruments: Instruments, name: str, documentation: str) -> Counter:
    """Return the counter of this name, which the parent of a fork may have made."""
    for made in instruments.all():
        if made.name == name and isinstance(made, Counter):
            return made
    return instruments.counter(name, documentation)
