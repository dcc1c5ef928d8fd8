"""What others took of the server's CPU during a stretch: other processes, and other machines on the same hardware."""

import os
from pathlib import Path
from typing import Final, Self

from benchmarks.children import LOAD_CPU, SERVER_CPU

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
#: The columns of a CPU in /proc/stat.
_USER, _NICE, _SYSTEM, _STEAL = 0, 1, 2, 7


class Disturbance:
    """Counts from the time it is made."""

    def __init__(self) -> None:
        self._before = _Taken.now()

    def seconds(self, own_cpu_seconds: float) -> float:
        """
        Return what others took so far.

        Args:
            own_cpu_seconds: What the measured server used meanwhile.
        """
        now = _Taken.now()
        others = now.busy_seconds - self._before.busy_seconds - own_cpu_seconds
        return max(0.0, others) + now.stolen_seconds - self._before.stolen_seconds


class _Taken:
    def __init__(self, busy_seconds: float, stolen_seconds: float) -> None:
        self.busy_seconds = busy_seconds
        self.stolen_seconds = stolen_seconds

    @classmethod
    def now(cls) -> Self:
        columns = {}
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
            name, _, ticks = line.partition(" ")
            columns[name] = ticks.split()
        server = columns[f"cpu{SERVER_CPU}"]
        return cls(
            sum(int(server[column]) for column in (_USER, _NICE, _SYSTEM)) / _TICKS_PER_SECOND,
            sum(int(columns[f"cpu{cpu}"][_STEAL]) for cpu in {SERVER_CPU, LOAD_CPU}) / _TICKS_PER_SECOND,
        )
