"""Which processes are the workers of one service, and the private directory they meet in.

Workers are the children of one supervisor. A parent that merely is the same (a shell, systemd, a program that starts
two services) makes no group: uvicorn and gunicorn are recognised by what the main thread runs inside of, others by
`Settings.worker_group`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import sys
import tempfile
import threading
from pathlib import Path
from typing import Final, NamedTuple

#: Module and function that the main thread of a server's worker is in, whichever class of workers it is.
_UVICORN: Final = ("uvicorn._subprocess", "subprocess_started")
_GUNICORN: Final = ("gunicorn.arbiter", "spawn_worker")
_DIRECTORY_MODE: Final = 0o700
_OTHERS: Final = 0o077
_WRITABLE_BY_OTHERS: Final = 0o022
_GROUP_NAME: Final = re.compile(r"(\d+)-(\d*)-[0-9a-f]{16}")
#: Where /proc/<pid>/stat has the start time, counted from behind the command's name.
_START_TIME_FIELD: Final = 19


class Group(NamedTuple):
    """The children of one supervisor that belong to one service."""

    supervisor_pid: int
    #: In clock ticks since the machine's start, so that nobody takes a later process for it; "" where nothing tells.
    supervisor_start: str
    digest: str

    @property
    def directory_name(self) -> str:
        """A name that says whose it is, so that anybody can tell when it is nobody's any more."""
        return f"{self.supervisor_pid}-{self.supervisor_start}-{self.digest}"


def find_group(group_name: str, service_name: str, ordinal: int) -> Group | None:
    """
    Return the group that this process belongs to, if any.

    Args:
        group_name: Makes the children of any parent a group.
        ordinal: Tells the applications of one process apart.
    """
    if not group_name and not _is_servers_worker():
        return None
    pid = os.getppid()
    machine = [_read("/proc/sys/kernel/random/boot_id"), _read_link("/proc/self/ns/pid")]
    key = json.dumps([group_name, service_name, ordinal, *machine])
    return Group(pid, start_time(pid), hashlib.sha256(key.encode()).hexdigest()[:16])


def start_time(pid: int) -> str:
    """Return when a process has started, in clock ticks since the machine's start; "" if nothing tells."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[_START_TIME_FIELD] if len(fields) > _START_TIME_FIELD else ""


def make_directory(chosen: str | None, group: Group) -> Path:
    """
    Return the directory of a group, made if need be, and clear away those of supervisors that are gone.

    Args:
        chosen: What the groups' directories are in; `obslib-<uid>` among the temporary files if None.

    Raises:
        OSError: It cannot be made, or somebody else could write there.
    """
    base = base_directory(chosen)
    with contextlib.suppress(FileExistsError):
        base.mkdir(mode=_DIRECTORY_MODE, parents=chosen is not None)
    check_base_directory(chosen)
    directory = base / group.directory_name
    _make_private(directory)
    for other in base.iterdir():
        if other != directory:
            remove_if_abandoned(other)
    return directory


def base_directory(chosen: str | None) -> Path:
    """Return what the groups' directories are in."""
    return Path(chosen or Path(tempfile.gettempdir(), f"obslib-{os.geteuid()}"))


def check_base_directory(chosen: str | None) -> None:
    """
    Look at a base directory that exists: what others can write is no place to meet, unless it is like /tmp.

    Raises:
        OSError: It is not usable, or nobody may look.
    """
    base = base_directory(chosen)
    if chosen is None:
        _check_private(base)
        return
    mode = base.stat().st_mode
    if mode & _WRITABLE_BY_OTHERS and not mode & stat.S_ISVTX:
        raise PermissionError(f"others can write {base}")


def remove_if_abandoned(directory: Path) -> None:
    """Remove the directory of a group whose supervisor is gone, and of whose workers none is left."""
    matched = _GROUP_NAME.fullmatch(directory.name)
    if matched is None or _is_alive(int(matched[1]), matched[2]):
        return
    # Others may be at it, too: whatever is gone already is well, and what is locked or somebody else's stays.
    with contextlib.suppress(OSError), contextlib.ExitStack() as locked:
        _check_private(directory)
        for lock in directory.glob("*.lock"):
            descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            locked.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def _make_private(directory: Path) -> None:
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=_DIRECTORY_MODE)
    _check_private(directory)


def _check_private(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
        raise PermissionError(f"{directory} is no directory of this user alone")


def _is_alive(pid: int, start: str) -> bool:
    """Whether a process runs; where it cannot be looked at, whether any of this number does."""
    started = start_time(pid)
    if started and start:
        return started == start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_servers_worker() -> bool:
    """Whether this is a worker process of uvicorn or gunicorn."""
    if "multiprocessing.process" in sys.modules:  # or nothing can have started us with it
        from multiprocessing import parent_process  # noqa: PLC0415

        parent = parent_process()
        if parent is not None:
            # The child that a worker forks inherits both the object and the frames.
            return parent.pid == os.getppid() and _is_main_thread_in(*_UVICORN)
    return "gunicorn.arbiter" in sys.modules and _is_main_thread_in(*_GUNICORN)


def _is_main_thread_in(module: str, function: str) -> bool:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 -- documented in spite of its name
    while frame is not None:
        if frame.f_code.co_name == function and frame.f_globals.get("__name__") == module:
            return True
        frame = frame.f_back
    return False


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _read_link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
