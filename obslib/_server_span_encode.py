"""An untouched server span as OTLP bytes, straight from its record: what repeats is kept as bytes.

Byte for byte what `_otlp_encode.encode_span` makes of the same span with its parts; a check at set-up and a property
test hold them together.
"""

from collections.abc import Mapping
from struct import Struct
from typing import Final

from opentelemetry.trace import SpanContext
from opentelemetry.trace.span import DEFAULT_TRACE_STATE

from obslib import names
from obslib._kept import Kept
from obslib._otlp_encode import encode_attribute, encode_name, encode_parent, encode_span_field
from obslib._record import RequestRecord
from obslib._span_attributes import common_outcome_attributes, common_start_attributes, final_name

_TIMES: Final = Struct("<BQBQ").pack
_STATUS_UNSET: Final = b"\x7a\x00"
_STATUS_ERROR: Final = b"\x7a\x02\x18\x02"
_USER_AGENT: Final = b"user-agent"
_HOST: Final = b"host"
_KIND_SERVER: Final = b"\x30\x02"
_LOCAL_ROOT: Final = encode_parent(DEFAULT_TRACE_STATE, None)
#: A caller who invents hosts only empties what he has filled.
_MAX_KEPT: Final = 512
_MAX_CHARACTERS: Final = 256


class ServerSpanEncoder:
    """
    Encodes records of requests that ended without an exception.

    Args:
        request_id_attribute: The name of the attribute with the request id.
    """

    def __init__(self, request_id_attribute: str) -> None:
        self._request_id_attribute = request_id_attribute
        self._starts: dict[object, bytes] = {}
        #: The name, and the attributes that the outcome adds.
        self._outcomes: dict[object, tuple[bytes, bytes]] = {}
        self._paths = Kept[str, bytes](_path)
        self._callers = Kept[tuple[str, bytes], bytes](_caller)
        self._sizes = Kept[tuple[int, int], bytes](_sizes)
        #: By the number of its characters: what precedes a request id.
        self._request_id_heads = Kept[int, bytes](self._request_id_head)

    def encode(self, record: RequestRecord, parent: SpanContext | None, end_unix_ns: int) -> bytes:
        """Return a `ScopeSpans.spans` field."""
        ids = bytes.fromhex(record.id_digits)
        method = record.method
        start_key = (method, record.scheme, record.http_version, record.headers.get(_HOST))
        outcome_key = (method, record.status_code, record.route, record.error_type)
        name, outcome = self._outcomes.get(outcome_key) or self._new_outcome(outcome_key, record)
        request_id, rare = record.request_id.encode(), record.rare is not None
        message = b"".join(
            (
                b"\x0a\x10",
                ids[:16],
                b"\x12\x08",
                ids[16:],
                name,
                _KIND_SERVER,
                _TIMES(0x39, record.start_unix_ns, 0x41, end_unix_ns),
                self._starts.get(start_key) or self._new_start(start_key, record),
                self._paths[record.path],
                encode_attribute(names.ATTR_METHOD_ORIGINAL, record.original_method)
                if rare and record.original_method
                else b"",
                self._callers[record.client_address, record.headers.get(_USER_AGENT, b"")],
                encode_attribute(names.ATTR_URL_QUERY, record.query) if record.query else b"",
                outcome,
                self._sizes[record.request_body_bytes, record.response_body_bytes],
                self._request_id_heads[len(request_id)],
                request_id,
                _first_byte(record) if rare and record.time_to_first_byte_ns else b"",
                _LOCAL_ROOT if parent is None else encode_parent(parent.trace_state, parent),
                _STATUS_ERROR if record.is_failure else _STATUS_UNSET,
            )
        )
        return encode_span_field(message)

    def _new_start(self, key: object, record: RequestRecord) -> bytes:
        encoded = _attributes(common_start_attributes(record))
        if len(record.headers.get(_HOST, b"")) <= _MAX_CHARACTERS:
            if len(self._starts) >= _MAX_KEPT:
                self._starts.clear()
            self._starts[key] = encoded
        return encoded

    def _new_outcome(self, key: object, record: RequestRecord) -> tuple[bytes, bytes]:
        if len(self._outcomes) >= _MAX_KEPT:
            self._outcomes.clear()
        attributes = common_outcome_attributes(record.status_code, record.route, record.error_type)
        made = self._outcomes[key] = encode_name(final_name(record)), _attributes(attributes)
        return made

    def _request_id_head(self, size: int) -> bytes:
        whole = encode_attribute(self._request_id_attribute, ("x" * size,))
        return whole[: len(whole) - size]


def _path(path: str) -> bytes:
    return encode_attribute(names.ATTR_URL_PATH, path)


def _caller(of: tuple[str, bytes]) -> bytes:
    client_address, user_agent = of
    return _attributes({names.ATTR_CLIENT_ADDRESS: client_address, names.ATTR_USER_AGENT: user_agent.decode("latin-1")})


def _sizes(of: tuple[int, int]) -> bytes:
    request, response = of
    return encode_attribute(names.ATTR_REQUEST_BODY_SIZE, request) + encode_attribute(
        names.ATTR_RESPONSE_BODY_SIZE, response
    )


def _first_byte(record: RequestRecord) -> bytes:
    return encode_attribute(names.ATTR_TIME_TO_FIRST_BYTE, record.time_to_first_byte_ns / 1e9)


def _attributes(values: Mapping[str, object]) -> bytes:
    return b"".join(encode_attribute(name, value) for name, value in values.items() if value != "")
