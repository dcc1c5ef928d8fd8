"""A trace worth looking at: the newest order that went through every service."""

import time
from typing import Final

from stack.errors import StackError
from stack.processes import SHOP, WORKER
from stack.traces import JaegerApi

_LOOK_SECONDS: Final = 8.0
_CANDIDATES: Final = 100


def example_trace(jaeger_url: str) -> str:
    """
    The id of a recent trace, best one that crosses from the shop to the worker; "" when there is none.

    Args:
        jaeger_url: Jaeger's address; "" when there is no Jaeger.

    """
    end = time.monotonic() + _LOOK_SECONDS
    found = ""
    while jaeger_url and time.monotonic() < end:
        try:
            complete, found = _newest(JaegerApi(jaeger_url))
        except StackError:
            complete = False
        if complete:
            return found
        time.sleep(0.5)
    return found


def _newest(jaeger: JaegerApi) -> tuple[bool, str]:
    crossed = jaeger.newest(WORKER, limit=_CANDIDATES)
    if crossed:
        return True, crossed[0]
    recent = jaeger.newest(SHOP, limit=_CANDIDATES)
    return False, recent[0] if recent else ""
