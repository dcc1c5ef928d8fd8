"""The ids of a span as 48 hexadecimal digits, 32 of the trace and 16 of the span: what is written down are digits.

https://www.w3.org/TR/trace-context/#trace-id
"""

from collections.abc import Callable

from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import SpanContext

from obslib._random_digits import RandomDigits
from obslib._record import SPAN_DIGITS, TRACE_DIGITS

_draw = RandomDigits(TRACE_DIGITS + SPAN_DIGITS).draw

#: Makes the ids of a span: in the caller's trace, or in a new one.
NewIds = Callable[[SpanContext | None], str]


def make_new_ids(generator: IdGenerator) -> NewIds:
    """Return what makes ids with a generator; with the SDK's own, trace and span id are drawn at once."""
    if type(generator) is RandomIdGenerator:
        return random_ids

    def new_ids(parent: SpanContext | None) -> str:
        trace_id = generator.generate_trace_id() if parent is None else parent.trace_id
        return f"{trace_id:032x}{generator.generate_span_id():016x}"

    return new_ids


def random_ids(parent: SpanContext | None) -> str:
    """Return ids at random. One in 2**64 is 0, which is no id: nobody will see it."""
    digits = _draw()
    return digits if parent is None else f"{parent.trace_id:032x}{digits[TRACE_DIGITS:]}"


def digits_of(context: SpanContext) -> str:
    """Return the ids of a span that has a context; empty if they are none."""
    return f"{context.trace_id:032x}{context.span_id:016x}" if context.is_valid else ""
