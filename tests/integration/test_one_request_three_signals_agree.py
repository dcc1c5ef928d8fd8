"""The heart: one order, seen as a metric's exemplar, as a trace and as log lines, is the same order in all three."""

import time
import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from obslib import names
from stack.processes import PAYMENTS, SHOP, WORKER
from stack.traces import Span
from tests.integration.running import RunningStack, eventually

SERVER = 2
CONTRIB_TOLERANCE_SECONDS = 0.005


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What each signal says about one request to one service."""

    labels: dict[str, str]
    exemplar: dict[str, Any]
    span: Span
    line: dict[str, Any]

    @property
    def exemplar_seconds(self) -> float:
        return float(self.exemplar["value"])

    @property
    def line_seconds(self) -> float:
        return float(self.line[names.LOG_DURATION])


def observed(stack: RunningStack, service: str, method: str, since: float) -> Observed:
    """Follow the way an SRE goes: from the exemplar to the trace, from the trace to the lines."""
    selector = (
        f"{names.HTTP_SERVER_REQUEST_DURATION}_bucket"
        f'{{{names.LABEL_SERVICE}="{service}",{names.LABEL_METHOD}="{method}"}}'
    )
    (series,) = eventually(lambda: stack.exemplars(selector, since=since), f"an exemplar of {service}")
    (exemplar,) = series["exemplars"]
    trace_id = exemplar["labels"][names.EXEMPLAR_TRACE_ID]
    spans = stack.complete_trace(trace_id, {SHOP, PAYMENTS, WORKER})
    (span,) = [span for span in spans if span.service == service and span.kind == SERVER]
    fields = {names.LOG_TRACE_ID: trace_id, names.LOG_EVENT: names.ACCESS_EVENT}
    (line,) = eventually(lambda: stack.log_lines(service, **fields), f"an access line of {service} with the trace id")
    return Observed(labels=series["seriesLabels"], exemplar=exemplar, span=span, line=line)


@pytest.fixture
def both(stack: RunningStack) -> tuple[Observed, Observed, str]:
    """One order through HAProxy, as the shop and as payments saw it, and its request id."""
    # The newest exemplar wins: an earlier order's must not be taken for this one's.
    since = time.time()
    request_id = uuid.uuid4().hex
    answer = stack.order(**{"X-Request-ID": request_id})
    assert answer.status_code == 201, answer.text
    assert answer.headers["x-request-id"] == request_id
    shop = observed(stack, SHOP, "POST", since)
    payments = observed(stack, PAYMENTS, "PUT", since)
    return shop, payments, request_id


def test_one_request_three_signals_agree(stack: RunningStack, both: tuple[Observed, Observed, str]) -> None:
    """Ids, method, route, status and duration of one order are the same in metric, trace and log, in every service."""
    shop, payments, request_id = both

    trace_id = shop.exemplar["labels"][names.EXEMPLAR_TRACE_ID]
    assert shop.line[names.LOG_REQUEST_ID] == request_id
    assert payments.exemplar["labels"][names.EXEMPLAR_TRACE_ID] == trace_id
    for service in (SHOP, PAYMENTS, WORKER):
        assert stack.log_lines(service, **{names.LOG_TRACE_ID: trace_id}), f"no line of {service} carries the trace id"

    for seen in (shop, payments):
        assert seen.exemplar["labels"][names.EXEMPLAR_SPAN_ID] == seen.span.span_id == seen.line[names.LOG_SPAN_ID]
        for label, attribute in (
            (names.LABEL_METHOD, names.ATTR_METHOD),
            (names.LABEL_ROUTE, names.ATTR_ROUTE),
            (names.LABEL_STATUS_CODE, names.ATTR_STATUS_CODE),
        ):
            assert seen.labels[label] == str(seen.line[label]) == str(seen.span.attributes[attribute])
        assert seen.labels[names.LABEL_SERVICE] == seen.span.service == seen.line[names.LOG_SERVICE]
    assert shop.labels[names.LABEL_ROUTE] == "/v1/orders"
    assert shop.labels[names.LABEL_STATUS_CODE] == "201"

    # One clock reading in whole nanoseconds. The exemplar and the line are that number in seconds, a double each, which
    # keeps every nanosecond of a request shorter than 104 days.
    assert shop.exemplar_seconds == shop.line_seconds == shop.span.duration_ns / 1e9

    span_seconds = payments.span.duration_ns / 1e9
    assert payments.exemplar_seconds == pytest.approx(span_seconds, abs=CONTRIB_TOLERANCE_SECONDS)
    assert payments.line_seconds == pytest.approx(span_seconds, abs=CONTRIB_TOLERANCE_SECONDS)
