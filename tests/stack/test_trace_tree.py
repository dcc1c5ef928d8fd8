"""A trace as people see it, from an answer of Jaeger's API."""

import json
from pathlib import Path

import pytest

from stack.terminal import Style
from stack.trace_tree import duration, render
from stack.traces import Span, parse

RECORDED = Path(__file__).with_name("recorded_trace.json")


@pytest.fixture
def spans() -> list[Span]:
    """An order whose payment failed, fulfilled by the worker, with one span whose parent never arrived."""
    return parse(json.loads(RECORDED.read_text()))


def test_a_trace_is_drawn_as_a_tree(spans: list[Span]) -> None:
    """Indentation, service, name, duration, place in time, status; an error's reason below it; lost spans on top."""
    assert render(spans, Style()).splitlines() == SNAPSHOT


def test_errors_are_marked_on_a_terminal(spans: list[Span]) -> None:
    """Red for what failed, and only for that."""
    red = [line for line in render(spans, Style(colours=True)).splitlines() if "\x1b[1;31m" in line]

    assert len(red) == 4
    assert "2 with an error" in red[0]


def test_one_span_is_one_span(spans: list[Span]) -> None:
    """The header counts in words that fit."""
    assert render(spans[:1], Style()).splitlines()[1].startswith("1 span  ·  shop  ·  143.2 ms")


def test_an_unknown_trace_has_no_spans() -> None:
    """What Jaeger answers for an id it does not know."""
    assert parse({"error": {"httpCode": 404, "message": "No traces found"}}) == []


def test_attributes_keep_their_types(spans: list[Span]) -> None:
    """A status code is a number in OTLP's text form and a number here."""
    assert spans[0].attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/orders",
        "http.response.status_code": 201,
    }
    assert spans[0].duration_ns == 143_214_567


@pytest.mark.parametrize(
    ("nanoseconds", "text"), [(900, "1 µs"), (812_000, "812 µs"), (14_240_000, "14.2 ms"), (1_380_000_000, "1.38 s")]
)
def test_durations_are_written_in_the_unit_that_reads_best(nanoseconds: int, text: str) -> None:
    """Microseconds, milliseconds, seconds."""
    assert duration(nanoseconds) == text


SNAPSHOT = """\
trace 4bf92f3577b34da6a3ce929d0e0e4736
6 spans  ·  payments, shop, worker  ·  206.0 ms  ·  2026-11-22 15:39:07 UTC  ·  2 with an error

  shop      POST /v1/orders                                 143.2 ms  ━━━━━━━━━━━━━━        201
  shop      ├─ PUT                                           25.0 ms    ━━                  503
  payments  │  └─ PUT /v1/authorisations/{order_id} with …   22.6 ms    ━━                  503
            │     ! PaymentsDown: the bank does not answer
  shop      └─ apply_async/demo_service.fulfil_order          812 µs                ━
  worker       └─ run/demo_service.fulfil_order              58.0 ms                ━━━━━━
  payments  a span whose parent was lost                        1 µs                    ━
""".splitlines()
