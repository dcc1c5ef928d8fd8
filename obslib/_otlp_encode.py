"""
Spans as OTLP bytes, written by hand: each span is encoded once, when it ends, and a batch is only a concatenation.

The messages are those of opentelemetry-proto v1 (https://github.com/open-telemetry/opentelemetry-proto, trace.proto,
common.proto, resource.proto), in protobuf's wire format (https://protobuf.dev/programming-guides/encoding/). Equal in
meaning to opentelemetry-exporter-otlp-proto-common, with three differences that docs/decisions/030-own-otlp-encoder.md
explains: integers beyond 64 bits become strings, strings that are not Unicode lose the offending characters, and links
keep their trace state.
"""

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.span import TraceState

# Bounds of what is remembered: below 4 MiB in all, and a key whose values never repeat evicts only its own.
_MAX_KEYS: Final = 256
_MAX_VALUES: Final = 64
_MAX_NAMES: Final = 512
_MAX_CHARACTERS: Final = 64

_SMALL_VARINTS: Final = tuple(bytes((number,)) for number in range(0x80))
_INT64_END: Final = 1 << 63

_TIMES: Final = Struct("<BQBQ").pack
_TIME: Final = Struct("<BQ").pack
_DOUBLE: Final = Struct("<Bd").pack
_FLAGS: Final = Struct("<I").pack

# SpanFlags: "is remote" is known, and is or is not so. Like the stock encoder, without the W3C flags in the low byte.
_LOCAL: Final = 0x100
_REMOTE: Final = 0x300
_SPAN_FLAGS_LOCAL: Final = b"\x85\x01" + _FLAGS(_LOCAL)
_SPAN_FLAGS_REMOTE: Final = b"\x85\x01" + _FLAGS(_REMOTE)

_KINDS: Final = {
    SpanKind.INTERNAL: b"\x30\x01",
    SpanKind.SERVER: b"\x30\x02",
    SpanKind.CLIENT: b"\x30\x03",
    SpanKind.PRODUCER: b"\x30\x04",
    SpanKind.CONSUMER: b"\x30\x05",
}
_SERVER: Final = _KINDS[SpanKind.SERVER]
_STATUS_UNSET: Final = b"\x7a\x00"

#: By key, by value: a `KeyValue` behind its length.
_pairs: Final[dict[str, dict[str | int, bytes]]] = {}
#: By name: the field `Span.name`.
_names: Final[dict[str, bytes]] = {}
_NOTHING: Final[dict[str | int, bytes]] = {}


def encode_resource(resource: Resource) -> bytes:
    """Return the fields of `ResourceSpans` that precede its spans: the resource and its schema URL."""
    encoded = _field(b"\x0a", _attributes(b"\x0a", resource.attributes))
    if resource.schema_url:
        encoded += _field(b"\x1a", _utf8(resource.schema_url))
    return encoded


def encode_span(span: ReadableSpan) -> bytes:
    """Return a `ScopeSpans.spans` field: tag, length and the `Span` message."""
    context = span.get_span_context() or INVALID_SPAN_CONTEXT
    kind = span.kind
    parts = [
        b"\x0a\x10",
        context.trace_id.to_bytes(16, "big"),
        b"\x12\x08",
        context.span_id.to_bytes(8, "big"),
        encode_name(span.name),
        # Hashing a member of an Enum is a call into Python: the kind of most spans is compared instead.
        _SERVER if kind is SpanKind.SERVER else _KINDS[kind],
        _TIMES(0x39, span.start_time or 0, 0x41, span.end_time or 0),
        _attributes(b"\x4a", span.attributes),
        encode_parent(context.trace_state, span.parent),
    ]
    if span.events:
        parts.extend(map(_event, span.events))
    if span.links:
        parts.extend(map(_link, span.links))
    status = span.status
    parts.append(_STATUS_UNSET if status.status_code is StatusCode.UNSET else _status(status))
    dropped = span.dropped_attributes, span.dropped_events, span.dropped_links
    if any(dropped):
        parts.extend(map(_count, (b"\x50", b"\x60", b"\x70"), dropped))
    return encode_span_field(b"".join(parts))


def encode_name(name: str) -> bytes:
    """Return the field `Span.name`."""
    return _names.get(name) or _name(name)


def encode_attribute(key: str, value: object) -> bytes:
    """Return one field `Span.attributes`."""
    # Exact classes: True and 1.0 would find what was remembered for 1.
    if value.__class__ is str or value.__class__ is int:
        return b"\x4a" + (_pairs.get(key, _NOTHING).get(value) or _remember(key, value))
    return b"\x4a" + _key_value(key, value)


def encode_parent(trace_state: TraceState, parent: SpanContext | None) -> bytes:
    """Return the fields for trace state, parent and flags."""
    state = _trace_state(trace_state) if trace_state else b""
    if parent is None:
        return state + _SPAN_FLAGS_LOCAL
    flags = _SPAN_FLAGS_REMOTE if parent.is_remote else _SPAN_FLAGS_LOCAL
    return state + b"\x22\x08" + parent.span_id.to_bytes(8, "big") + flags


def encode_span_field(message: bytes) -> bytes:
    """Return the field `ScopeSpans.spans`."""
    return _field(b"\x12", message)


