"""The traces: a Recorder that makes one SERVER span a request.

Attributes, name and status follow the stable HTTP semantic conventions:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span
"""

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final
from urllib.parse import unquote_plus

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from obslib import names
from obslib._record import RequestRecord
from obslib.exceptions import MissingExtraError
from obslib.settings import Settings

_NO_CONTEXT: Final = Context()
_W3C: Final = ("tracecontext", "baggage")
_W3C_HEADERS: Final = (b"traceparent", b"tracestate", b"baggage")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:@/?#\s]+)(?::(\d{1,5}))?")
_MAX_CACHED_HOSTS: Final = 256
_REDACTED: Final = "REDACTED"
_ERROR: Final = Status(StatusCode.ERROR)


class TracesRecorder:
    """
    Makes the server span of a request, starts it first and ends it with the record's clock reading.

    Args:
        is_secret: Tells by name which query parameters must not be shown.
    """

    signal: Final = "traces"

    def __init__(
        self, tracer: trace.Tracer, propagator: TextMapPropagator, settings: Settings, is_secret: Callable[[str], bool]
    ) -> None:
        self._tracer = tracer
        self._propagator = propagator
        self._all_headers = settings.propagators not in {_W3C, _W3C[:1]}
        self._trusts_callers = settings.trust_incoming_context
        self._is_secret = is_secret
        self._request_id_attribute = f"{names.ATTR_RESPONSE_HEADER_PREFIX}{settings.request_id_header.lower()}"
        self._hosts: dict[bytes, dict[str, AttributeValue]] = {}

    def started(self, record: RequestRecord) -> None:
        """Start the span, and note its ids and the context in which the application runs."""
        parent = self._incoming_context(record)
        links = None
        if not self._trusts_callers and parent is not _NO_CONTEXT:
            caller = trace.get_current_span(parent).get_span_context()
            links = [Link(caller)] if caller.is_valid else None
            parent = _NO_CONTEXT
        span = self._tracer.start_span(
            record.method if record.method != names.OTHER else "HTTP",
            parent,
            SpanKind.SERVER,
            self._attributes(record),
            links,
            record.start_unix_ns,
        )
        context = span.get_span_context()
        record.span = span
        record.trace_id = format(context.trace_id, "032x")
        record.span_id = format(context.span_id, "016x")
        record.sampled = context.trace_flags.sampled
        record.otel_context = trace.set_span_in_context(span, parent)

    def finished(self, record: RequestRecord) -> None:
        """Complete the span and end it where the record ends."""
        span = record.span
        if span is None:
            return
        if span.is_recording():
            describe_outcome(span, record, self._request_id_attribute)
        span.end(record.start_unix_ns + record.duration_ns)

    def _incoming_context(self, record: RequestRecord) -> Context:
        """Return the context the caller sent, never the one that happens to be current."""
        headers = record.headers
        if self._all_headers:
            carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in record.scope["headers"]}
        elif b"traceparent" in headers or b"baggage" in headers:
            carrier = {name.decode(): headers[name].decode("latin-1") for name in _W3C_HEADERS if name in headers}
        else:
            return _NO_CONTEXT
        return self._propagator.extract(carrier, _NO_CONTEXT)

    def _attributes(self, record: RequestRecord) -> dict[str, AttributeValue]:
        scope = record.scope
        attributes: dict[str, AttributeValue] = {
            names.ATTR_METHOD: record.method,
            names.ATTR_URL_PATH: scope["path"],
            names.ATTR_URL_SCHEME: record.scheme,
            names.ATTR_PROTOCOL_VERSION: scope.get("http_version", "1.1"),
        }
        if record.method == names.OTHER:
            attributes[names.ATTR_METHOD_ORIGINAL] = scope["method"]
        if record.client_address:
            attributes[names.ATTR_CLIENT_ADDRESS] = record.client_address
        if record.user_agent:
            attributes[names.ATTR_USER_AGENT] = record.user_agent
        if query := scope.get("query_string"):
            attributes[names.ATTR_URL_QUERY] = redact_query(query.decode("latin-1"), self._is_secret)
        host = record.headers.get(b"host")
        if host:
            attributes.update(self._hosts.get(host) or self._parse_host(host))
        return attributes

    def _parse_host(self, host: bytes) -> dict[str, AttributeValue]:
        match = _HOST.fullmatch(host.decode("latin-1"))
        parsed: dict[str, AttributeValue] = {}
        if match is not None:
            parsed[names.ATTR_SERVER_ADDRESS] = match[1].strip("[]")
            if match[2]:
                parsed[names.ATTR_SERVER_PORT] = int(match[2])
        if len(self._hosts) < _MAX_CACHED_HOSTS:
            self._hosts[host] = parsed
        return parsed


def describe_outcome(
    span: trace.Span, record: RequestRecord, request_id_attribute: str, *, with_exception: bool = True
) -> None:
    """Write onto a span how its request ended, so that it says what the metric and the access line say."""
    method = record.method if record.method != names.OTHER else "HTTP"
    attributes: dict[str, AttributeValue] = {
        names.ATTR_REQUEST_BODY_SIZE: record.request_body_bytes,
        names.ATTR_RESPONSE_BODY_SIZE: record.response_body_bytes,
        request_id_attribute: (record.request_id,),
    }
    if record.status_code:
        attributes[names.ATTR_STATUS_CODE] = record.status_code
    if record.route:
        span.update_name(f"{method} {record.route}")
        attributes[names.ATTR_ROUTE] = record.route
    exception = record.exception
    if exception is not None:
        kind = type(exception)
        module = kind.__module__
        attributes[names.ATTR_ERROR_TYPE] = (
            kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
        )
    elif record.error_type:
        attributes[names.ATTR_ERROR_TYPE] = record.error_type
    span.set_attributes(attributes)
    if exception is not None and with_exception:
        span.record_exception(exception)
    if record.error_type and record.error_type != names.ERROR_CLIENT_DISCONNECT:
        span.set_status(_ERROR)


def redact_query(query: str, is_secret: Callable[[str], bool]) -> str:
    """Return a query string in which the values of secret parameters are replaced; otherwise as it came."""
    if not any(is_secret(unquote_plus(part.partition("=")[0])) for part in query.split("&")):
        return query
    parts = []
    for part in query.split("&"):
        key, equals, _ = part.partition("=")
        parts.append(f"{key}={_REDACTED}" if equals and is_secret(unquote_plus(key)) else part)
    return "&".join(parts)


def make_propagator(names_of_propagators: tuple[str, ...]) -> TextMapPropagator:
    """
    Return the propagator for the names that `OTEL_PROPAGATORS` lists.

    Raises:
        MissingExtraError: One of them is in a package that is not installed.
    """
    built_in: dict[str, TextMapPropagator] = {
        "tracecontext": TraceContextTextMapPropagator(),
        "baggage": W3CBaggagePropagator(),
    }
    chosen: list[TextMapPropagator] = []
    for name in names_of_propagators:
        if name in built_in:
            chosen.append(built_in[name])
            continue
        found = next(iter(entry_points(group="opentelemetry_propagator", name=name)), None)
        if found is None:
            package = {"b3multi": "b3", "xray": "aws"}.get(name, name)
            raise MissingExtraError(
                f"The propagator {name!r} is not installed: pip install opentelemetry-propagator-{package}"
            )
        chosen.append(found.load()())
    return CompositePropagator(chosen)
