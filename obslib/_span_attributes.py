"""What a server span says about its request: the attributes it starts with, and those that its end adds.

Names follow the stable HTTP semantic conventions: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

import re
import traceback
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode
from opentelemetry.util.types import AttributeValue

from obslib import names
from obslib._connection_record import ConnectionRecord
from obslib._record import RequestRecord

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:@/?#\s]+)(?::(\d{1,5}))?")
#: So many of a caller's inventions are kept, and none that is longer than this.
_MAX_HOSTS: Final = 256
_MAX_HOST_BYTES: Final = 256
_ERROR: Final = Status(StatusCode.ERROR)


def initial_name(record: RequestRecord) -> str:
    """Return the span's name while no route is known."""
    return record.method if record.method != names.OTHER else "HTTP"


def start_attributes(record: RequestRecord) -> dict[str, AttributeValue]:
    """Return what is known before the application sees the request."""
    attributes = common_start_attributes(record)
    attributes[names.ATTR_URL_PATH] = record.path
    if record.original_method:
        attributes[names.ATTR_METHOD_ORIGINAL] = record.original_method
    if record.client_address:
        attributes[names.ATTR_CLIENT_ADDRESS] = record.client_address
    if record.user_agent:
        attributes[names.ATTR_USER_AGENT] = record.user_agent
    if record.query:
        attributes[names.ATTR_URL_QUERY] = record.query
    return attributes


def common_start_attributes(record: RequestRecord) -> dict[str, AttributeValue]:
    """Return the part of them that many requests have in common."""
    attributes: dict[str, AttributeValue]
    if isinstance(record, ConnectionRecord):
        attributes = {names.ATTR_URL_SCHEME: record.scheme, names.ATTR_PROTOCOL_NAME: names.PROTOCOL_WEBSOCKET}
    else:
        attributes = {
            names.ATTR_METHOD: record.method,
            names.ATTR_URL_SCHEME: record.scheme,
            names.ATTR_PROTOCOL_VERSION: record.http_version,
        }
    host = record.headers.get(b"host")
    if host:
        parse = _parse_host if len(host) <= _MAX_HOST_BYTES else _parse_host.__wrapped__
        attributes.update(parse(host))
    return attributes


def outcome_attributes(record: RequestRecord, request_id_attribute: str) -> dict[str, AttributeValue]:
    """Return what the end of a request adds."""
    attributes = common_outcome_attributes(record.status_code, record.route, _error_type(record))
    if isinstance(record, ConnectionRecord):
        attributes.update(_message_attributes(record))
    else:
        attributes[names.ATTR_REQUEST_BODY_SIZE] = record.request_body_bytes
        attributes[names.ATTR_RESPONSE_BODY_SIZE] = record.response_body_bytes
    attributes[request_id_attribute] = (record.request_id,)
    if record.time_to_first_byte_ns:
        attributes[names.ATTR_TIME_TO_FIRST_BYTE] = record.time_to_first_byte_ns / 1e9
    return attributes


def _message_attributes(record: ConnectionRecord) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        names.ATTR_MESSAGES_RECEIVED: record.messages_received,
        names.ATTR_MESSAGES_SENT: record.messages_sent,
        names.ATTR_RECEIVED_BYTES: record.received_bytes,
        names.ATTR_SENT_BYTES: record.sent_bytes,
    }
    if record.close_code:
        attributes[names.ATTR_CLOSE_CODE] = record.close_code
    return attributes


def common_outcome_attributes(status_code: int, route: str, error_type: str) -> dict[str, AttributeValue]:
    """Return the part of them that many requests have in common."""
    attributes: dict[str, AttributeValue] = {}
    if status_code:
        attributes[names.ATTR_STATUS_CODE] = status_code
    if route:
        attributes[names.ATTR_ROUTE] = route
    if error_type:
        attributes[names.ATTR_ERROR_TYPE] = error_type
    return attributes


def final_name(record: RequestRecord) -> str:
    """Return the span's name once the route is known."""
    return f"{initial_name(record)} {record.route}" if record.route else initial_name(record)


def describe_outcome(
    span: trace.Span,
    record: RequestRecord,
    request_id_attribute: str,
    hide: Callable[[str], str] = str,
    *,
    with_exception: bool = True,
) -> None:
    """Write onto a span how its request ended, so that it says what the metric and the access line say."""
    span.set_attributes(outcome_attributes(record, request_id_attribute))
    if record.exception is not None and with_exception:
        record_exception(span, record.exception, hide)
    if record.is_failure:
        span.set_status(_ERROR)


def record_exception(span: trace.Span, exception: BaseException, hide: Callable[[str], str]) -> None:
    """Record an exception without the secrets that its texts have."""
    texts = {
        "exception.message": str(exception),
        "exception.stacktrace": "".join(traceback.format_exception(exception)),
    }
    span.record_exception(exception, {key: shown for key, text in texts.items() if (shown := hide(text)) != text})


def _error_type(record: RequestRecord) -> str:
    """Return the class of the exception, which metrics cannot afford, or what they say."""
    if record.exception is None:
        return record.error_type
    kind = type(record.exception)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@lru_cache(maxsize=_MAX_HOSTS)
def _parse_host(host: bytes) -> dict[str, AttributeValue]:
    match = _HOST.fullmatch(host.decode("latin-1"))
    parsed: dict[str, AttributeValue] = {}
    if match is not None:
        parsed[names.ATTR_SERVER_ADDRESS] = match[1].strip("[]")
        if match[2]:
            parsed[names.ATTR_SERVER_PORT] = int(match[2])
    return parsed
