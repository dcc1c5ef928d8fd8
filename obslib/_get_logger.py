"""`obslib.get_logger()`, which imports structlog only where somebody logs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def get_logger(name: str = "", /, **values: Any) -> "FilteringBoundLogger":
    """
    Return a structlog logger whose lines carry the ids of the request and span they are logged in.

    Log events, not sentences: `log.info("order_rejected", reason=…)`. Works before `instrument()`, and follows it.

    Args:
        name: Comes out under the key `logger`; usually `__name__`.
        **values: Come out on every line of this logger.
    """
    from obslib._structlog import make_logger  # noqa: PLC0415 -- with rich, structlog takes longer than all of obslib

    return make_logger(name, values)
