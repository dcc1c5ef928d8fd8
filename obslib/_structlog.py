"""structlog's way into the pipeline: `obslib.get_logger()`, and structlog's own `get_logger()` once configured."""

import logging
from collections.abc import Callable
from typing import Any, Final, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from obslib._logs import LEVEL_NAMES, PIPELINES


def _emit(_logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """Hand an event to the pipeline it belongs to: the one processor that ends the chain."""
    event = event_dict.pop("event", "")
    logger_name = event_dict.pop("logger", "")
    PIPELINES.current().log(LEVEL_NAMES.get(method_name, method_name), logger_name, event, event_dict)
    raise structlog.DropEvent


PROCESSORS: Final = [structlog.contextvars.merge_contextvars, _emit]
#: The logger below structlog's is never called: the last processor has written the line and drops the event.
_OUTPUT: Final = object()


def make_logger(name: str, values: dict[str, Any]) -> FilteringBoundLogger:
    """Return a logger with these values; see `obslib.get_logger`."""
    logger = structlog.wrap_logger(
        _OUTPUT, processors=PROCESSORS, wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET)
    )
    return cast(FilteringBoundLogger, logger.bind(logger=name, **values))


def configure_structlog() -> Callable[[], None]:
    """Send the lines of `structlog.get_logger()` through obslib; return the undo."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(
        processors=PROCESSORS,
        # The pipeline filters: its level can change while the service runs, and these loggers are kept.
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        context_class=dict,
        logger_factory=lambda *_args: _OUTPUT,
        cache_logger_on_first_use=True,
    )

    def undo() -> None:
        if before is None:
            structlog.reset_defaults()
        else:
            structlog.configure(**before)

    return undo
