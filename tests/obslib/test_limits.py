"""What a process may use, read from trees of control groups as kernels and container engines lay them out."""

import math
import os
from pathlib import Path

import pytest

from obslib import _limits
from obslib._limits import ProcessLimits

MEBIBYTE = 1024 * 1024
HOST_CORES = 8
HOST_BYTES = 16 * 1024 * MEBIBYTE

V2_MOUNT = "31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "40 32 0:30 /docker/c1 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    "41 32 0:31 /docker/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
)


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a known size."""
    sizes = {"SC_PHYS_PAGES": HOST_BYTES // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(HOST_CORES)))


def limits_of(root: Path, files: dict[str, str]) -> tuple[float, float]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    limits = ProcessLimits(root)
    return limits.cpu_cores(), limits.memory_bytes()


def test_container_with_cgroup_v2(tmp_path: Path) -> None:
    """In a container of cgroup v2 the mount shows the container's own group."""
    assert limits_of(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": f"{512 * MEBIBYTE}\n",
        },
    ) == (1.5, 512 * MEBIBYTE)


def test_lowest_limit_of_nested_groups_holds(tmp_path: Path) -> None:
    """A group without a limit is bound by the groups around it; the root group has no such files."""
    assert limits_of(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/shop.service\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/system.slice/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/system.slice/memory.max": f"{64 * MEBIBYTE}\n",
            "sys/fs/cgroup/system.slice/shop.service/cpu.max": "max 100000\n",
            "sys/fs/cgroup/system.slice/shop.service/memory.max": "max\n",
        },
    ) == (0.5, 64 * MEBIBYTE)


def test_container_with_cgroup_v1(tmp_path: Path) -> None:
    """In a container of cgroup v1 the paths are the host's, and the mounts begin at the container's group."""
    assert limits_of(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/c1\n3:cpu,cpuacct:/docker/c1\n1:name=systemd:/docker/c1\n",
            "proc/self/mountinfo": V1_MOUNTS,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "25000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{256 * MEBIBYTE}\n",
        },
    ) == (0.25, 256 * MEBIBYTE)


def test_group_inside_a_container(tmp_path: Path) -> None:
    """What the mount shows begins at the container's group; a group in there is found by the rest of its path."""
    assert limits_of(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/c1/inner\n",
            "proc/self/mountinfo": V1_MOUNTS,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{256 * MEBIBYTE}\n",
            "sys/fs/cgroup/memory/inner/memory.limit_in_bytes": f"{128 * MEBIBYTE}\n",
        },
    ) == (HOST_CORES, 128 * MEBIBYTE)


def test_cgroup_v1_without_limits(tmp_path: Path) -> None:
    """cgroup v1 says "no limit" as -1, and as a number of bytes that no machine has."""
    assert limits_of(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/elsewhere\n3:cpu,cpuacct:/elsewhere\n",
            "proc/self/mountinfo": V1_MOUNTS,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    ) == (HOST_CORES, HOST_BYTES)


@pytest.mark.parametrize(
    "files",
    [{}, {"proc/self/cgroup": "0::/\n"}, {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2_MOUNT}],
    ids=["no proc", "no mount", "no limits"],
)
def test_host_without_groups(tmp_path: Path, files: dict[str, str]) -> None:
    """Where no group limits anything, the machine does."""
    assert limits_of(tmp_path, files) == (HOST_CORES, HOST_BYTES)


def test_a_limit_that_changes_is_seen(tmp_path: Path) -> None:
    """A container can be resized while it runs: nothing is remembered."""
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": V2_MOUNT,
        "sys/fs/cgroup/cpu.max": "100000 100000",
        "sys/fs/cgroup/memory.max": f"{MEBIBYTE}",
    }
    limits_of(tmp_path, files)
    limits = ProcessLimits(tmp_path)
    seen = [(limits.cpu_cores(), limits.memory_bytes())]
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("200000 100000")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{2 * MEBIBYTE}")
    seen.append((limits.cpu_cores(), limits.memory_bytes()))
    assert seen == [(1.0, MEBIBYTE), (2.0, 2 * MEBIBYTE)]


def test_machine_without_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS knows no affinity: all cores there are."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert ProcessLimits(tmp_path).cpu_cores() == 4


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, whatever the control groups: no more than the machine, and more than nothing."""
    monkeypatch.undo()
    limits = _limits.ProcessLimits()
    assert 0 < limits.cpu_cores() <= (os.cpu_count() or math.inf)
    assert MEBIBYTE < limits.memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
