"""The ids of a span as 24 bytes, 16 of the trace and 8 of the span: what is sent are bytes or digits, never numbers.

https://www.w3.org/TR/trace-context/#trace-id
"""

import random
from typing import Final, Protocol

from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import SpanContext

_SPAN_ID_BITS: Final = 64
_ANY_SPAN_ID: Final = (1 << _SPAN_ID_BITS) - 1


class NewIds(Protocol):
    """Makes the ids of a span."""

    def __call__(self, parent: SpanContext | None, known_trace_id: int, /) -> bytes:
        """Return them: in the caller's trace, else in one whose id is known (not 0), else in a new one."""


def make_new_ids(generator: IdGenerator) -> NewIds:
    """Return what makes ids with a generator; with the SDK's own, trace and span id are drawn at once."""
    draws_at_once = type(generator) is RandomIdGenerator

    def new_ids(parent: SpanContext | None, known_trace_id: int) -> bytes:
        if draws_at_once and parent is None and not known_trace_id:
            return random_ids()
        trace_id = parent.trace_id if parent is not None else known_trace_id or generator.generate_trace_id()
        return trace_id.to_bytes(16, "big") + generator.generate_span_id().to_bytes(8, "big")

    return new_ids


def random_ids() -> bytes:
    """Return the ids of a new trace's first span, neither of them 0."""
    ids = random.getrandbits(128 + _SPAN_ID_BITS)
    while not ids & _ANY_SPAN_ID or not ids >> _SPAN_ID_BITS:
        ids = random.getrandbits(128 + _SPAN_ID_BITS)  # pragma: no cover -- one in 2**64
    return ids.to_bytes(24, "big")


def ids_of(context: SpanContext) -> bytes:
    """Return the ids of a span that has a context."""
    return context.trace_id.to_bytes(16, "big") + context.span_id.to_bytes(8, "big")
