"""Colours where a terminal shows them, plain text everywhere else."""

import os
import sys
from dataclasses import dataclass
from typing import Self, TextIO


@dataclass(frozen=True)
class Style:
    """Marks text; with `colours` off it returns the text as it is."""

    colours: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> Self:
        """Colours on a terminal, unless NO_COLOR is set (https://no-color.org)."""
        return cls(colours=stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")

    def strong(self, text: str) -> str:
        return self._mark("1", text)

    def faint(self, text: str) -> str:
        return self._mark("2", text)

    def good(self, text: str) -> str:
        return self._mark("32", text)

    def error(self, text: str) -> str:
        return self._mark("1;31", text)

    def service(self, text: str) -> str:
        return self._mark("36", text)

    def bar(self, text: str) -> str:
        return self._mark("34", text)

    def _mark(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colours and text.strip() else text


def say(text: str = "") -> None:
    """Print a line to standard output at once."""
    print(text, flush=True)


def complain(text: str) -> None:
    """Print an error to standard error."""
    style = Style.of(sys.stderr)
    print(f"{style.error('error:')} {text}", file=sys.stderr, flush=True)
