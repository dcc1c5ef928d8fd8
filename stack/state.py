"""The state directory: what one stack keeps on disk, and the lock that makes it the only one there."""

import fcntl
import hashlib
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from stack.errors import StackError

ROOT: Final = Path(__file__).resolve().parents[1]
DEFAULT_STATE: Final = ROOT / ".stack"

# A unix socket's path may have 107 bytes, and HAProxy binds to the path plus a suffix before it renames.
_LONGEST_RUN_PATH: Final = 70


@dataclass(frozen=True, kw_only=True)
class StateDirectory:
    """
    The paths of one stack.

    `run/` (0700) has sockets, secrets and the lock, `config/` what the programs read, `data/` what they keep, `logs/`
    one file a process.
    """

    path: Path

    @classmethod
    def at(cls, path: Path | None) -> Self:
        return cls(path=(path or DEFAULT_STATE).absolute())

    @property
    def run(self) -> Path:
        here = self.path / "run"
        if len(os.fsencode(here)) <= _LONGEST_RUN_PATH:
            return here
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"obslib-stack-{os.getuid()}-{digest}"

    @property
    def config(self) -> Path:
        return self.path / "config"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def haproxy_socket(self) -> Path:
        return self.run / "haproxy.sock"

    @property
    def faults_token(self) -> Path:
        return self.run / "faults-token"

    @property
    def services_targets(self) -> Path:
        return self.config / "targets" / "services.json"

    @property
    def platform_targets(self) -> Path:
        return self.config / "targets" / "platform.json"

    @property
    def alertmanager_targets(self) -> Path:
        return self.config / "targets" / "alertmanagers.json"

    @property
    def autoscaler_targets(self) -> Path:
        return self.config / "targets" / "autoscaler.json"

    @property
    def webhook_token(self) -> Path:
        return self.run / "webhook-token"

    @property
    def operator_token(self) -> Path:
        return self.run / "operator-token"

    @property
    def notifications(self) -> Path:
        return self.logs / "notifications.log"

    def create(self) -> None:
        """Make the directories; `run/` belongs to this user alone."""
        for directory in (self.config / "targets", self.data, self.logs):
            directory.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self.run.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise StackError(f"{self.run} belongs to someone else. Choose another place with --state-dir.")
        self.run.chmod(0o700)

    def write_secret(self, path: Path, text: str) -> None:
        """Write a file that only this user can read, also while it is being written."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)

    def new_secret(self, path: Path) -> str:
        """Write a fresh random secret to `path` and return it."""
        value = secrets.token_urlsafe(24)
        self.write_secret(path, value + "\n")
        return value


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


class Lock:
    """
    Held by the supervisor for its whole life; the kernel lets it go however the process ends.

    Args:
        state: the directory to be the only stack in.

    Raises:
        StackError: another supervisor holds it.

    """

    def __init__(self, state: StateDirectory) -> None:
        self._path = state.run / "lock"
        self._file = self._path.open("a+")
        self._path.chmod(0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            pid = self._file.read().strip() or "?"
            self._file.close()
            option = "" if state.path == DEFAULT_STATE else f" --state-dir {state.path}"
            raise StackError(
                f"A stack already runs here (process {pid}, {state.path}).\n"
                f"  see it    python -m stack{option} status\n"
                f"  stop it   python -m stack{option} stop"
            ) from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        self._file.truncate(0)
        self._file.close()
