"""Limits that telemetry would notice first: open files, CPU and memory of the control group, the disk under stdout."""

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from obslib._doctor.report import Fact, Finding
from obslib._limits import ProcessLimits
from obslib.settings import Settings

_MIB: Final = 1 << 20
_MIN_OPEN_FILES: Final = 1024
_MIN_FREE_BYTES: Final = 1 << 30
#: Of the memory limit the buffers may take one part in so many.
_BUFFERS_SHARE: Final = 10


class Limits(NamedTuple):
    """What this process may use."""

    #: None where there is no limit.
    open_files: int | None
    cpu_cores: float
    memory_bytes: float
    #: Free space below stdout; None where that is no file.
    stdout_free_bytes: int | None


def read_limits(root: Path = Path("/")) -> Limits:
    """
    Return the limits of this process.

    Args:
        root: See `ProcessLimits`.
    """
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    process = ProcessLimits(root)
    return Limits(
        open_files=None if soft == resource.RLIM_INFINITY else soft,
        cpu_cores=process.cpu_cores(),
        memory_bytes=process.memory_bytes(),
        stdout_free_bytes=_stdout_free_bytes(),
    )


def facts(limits: Limits) -> list[Fact]:
    """Return the limits as people read them."""
    return [
        Fact(name="open_files", value="no limit" if limits.open_files is None else str(limits.open_files)),
        Fact(name="cpu_cores", value=f"{limits.cpu_cores:g}"),
        Fact(name="memory", value=f"{limits.memory_bytes / _MIB:.0f} MiB"),
        Fact(
            name="stdout",
            value="no file"
            if limits.stdout_free_bytes is None
            else f"file, {limits.stdout_free_bytes // _MIB} MiB free",
        ),
    ]


def limit_findings(limits: Limits, settings: Settings | None) -> Iterator[Finding]:
    """Say which limits are close."""
    if limits.open_files is not None and limits.open_files < _MIN_OPEN_FILES:
        yield Finding(
            level="warning",
            code="few_open_files",
            what=f"This process may open {limits.open_files} files; connections count, too.",
            fix=f"Raise the limit to {_MIN_OPEN_FILES} or more: ulimit -n, LimitNOFILE=, --ulimit.",
        )
    if settings is not None:
        buffers = settings.log_buffer_bytes + settings.span_queue_max_bytes
        if buffers * _BUFFERS_SHARE > limits.memory_bytes:
            yield Finding(
                level="warning",
                code="little_memory",
                what=f"The buffers may take {buffers // _MIB} MiB in each process, of a limit of "
                f"{limits.memory_bytes / _MIB:.0f} MiB.",
                fix="Lower OBSLIB_LOG_BUFFER_BYTES and OBSLIB_SPAN_QUEUE_MAX_BYTES, or raise the limit.",
            )
    if limits.stdout_free_bytes is not None and limits.stdout_free_bytes < _MIN_FREE_BYTES:
        yield Finding(
            level="warning",
            code="disk_almost_full",
            what=f"Log lines go to a file whose disk has {limits.stdout_free_bytes // _MIB} MiB left.",
            fix="Make room, and rotate the file.",
        )


def _stdout_free_bytes() -> int | None:
    try:
        if not stat.S_ISREG(os.fstat(1).st_mode):
            return None
        disk = os.fstatvfs(1)
    except OSError:  # closed
        return None
    return disk.f_bavail * disk.f_frsize
