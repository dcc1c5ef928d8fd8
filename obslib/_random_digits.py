"""Random hexadecimal digits for ids: many texts are made at once, so that most requests only take one."""

import os
import re
from typing import Final

#: So many that the call into the kernel is nothing for one, so few that nobody waits for them.
_TEXTS_AT_ONCE: Final = 64


class RandomDigits:
    """
    Draws texts of random hexadecimal digits from the operating system, so that no `random.seed` repeats an id.

    Args:
        count: How many digits a text has; an even number.
    """

    def __init__(self, count: int) -> None:
        self._bytes_at_once = _TEXTS_AT_ONCE * count // 2
        self._split = re.compile(f".{{{count}}}").findall
        self._texts: list[str] = []
        os.register_at_fork(after_in_child=self._texts.clear)  # the parent draws them

    def draw(self) -> str:
        """Return a text that nobody has had."""
        try:
            return self._texts.pop()
        except IndexError:
            return self._draw_more()

    def _draw_more(self) -> str:
        texts = self._split(os.urandom(self._bytes_at_once).hex())
        text: str = texts.pop()
        self._texts += texts
        return text
