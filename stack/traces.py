"""Traces as Jaeger's stable API returns them: OTLP in JSON."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx

from obslib import names
from stack.errors import StackError

_ERROR: Final = 2
# A trace is complete a second or so after its request: spans travel in batches, the worker's come later.
_FRESH_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.3
_LOOK_BACK: Final = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Span:
    """One span; times are in nanoseconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    is_error: bool = False
    message: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)  # Any: an attribute is text, a number or a list
    events: tuple[str, ...] = ()

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


def parse(document: dict[str, Any]) -> list[Span]:  # Any: JSON
    """
    The spans of an OTLP document, earliest first.

    Args:
        document: the answer of `/api/v3/traces/{id}`.

    """
    return sorted(_spans(document), key=lambda span: (span.start_ns, span.span_id))


def _spans(document: dict[str, Any]) -> Iterator[Span]:  # Any: JSON
    for resource in document.get("result", {}).get("resourceSpans", []):
        service = _attributes(resource.get("resource", {})).get(names.RESOURCE_SERVICE_NAME, "?")
        for scope in resource.get("scopeSpans", []):
            for span in scope.get("spans", []):
                status = span.get("status", {})
                yield Span(
                    trace_id=span["traceId"],
                    span_id=span["spanId"],
                    parent_id=span.get("parentSpanId", ""),
                    service=str(service),
                    name=span["name"],
                    kind=span.get("kind", 0),
                    start_ns=int(span["startTimeUnixNano"]),
                    end_ns=int(span["endTimeUnixNano"]),
                    is_error=status.get("code") == _ERROR,
                    message=status.get("message", ""),
                    attributes=_attributes(span),
                    events=tuple(event.get("name", "") for event in span.get("events", [])),
                )


def _attributes(holder: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    return {entry["key"]: _value(entry.get("value", {})) for entry in holder.get("attributes", [])}


def _value(value: dict[str, Any]) -> Any:  # Any: an attribute is text, a number or a list
    if "intValue" in value:
        return int(value["intValue"])
    if "arrayValue" in value:
        return [_value(entry) for entry in value["arrayValue"].get("values", [])]
    return next(iter(value.values()), None)


class JaegerApi:
    """
    Asks one Jaeger.

    Args:
        url: its address.

    """

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=5)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def trace(self, trace_id: str) -> list[Span]:
        """
        The spans stored under a trace id, none when it is unknown.

        Raises:
            StackError: Jaeger does not answer.

        """
        answer = self._get(f"/api/v3/traces/{trace_id}")
        return parse(answer.json()) if answer.is_success else []

    def fresh_trace(self, trace_id: str) -> list[Span]:
        """
        Like `trace`, but gives a request that was only just answered the time to arrive.

        Raises:
            StackError: the id is none, Jaeger does not answer, or it knows no such trace.

        """
        wanted = trace_id.strip().lower()
        if len(wanted) != 32 or not set(wanted) <= set("0123456789abcdef"):
            raise StackError(f"{trace_id!r} is no trace id: those have 32 hexadecimal digits. Try: trace --last")
        end = time.monotonic() + _FRESH_SECONDS
        seen = -1
        while True:
            spans = self.trace(wanted)
            # Two equal answers in a row: nothing more is on its way.
            if spans and len(spans) == seen:
                return spans
            seen = len(spans)
            if time.monotonic() > end:
                break
            time.sleep(_POLL_SECONDS)
        if spans:
            return spans
        raise StackError(
            f"Jaeger has no trace {wanted}. It keeps the newest 10,000; older ones are gone, and so are those of an "
            "earlier run. A recent one: trace --last"
        )

    def newest(self, service: str, limit: int = 20) -> list[list[Span]]:
        """
        A service's recent traces, newest first.

        Raises:
            StackError: Jaeger does not answer.

        """
        now = datetime.now(UTC)
        answer = self._get(
            "/api/v3/traces",
            {
                **_parameter("service_name", service),
                **_parameter("start_time_min", _rfc3339(now - _LOOK_BACK)),
                **_parameter("start_time_max", _rfc3339(now + timedelta(minutes=1))),
                **_parameter("num_traces", str(limit)),
            },
        )
        traces: dict[str, list[Span]] = {}
        for span in parse(answer.json()) if answer.is_success else []:
            traces.setdefault(span.trace_id, []).append(span)
        return sorted(traces.values(), key=lambda spans: spans[0].start_ns, reverse=True)

    def _get(self, path: str, parameters: dict[str, str] | None = None) -> httpx.Response:
        try:
            return self._http.get(path, params=parameters)
        except httpx.HTTPError as error:
            raise StackError(f"Jaeger does not answer: {error}") from error


def _parameter(name: str, value: str) -> dict[str, str]:
    # Jaeger renamed them (`query.service_name` became `query.serviceName`); a version passes over the other spelling.
    head, *rest = name.split("_")
    return {f"query.{name}": value, f"query.{head}{''.join(part.title() for part in rest)}": value}


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