def encode_batch(resource: bytes, spans: Sequence[tuple[InstrumentationScope | None, bytes]]) -> bytes:
    """
    Return an `ExportTraceServiceRequest` with one `ResourceSpans`, grouped by instrumentation scope.

    Args:
        resource: What `encode_resource` returned.
        spans: For each span its scope and what `encode_span` returned.
    """
    # Scopes are few objects for many spans, and their `__hash__` is a call into Python: identity first, equality then.
    by_scope: dict[InstrumentationScope | None, list[bytes]] = {}
    by_identity: dict[int, list[bytes]] = {}
    for scope, encoded in spans:
        group = by_identity.get(id(scope))
        if group is None:
            group = by_identity[id(scope)] = by_scope.setdefault(scope, [])
        group.append(encoded)
    parts = [resource]
    for scope, scope_spans in by_scope.items():
        head, tail = _scope(scope)
        length = len(head) + len(tail) + sum(map(len, scope_spans))
        parts += [b"\x12", _varint(length), head, *scope_spans, tail]
    return b"".join([b"\x0a", _varint(sum(map(len, parts))), *parts])


def _scope(scope: InstrumentationScope | None) -> tuple[bytes, bytes]:
    """Return the fields of `ScopeSpans` before and after its spans: the scope, and its schema URL."""
    if scope is None:
        return b"\x0a\x00", b""
    message = _field(b"\x0a", _utf8(scope.name))
    if scope.version:
        message += _field(b"\x12", _utf8(scope.version))
    message += _attributes(b"\x1a", scope.attributes)
    return _field(b"\x0a", message), _field(b"\x1a", _utf8(scope.schema_url)) if scope.schema_url else b""


def _name(name: str) -> bytes:
    encoded = _field(b"\x2a", _utf8(name))
    if len(name) <= _MAX_CHARACTERS:
        if len(_names) >= _MAX_NAMES:
            _names.clear()
        _names[name] = encoded
    return encoded


def _event(event: Event) -> bytes:
    message = _TIME(0x09, event.timestamp) + _field(b"\x12", _utf8(event.name))
    message += _attributes(b"\x1a", event.attributes) + _count(b"\x20", event.dropped_attributes)
    return _field(b"\x5a", message)


def _link(link: Link) -> bytes:
    context: SpanContext = link.context
    message = b"\x0a\x10" + context.trace_id.to_bytes(16, "big") + b"\x12\x08" + context.span_id.to_bytes(8, "big")
    if context.trace_state:
        message += _trace_state(context.trace_state)
    message += _attributes(b"\x22", link.attributes) + _count(b"\x28", link.dropped_attributes)
    return _field(b"\x6a", message + b"\x35" + _FLAGS(_REMOTE if context.is_remote else _LOCAL))


def _status(status: Status) -> bytes:
    message = b"\x18" + _varint(status.status_code.value)
    if status.description:
        message = _field(b"\x12", _utf8(status.description)) + message
    return _field(b"\x7a", message)


def _trace_state(trace_state: TraceState) -> bytes:
    return _field(b"\x1a", _utf8(trace_state.to_header()))


def _count(tag: bytes, count: int) -> bytes:
    return tag + _varint(count) if count else b""


def _attributes(tag: bytes, attributes: Mapping[str, object] | None) -> bytes:
    """Return one field per attribute, each beginning with `tag`."""
    if not attributes:
        return b""
    pairs = []
    known_values = _pairs.get
    for key, value in _items(attributes):
        # Exact classes: True and 1.0 would find what was remembered for 1.
        if value.__class__ is str or value.__class__ is int:
            pairs.append(known_values(key, _NOTHING).get(value) or _remember(key, value))
        else:
            pairs.append(_key_value(key, value))
    return tag + tag.join(pairs)


def _items(attributes: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    try:
        # The SDK's mapping iterates in Python, under a lock; its copy is a dict.
        return attributes.copy().items()  # type: ignore[attr-defined, no-any-return]  # tried, not known
    except AttributeError:
        return attributes.items()


def _remember(key: str, value: str | int) -> bytes:
    """Encode an attribute, and keep the bytes if it is short enough to come again."""
    encoded = _key_value(key, value)
    if len(encoded) > 2 * _MAX_CHARACTERS:
        return encoded
    values = _pairs.get(key)
    if values is None:
        if len(_pairs) >= _MAX_KEYS:
            _pairs.clear()
        values = _pairs[key] = {}
    elif len(values) >= _MAX_VALUES:
        values.clear()
    values[value] = encoded
    return encoded


def _key_value(key: str, value: object) -> bytes:
    return _field(b"", _field(b"\x0a", _utf8(key)) + _field(b"\x12", _any_value(value)))


def _any_value(value: object) -> bytes:
    """Return an `AnyValue`; empty for None and for what has no representation."""
    if isinstance(value, str):
        return _field(b"\x0a", _utf8(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if -_INT64_END <= value < _INT64_END:
            return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
        # https://opentelemetry.io/docs/specs/otel/common/attribute-type-mapping/#integer-values
        return _field(b"\x0a", b"%d" % value)
    if isinstance(value, float):
        return _DOUBLE(0x21, value)
    if isinstance(value, bytes):
        return _field(b"\x3a", value)
    if isinstance(value, Sequence):
        return _field(b"\x2a", b"".join([_field(b"\x0a", _any_value(item)) for item in value]))
    if isinstance(value, Mapping):
        return _field(b"\x32", b"".join([b"\x0a" + _key_value(str(key), item) for key, item in value.items()]))
    return b""


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _field(tag: bytes, message: bytes) -> bytes:
    """Return a length-delimited field."""
    size = len(message)
    if size < 0x80:
        return tag + _SMALL_VARINTS[size] + message
    return tag + _varint(size) + message


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _SMALL_VARINTS[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
