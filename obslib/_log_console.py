"""One log event → one line of text for people."""

from collections.abc import Callable
from typing import Any

import structlog

from obslib import names
from obslib._log_render import plain


class ConsoleRenderer:
    """
    Renders for people: structlog's console renderer without the keys that only machines need.

    Args:
        hide: Hides secrets in what becomes text only here.
    """

    def __init__(self, hide: Callable[[str], str]) -> None:
        self._hide = hide
        self._renderer = structlog.dev.ConsoleRenderer(sort_keys=False)

    def __call__(self, values: dict[str, Any]) -> bytes:
        """Return one event as a line of text, with its stack trace below."""
        shown = {key: value for key, value in values.items() if key != names.LOG_SERVICE and value != ""}
        stacktrace = shown.pop(names.LOG_EXCEPTION_STACKTRACE, None)
        text = self._renderer(None, str(values.get(names.LOG_LEVEL, "")), plain(shown, self._hide))
        if stacktrace:
            text = f"{text}\n{stacktrace.rstrip()}"
        return f"{text}\n".encode("utf-8", "replace")
