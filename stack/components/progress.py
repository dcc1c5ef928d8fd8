"""One line a step, with the time it took; on a terminal the seconds tick."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

_WIDTH: Final = 12


class Progress:
    """
    Prints what is being installed.

    Args:
        stream: where to; a terminal gets a ticking line, anything else one line at the start and one at the end.

    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._ticks = self._stream.isatty()

    def line(self, title: str, text: str) -> None:
        """Print a finished line."""
        self._stream.write(f"  {title:<{_WIDTH}} {text}\n")
        self._stream.flush()

    @contextmanager
    def step(self, title: str, text: str) -> Iterator[None]:
        """Show a step while it runs; the caller prints its outcome with `line`."""
        if not self._ticks:
            self.line(title, f"{text} …")
            yield
            return
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(title, text, done), daemon=True)
        ticker.start()
        try:
            yield
        finally:
            done.set()
            ticker.join()
            self._stream.write("\r\x1b[K")

    def _tick(self, title: str, text: str, done: threading.Event) -> None:
        started = time.monotonic()
        while True:
            self._stream.write(f"\r\x1b[K  {title:<{_WIDTH}} {text} … {elapsed(time.monotonic() - started)}")
            self._stream.flush()
            if done.wait(1):
                return


def elapsed(seconds: float) -> str:
    """A duration for a person: `4.2 s`, `5 min 09 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
