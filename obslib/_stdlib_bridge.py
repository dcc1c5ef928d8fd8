"""The standard library's way into the pipeline: a handler, in place of those that print by themselves."""

import logging
import sys
from typing import Final

from obslib._log_render import exception_values
from obslib._logs import LEVEL_NAMES, PIPELINES, RECORDED

#: Loggers that servers configure for themselves; their handlers give way to ours, so that each line comes out once.
_SERVER_LOGGERS: Final = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.asgi",
    "uvicorn.access",
    "gunicorn.error",
    "gunicorn.access",
)
#: Access logs that our access line replaces.
_REPLACED_LOGGERS: Final = frozenset({"uvicorn.access", "gunicorn.access"})
#: How uvicorn begins its lines about handshakes, which our access line replaces, and which have the query string.
_REPLACED_MESSAGES: Final = '%s - "WebSocket %s"'
_STDLIB_ATTRIBUTES: Final = frozenset(
    {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "taskName", "color_message"}
)


class BridgeHandler(logging.Handler):
    """Takes the standard library's records into the pipeline."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; never raises."""
        if record.name in _SERVER_LOGGERS and record.exc_info and RECORDED in vars(record.exc_info[1] or self):
            return
        if record.name == "uvicorn.error" and str(record.msg).startswith(_REPLACED_MESSAGES):
            return
        values = {key: value for key, value in record.__dict__.items() if key not in _STDLIB_ATTRIBUTES}
        if record.exc_info and record.exc_info[1] is not None:
            values.update(exception_values(record.exc_info[1]))
        if record.stack_info:
            values["stack"] = record.stack_info
        level = LEVEL_NAMES.get(record.levelname.lower(), record.levelname.lower())
        PIPELINES.current().emit(level, record.name, _message(record), values, int(record.created * 1e9))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 -- a caller's arguments may not fit, or raise in __str__
        return f"{record.msg!s} (its arguments could not be formatted: {type(error).__name__})"


class StdlibBridge:
    """Puts our handler in place of others: on the root logger, and on those that servers configure for themselves."""

    def __init__(self, level_number: int) -> None:
        self._level_number = level_number
        self._handler = BridgeHandler()
        self._before: dict[str, tuple[list[logging.Handler], int, bool, bool]] = {}
        self._captured_warnings = False

    def install(self) -> None:
        """Take over; call it again after a server has configured its own handlers."""
        root = logging.getLogger()
        if "" not in self._before:
            self._before[""] = (root.handlers[:], root.level, root.propagate, root.disabled)
            root.setLevel(self._level_number)
            self._captured_warnings = logging._warnings_showwarning is None  # type: ignore[attr-defined]  # noqa: SLF001
            logging.captureWarnings(capture=True)
        root.handlers[:] = [
            handler for handler in root.handlers if not _prints(handler) and handler is not self._handler
        ]
        root.addHandler(self._handler)
        for name in _SERVER_LOGGERS:
            logger = logging.getLogger(name)
            if name not in self._before:
                self._before[name] = (logger.handlers[:], logger.level, logger.propagate, logger.disabled)
            logger.handlers[:] = [handler for handler in logger.handlers if not _prints(handler)]
            logger.propagate = True
            logger.disabled = name in _REPLACED_LOGGERS

    def set_level(self, level_number: int) -> None:
        """Let lines of this level and above through, whichever logger they come from."""
        self._level_number = level_number
        if "" in self._before:
            logging.getLogger().setLevel(level_number)

    def uninstall(self) -> None:
        """Put everything back."""
        for name, (handlers, level, propagate, disabled) in self._before.items():
            logger = logging.getLogger(name)
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate
            logger.disabled = disabled
        if self._captured_warnings:
            logging.captureWarnings(capture=False)
        self._before.clear()


def _prints(handler: logging.Handler) -> bool:
    """Tell whether a handler writes to the terminal, as ours does; files, syslog and pytest's capture stay."""
    return type(handler) is logging.StreamHandler and getattr(handler, "stream", None) in {
        sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__,
    }  # fmt: skip
