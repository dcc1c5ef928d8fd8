"""One log file a process: written by the process itself, set aside at start when it has grown."""

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from obslib import names

_LARGEST_BYTES: Final = 20 * 1024 * 1024
_KEPT: Final = 2


def rotate(path: Path, *, largest_bytes: int = _LARGEST_BYTES, kept: int = _KEPT) -> None:
    """Set a grown log aside as `.1`, `.2`, …; the oldest goes."""
    if not path.exists() or path.stat().st_size < largest_bytes:
        return
    for number in range(kept, 1, -1):
        older = path.with_name(f"{path.name}.{number - 1}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number}"))
    path.replace(path.with_name(f"{path.name}.1"))


def open_log(path: Path) -> IO[bytes]:
    """Open a process' log for appending, rotated when it has grown."""
    rotate(path)
    return path.open("ab")


def tail(path: Path, count: int) -> list[str]:
    """The last lines of a log that are not empty."""
    if not path.exists():
        return []
    with path.open(errors="replace") as file:
        return list(deque((line.rstrip("\n") for line in file if line.strip()), maxlen=count))


def lines_of_trace(directory: Path, trace_id: str) -> Iterator[tuple[str, str]]:
    """
    Every line of every process that carries a trace id, oldest first.

    Yields:
        The process' name and the line.

    """
    found = [line for path in sorted(directory.glob("*.log")) for line in _lines_of_trace(path, trace_id)]
    for _, name, line in sorted(found):
        yield name, line


def _lines_of_trace(path: Path, trace_id: str) -> Iterator[tuple[str, str, str]]:
    with path.open(errors="replace") as file:
        for line in file:
            if trace_id in line and (fields := parse(line)).get(names.LOG_TRACE_ID) == trace_id:
                yield str(fields.get(names.LOG_TIMESTAMP, "")), path.stem, line.rstrip("\n")


def parse(line: str) -> dict[str, object]:
    """A JSON line's fields; none when the line is something else."""
    if not line.startswith("{"):
        return {}
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
