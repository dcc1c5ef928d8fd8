"""The ids of a span as 48 hexadecimal digits, 32 of the trace and 16 of the span: what is written down are digits.

https://www.w3.org/TR/trace-context/#trace-id
"""

from collections.abc import Callable

from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import SpanContext

from obslib._random_digits import RandomDigits
from obslib._record import SPAN_DIGITS, TRACE_DIGITS

_draw = RandomDigits(TRACE_DIGITS + SPAN_DIGITS).draw


def make_root_ids(generator: IdGenerator) -> Callable[[], str]:
    """Return what makes the ids of a span in a new trace; with the SDK's own generator both are drawn at once."""
    if type(generator) is RandomIdGenerator:
        return _draw  # one in 2**64 is 0, which is no id: nobody will see it
    return lambda: f"{generator.generate_trace_id():032x}{generator.generate_span_id():016x}"


def make_child_ids(generator: IdGenerator) -> Callable[[SpanContext], str]:
    """Return what makes the ids of a span in its caller's trace."""
    if type(generator) is RandomIdGenerator:
        return lambda parent: f"{parent.trace_id:032x}{_draw()[TRACE_DIGITS:]}"
    return lambda parent: f"{parent.trace_id:032x}{generator.generate_span_id():016x}"


def digits_of(context: SpanContext) -> str:
    """Return the ids of a span that has a context; empty if they are none."""
    return f"{context.trace_id:032x}{context.span_id:016x}" if context.is_valid else ""
