"""An untouched server span as OTLP bytes, straight from its record: what repeats is kept as bytes.

Byte for byte what `_otlp_encode.encode_span` makes of the same span with its parts; a check at set-up and a property
test hold them together.
"""

from struct import Struct
from typing import Final

from opentelemetry.trace import SpanContext

from obslib import names
from obslib._otlp_encode import encode_attribute, encode_name, encode_parent, encode_span_field
from obslib._record import RequestRecord
from obslib._span_attributes import common_outcome_attributes, common_start_attributes

_TIMES: Final = Struct("<BQBQ").pack
_STATUS_UNSET: Final = b"\x7a\x00"
_STATUS_ERROR: Final = b"\x7a\x02\x18\x02"
_KIND_SERVER: Final = b"\x30\x02"
#: Combinations of method, host and the like are few, but a caller can invent hosts.
_MAX_KEPT: Final = 1024


class ServerSpanEncoder:
    """
    Encodes records of requests that ended without an exception.

    Args:
        request_id_attribute: The name of the attribute with the request id.
    """

    def __init__(self, request_id_attribute: str) -> None:
        self._request_id_attribute = request_id_attribute
        self._starts: dict[tuple[str, str, str, bytes | None], bytes] = {}
        self._outcomes: dict[tuple[int, str, str], bytes] = {}
        #: By the number of its characters: what precedes a request id.
        self._request_id_heads: dict[int, bytes] = {}

    def encode(
        self, record: RequestRecord, name: str, context: SpanContext, parent: SpanContext | None, end_unix_ns: int
    ) -> bytes:
        """Return a `ScopeSpans.spans` field."""
        scope = record.scope
        start_key = (record.method, record.scheme, scope.get("http_version", "1.1"), record.headers.get(b"host"))
        outcome_key = (record.status_code, record.route, record.error_type)
        request_id = record.request_id.encode()
        parts = [
            b"\x0a\x10",
            context.trace_id.to_bytes(16, "big"),
            b"\x12\x08",
            context.span_id.to_bytes(8, "big"),
            encode_name(name),
            _KIND_SERVER,
            _TIMES(0x39, record.start_unix_ns, 0x41, end_unix_ns),
            self._starts.get(start_key) or self._keep_start(start_key, record),
            encode_attribute(names.ATTR_URL_PATH, scope["path"]),
        ]
        if record.method == names.OTHER:
            parts.append(encode_attribute(names.ATTR_METHOD_ORIGINAL, scope["method"]))
        if record.client_address:
            parts.append(encode_attribute(names.ATTR_CLIENT_ADDRESS, record.client_address))
        if record.user_agent:
            parts.append(encode_attribute(names.ATTR_USER_AGENT, record.user_agent))
        if record.query:
            parts.append(encode_attribute(names.ATTR_URL_QUERY, record.query))
        parts += (
            self._outcomes.get(outcome_key) or self._keep_outcome(outcome_key),
            encode_attribute(names.ATTR_REQUEST_BODY_SIZE, record.request_body_bytes),
            encode_attribute(names.ATTR_RESPONSE_BODY_SIZE, record.response_body_bytes),
            self._request_id_heads.get(len(request_id)) or self._keep_request_id_head(len(request_id)),
            request_id,
            encode_parent(context, parent),
            _STATUS_ERROR if record.is_failure else _STATUS_UNSET,
        )
        return encode_span_field(b"".join(parts))

    def _keep_start(self, key: tuple[str, str, str, bytes | None], record: RequestRecord) -> bytes:
        encoded = b"".join(encode_attribute(name, value) for name, value in common_start_attributes(record).items())
        if len(self._starts) < _MAX_KEPT:
            self._starts[key] = encoded
        return encoded

    def _keep_outcome(self, key: tuple[int, str, str]) -> bytes:
        encoded = b"".join(encode_attribute(name, value) for name, value in common_outcome_attributes(*key).items())
        if len(self._outcomes) < _MAX_KEPT:
            self._outcomes[key] = encoded
        return encoded

    def _keep_request_id_head(self, size: int) -> bytes:
        whole = encode_attribute(self._request_id_attribute, ("x" * size,))
        head = self._request_id_heads[size] = whole[: len(whole) - size]
        return head
