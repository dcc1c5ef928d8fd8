"""A worker's slot: a small number that one process has at a time, and the file its successor goes on from.

The lock ends with the process, however it ends. The file is replaced in one step and says its own length and checksum,
so that a reader sees a whole one or none.
"""

import fcntl
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from prometheus_client import Metric

from obslib._foreign import cumulative, from_saved, to_saved
from obslib._saved_metric import CUMULATIVE, SavedMetric
from obslib.exceptions import ConfigurationError

#: Bounds the label `worker`. A restart one by one needs at most two for each worker.
MAX_SLOTS: Final = 256
_MAGIC: Final = b"obslib-worker-1"
_FILE_MODE: Final = 0o600
_MAX_BYTES: Final = 256 * 1024 * 1024
#: What a path of a unix socket may have, the final zero left out.
_MAX_SOCKET_PATH_BYTES: Final = 107


class SnapshotError(Exception):
    """A file of a slot is torn, or none that this version has written."""


@dataclass(frozen=True)
class Snapshot:
    """What a worker has counted: obslib's metrics, and prometheus_client's."""

    own: list[SavedMetric]
    foreign: list[Metric]

    def to_bytes(self) -> bytes:
        """Return the content of a slot's file."""
        body = orjson.dumps({"own": self.own, "foreign": [to_saved(family) for family in self.foreign]})
        return b"%s %d %d\n%s" % (_MAGIC, len(body), zlib.crc32(body), body)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Snapshot":
        """
        Read the content of a slot's file.

        Raises:
            SnapshotError: It is not what `to_bytes` wrote.
        """
        head, _, body = data.partition(b"\n")
        if head != b"%s %d %d" % (_MAGIC, len(body), zlib.crc32(body)):
            raise SnapshotError("Its beginning does not fit its content.")
        try:
            saved = orjson.loads(body)
            own = [SavedMetric.from_json(metric) for metric in _items(saved, "own")]
            foreign = [from_saved(family) for family in _items(saved, "foreign")]
        except ValueError as error:
            raise SnapshotError(f"It is no snapshot: {error}") from error
        return cls(own, foreign)

    def cumulative(self) -> "Snapshot":
        """Return the part that outlives its process."""
        own = [metric for metric in self.own if metric.kind in CUMULATIVE]
        return Snapshot(own, [cumulative(family) for family in self.foreign])


class Slot:
    """The slot that this process has, until `release`."""

    def __init__(self, directory: Path, number: int, descriptor: int) -> None:
        self.number: Final = number
        self._directory = directory
        self._descriptor = descriptor

    @property
    def socket_path(self) -> str:
        """Where the worker answers its siblings."""
        return str(socket_path(self._directory, self.number))

    def write(self, data: bytes) -> None:
        """
        Replace the file.

        Raises:
            OSError: It cannot be written.
        """
        path = file_path(self._directory, self.number)
        new = path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, _FILE_MODE), "wb") as stream:
            stream.write(data)
        new.replace(path)
        # What clears old temporary files away goes by their age.
        os.utime(self._descriptor)

    def release(self) -> None:
        """Leave the slot to somebody else; the file stays."""
        os.close(self._descriptor)


def take_slot(directory: Path) -> Slot:
    """
    Take the lowest slot that is free.

    Raises:
        ConfigurationError: None is free, or a socket cannot have a path that long.
        OSError: The directory cannot be written.
    """
    longest = os.fsencode(socket_path(directory, MAX_SLOTS))
    if len(longest) > _MAX_SOCKET_PATH_BYTES:
        raise ConfigurationError(
            f"{longest.decode(errors='replace')} is longer than the path of a socket may be. Set "
            "OBSLIB_WORKER_DIRECTORY to a shorter one."
        )
    for number in range(MAX_SLOTS):
        descriptor = lock(directory / f"{number}.lock")
        if descriptor is not None:
            return Slot(directory, number, descriptor)
    raise ConfigurationError(f"All {MAX_SLOTS} worker slots are taken; run fewer workers under one supervisor.")


def socket_path(directory: Path, number: int) -> Path:
    """Return where the worker of a slot answers."""
    return directory / f"{number}.sock"


def file_path(directory: Path, number: int) -> Path:
    """Return where the numbers of a slot are."""
    return directory / f"{number}.metrics"


def used_slots(directory: Path) -> list[int]:
    """Return the slots that somebody has or had."""
    stems = (path.stem for path in directory.glob("*.lock"))
    return sorted(int(stem) for stem in stems if stem.isdecimal() and int(stem) < MAX_SLOTS)


def read_file(path: Path) -> Snapshot | None:
    """
    Return what a slot's file says; None if there is none.

    Raises:
        SnapshotError: It cannot be read or understood.
    """
    try:
        # Not blocking: a pipe in its place would keep the scrape for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as stream:
            data = stream.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SnapshotError(f"It cannot be read: {error.strerror}.") from error
    return Snapshot.from_bytes(data)


def lock(path: Path) -> int | None:
    """Open and lock a file; None if somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:  # or it was cleared away meanwhile
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _items(saved: Any, key: str) -> list[Any]:
    items = saved.get(key) if isinstance(saved, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"It has no list {key!r}.")
    return items
