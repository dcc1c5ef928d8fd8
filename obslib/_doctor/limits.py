"""Limits that telemetry would notice first: open files, CPU and memory of the control group, the disk under stdout."""

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from obslib._doctor.report import Fact, Finding
from obslib.settings import Settings

_MIB: Final = 1 << 20
_MIN_OPEN_FILES: Final = 1024
_MIN_FREE_BYTES: Final = 1 << 30
#: Of the memory limit the buffers may take one part in so many.
_BUFFERS_SHARE: Final = 10
_UNLIMITED_BYTES: Final = 1 << 60


class Limits(NamedTuple):
    """What this process may use; None where there is no limit, or none can be read."""

    open_files: int | None
    cpu_cores: float | None
    memory_bytes: int | None
    #: Free space below stdout; None where that is no file.
    stdout_free_bytes: int | None


def read_limits(cgroup_root: Path = Path("/sys/fs/cgroup"), cgroup_of: Path = Path("/proc/self/cgroup")) -> Limits:
    """
    Return the limits of this process.

    Args:
        cgroup_root: Where control groups, of version 2 or 1, are mounted.
        cgroup_of: The file that names this process' groups.
    """
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    groups = _group_directories(cgroup_root, cgroup_of)
    return Limits(
        open_files=None if soft == resource.RLIM_INFINITY else soft,
        cpu_cores=min((cores for group in groups for cores in _cpu_cores(group)), default=None),
        memory_bytes=min((limit for group in groups for limit in _memory_bytes(group)), default=None),
        stdout_free_bytes=_stdout_free_bytes(),
    )


def facts(limits: Limits) -> list[Fact]:
    """Return the limits as people read them."""
    return [
        Fact(name="open_files", value=_shown(limits.open_files, 1, "")),
        Fact(name="cpu_cores", value=_shown(limits.cpu_cores, 1, "")),
        Fact(name="memory", value=_shown(limits.memory_bytes, _MIB, " MiB")),
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
    if settings is not None and limits.memory_bytes is not None:
        buffers = settings.log_buffer_bytes + settings.span_queue_max_bytes
        if buffers * _BUFFERS_SHARE > limits.memory_bytes:
            yield Finding(
                level="warning",
                code="little_memory",
                what=f"The buffers may take {buffers // _MIB} MiB in each process, of a limit of "
                f"{limits.memory_bytes // _MIB} MiB.",
                fix="Lower OBSLIB_LOG_BUFFER_BYTES and OBSLIB_SPAN_QUEUE_MAX_BYTES, or raise the limit.",
            )
    if limits.stdout_free_bytes is not None and limits.stdout_free_bytes < _MIN_FREE_BYTES:
        yield Finding(
            level="warning",
            code="disk_almost_full",
            what=f"Log lines go to a file whose disk has {limits.stdout_free_bytes // _MIB} MiB left.",
            fix="Make room, and rotate the file.",
        )


def _group_directories(root: Path, cgroup_of: Path) -> list[Path]:
    """Return where this process' limits stand, and those of the groups around it."""
    directories = {root, root / "cpu", root / "cpu,cpuacct", root / "memory"}
    for line in _read(cgroup_of).splitlines():
        _, controllers, path = line.split(":", 2)
        mounted = root / controllers if controllers else root
        group = mounted / path.lstrip("/")
        directories.update({group, *(parent for parent in group.parents if parent.is_relative_to(mounted))})
    return sorted(directories)


def _cpu_cores(group: Path) -> Iterator[float]:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    if not quota:
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal():
        yield int(quota) / int(period)


def _memory_bytes(group: Path) -> Iterator[int]:
    text = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
    if text.isdecimal() and int(text) < _UNLIMITED_BYTES:
        yield int(text)


def _read(path: Path) -> str:
    """Return a file's text; nothing where there is no such file, as on other systems, or it is not for us."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _stdout_free_bytes() -> int | None:
    try:
        if not stat.S_ISREG(os.fstat(1).st_mode):
            return None
        disk = os.fstatvfs(1)
    except OSError:  # closed
        return None
    return disk.f_bavail * disk.f_frsize


def _shown(limit: float | None, unit: int, name: str) -> str:
    return "no limit" if limit is None else f"{limit / unit:.10g}{name}"
