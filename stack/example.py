"""A trace worth looking at: the newest order that went through every service."""

import time
from contextlib import closing, suppress
from typing import Final

from stack.errors import StackError
from stack.processes import PAYMENTS, SHOP, WORKER
from stack.traces import JaegerApi

_LOOK_SECONDS: Final = 8.0
_ALL: Final = {SHOP, PAYMENTS, WORKER}


def example_trace(jaeger_url: str) -> str:
    """
    The id of a recent trace, at best one with spans of all services; "" when there is none.

    Args:
        jaeger_url: Jaeger's address; "" when there is no Jaeger.

    """
    if not jaeger_url:
        return ""
    end = time.monotonic() + _LOOK_SECONDS
    found = ""
    with closing(JaegerApi(jaeger_url)) as jaeger:
        while time.monotonic() < end:
            with suppress(StackError):
                is_complete, found = _newest(jaeger)
                if is_complete:
                    break
            time.sleep(0.5)
    return found


def _newest(jaeger: JaegerApi) -> tuple[bool, str]:
    orders = jaeger.newest(PAYMENTS)
    for spans in orders:
        if {span.service for span in spans} >= _ALL:
            return True, spans[0].trace_id
    recent = orders or jaeger.newest(SHOP)
    return False, recent[0][0].trace_id if recent else ""
