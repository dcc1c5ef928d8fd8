"""How much processor and memory this process may use: what its control groups allow, else what the machine has.

Control groups of both versions may lie one in another, and each may set a limit: the lowest one holds.
https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_ROOT: Final = Path("/")
_UNIFIED: Final = "cgroup2"


class ProcessLimits:
    """
    Reads the limits anew each time: those of a container can be changed while it runs.

    Args:
        root: Where `proc` and `sys` are.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root

    def cpu_cores(self) -> float:
        """Return how many cores' time the process may use, at least what its groups' quotas and its affinity allow."""
        cores = float(_usable_cores())
        for group in self._groups(_UNIFIED):
            quota, _, period = _read(group / "cpu.max").partition(" ")
            cores = min(cores, _number(quota) / _number(period))
        for group in self._groups("cpu"):
            quota = _read(group / "cpu.cfs_quota_us")
            if _number(quota) > 0:  # -1 is no limit
                cores = min(cores, _number(quota) / _number(_read(group / "cpu.cfs_period_us")))
        return cores

    def memory_bytes(self) -> float:
        """Return how many bytes the process may use before the kernel ends it, or those of the machine."""
        least = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        for kind, file in ((_UNIFIED, "memory.max"), ("memory", "memory.limit_in_bytes")):
            for group in self._groups(kind):
                least = min(least, _number(_read(group / file)))
        return least

    def _groups(self, kind: str) -> Iterator[Path]:
        """Yield the directories of the process' group and of those around it; none where there is no such hierarchy."""
        path = self._group_path(kind)
        mount = self._mount(kind)
        if path is None or mount is None:
            return
        mount_point, mounted = mount
        # In a container the mount shows a part of the tree only, which may or may not be what paths are relative to.
        inside = path.relative_to(mounted) if path.is_relative_to(mounted) else PurePosixPath()
        directory = mount_point / inside
        yield directory
        for _ in inside.parts:
            directory = directory.parent
            yield directory

    def _group_path(self, kind: str) -> PurePosixPath | None:
        for line in _read(self._root / "proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if kind in controllers.split(",") or (kind == _UNIFIED and not controllers):
                return PurePosixPath(path)
        return None

    def _mount(self, kind: str) -> tuple[Path, PurePosixPath] | None:
        """Return where a hierarchy is mounted, and which part of it; man 5 proc, mountinfo."""
        for line in _read(self._root / "proc/self/mountinfo").splitlines():
            before, _, after = line.partition(" - ")
            filesystem, *_, options = after.split()
            if filesystem == kind or (filesystem == "cgroup" and kind in options.split(",")):
                mounted, mount_point = before.split()[3:5]
                return self._root / mount_point.lstrip("/"), PurePosixPath(mounted)
        return None


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: Path) -> str:
    """Return a file's text; `""` where there is none, e.g. in a root group, which has no limits."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(text: str) -> float:
    """Return a number of the kernel's; infinity for `max` and for what is not there."""
    return float(text) if text.removeprefix("-").isdigit() else math.inf
