"""What arrives when our bytes are parsed, held against the stock encoder."""

import enum
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.span import TraceState

from obslib import _otlp_encode
from obslib._otlp_encode import encode_batch, encode_resource, encode_span

CONTEXT = SpanContext(
    0x0123456789ABCDEF0123456789ABCDEF, 0x0123456789ABCDEF, is_remote=False, trace_flags=TraceFlags(1)
)

keys = st.sampled_from(["http.request.method", "id", "a" * 70, "schlüssel"]) | st.text(min_size=1, max_size=8)
scalars = (
    st.text(max_size=80)
    | st.sampled_from(["GET", "", 0, 1, True, False, 1.0, 0.0, -0.0, -1, 200, 2**63 - 1, -(2**63)])
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.binary(max_size=200)
)
sequences = st.one_of(
    *(st.lists(item, max_size=4) for item in (st.text(max_size=5), st.booleans(), st.integers(-9, 9), st.floats()))
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars | sequences | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
attributes = st.dictionaries(keys, values, max_size=8)
trace_states = st.sampled_from([TraceState(), TraceState([("vendor", "a1"), ("other", "b=2")])])
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(0), TraceFlags(1)]),
    trace_state=trace_states,
)
times = st.integers(0, 2**64 - 1)
scopes = st.builds(
    InstrumentationScope,
    st.text(min_size=1, max_size=8),
    st.none() | st.text(max_size=3),
    st.none() | st.sampled_from(["", "https://opentelemetry.io/schemas/1.30.0"]),
    st.none() | attributes,
)
resources = st.builds(Resource, attributes, st.sampled_from(["", "https://opentelemetry.io/schemas/1.30.0"]))
statuses = st.sampled_from(
    [Status(), Status(StatusCode.OK), Status(StatusCode.ERROR), Status(StatusCode.ERROR, "no such order: ü")]
)
limits = st.sampled_from(
    [
        SpanLimits(),
        SpanLimits(
            max_span_attributes=2,
            max_events=1,
            max_links=1,
            max_event_attributes=1,
            max_link_attributes=1,
            max_attribute_length=3,
        ),
    ]
)


class _Ids(IdGenerator):
    """Counts: what Hypothesis generates must not depend on chance."""

    def __init__(self) -> None:
        self._last = 0

    def generate_span_id(self) -> int:
        self._last += 1
        return self._last

    def generate_trace_id(self) -> int:
        return self.generate_span_id() << 64


class _Ended(SpanProcessor):
    """Keeps what ends."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@st.composite
def span_batches(draw: st.DrawFn) -> list[ReadableSpan]:
    """Spans as the SDK makes them, of one resource and up to three scopes."""
    ended = _Ended()
    provider = TracerProvider(
        resource=draw(resources),
        sampler=ALWAYS_ON,
        span_limits=draw(limits),
        id_generator=_Ids(),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(ended)
    tracers = [
        provider.get_tracer(scope.name, scope.version, scope.schema_url, scope.attributes)
        for scope in draw(st.lists(scopes, min_size=1, max_size=3))
    ]
    for _ in range(draw(st.integers(1, 4))):
        parent = draw(st.none() | contexts)
        span = draw(st.sampled_from(tracers)).start_span(
            draw(st.text(max_size=80)),
            context=set_span_in_context(NonRecordingSpan(parent)) if parent else None,
            kind=draw(st.sampled_from(SpanKind)),
            attributes=draw(st.none() | attributes),
            links=draw(st.lists(st.builds(Link, contexts, st.none() | attributes), max_size=3)),
            start_time=draw(times),
        )
        for name, event_attributes, time in draw(
            st.lists(st.tuples(st.text(max_size=9), st.none() | attributes, times), max_size=3)
        ):
            span.add_event(name, event_attributes, time)
        span.set_status(draw(statuses))
        span.end(draw(times))
    return ended.spans


def _stock(spans: list[ReadableSpan]) -> ExportTraceServiceRequest:
    """What the stock encoder says, with the trace state of links, which it leaves out."""
    request = encode_spans(spans)
    linked = {span.context.span_id: span.links for span in spans}
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                for message, link in zip(span.links, linked[int.from_bytes(span.span_id, "big")], strict=True):
                    message.trace_state = link.context.trace_state.to_header()
    return request


def _parse(span: ReadableSpan) -> SpanMessage:
    request = ExportTraceServiceRequest.FromString(
        encode_batch(encode_resource(span.resource), [(span.instrumentation_scope, encode_span(span))])
    )
    message: SpanMessage = request.resource_spans[0].scope_spans[0].spans[0]
    return message


def _span(**values: Any) -> ReadableSpan:
    return ReadableSpan("GET /", **{"context": CONTEXT, "resource": Resource.get_empty(), **values})


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Begin with empty caches."""
    _otlp_encode._pairs.clear()
    _otlp_encode._names.clear()
    yield
    _otlp_encode._pairs.clear()
    _otlp_encode._names.clear()


@given(span_batches())
@settings(deadline=None, max_examples=100)
def test_batches_mean_what_the_stock_encoder_says(spans: list[ReadableSpan]) -> None:
    """A batch of SDK spans, parsed, is the message that the stock encoder builds for the same spans."""
    ours = encode_batch(
        encode_resource(spans[0].resource), [(span.instrumentation_scope, encode_span(span)) for span in spans]
    )

    # As bytes, because NaN equals nothing.
    assert _stock(spans).SerializeToString(deterministic=True) == (
        ExportTraceServiceRequest.FromString(ours).SerializeToString(deterministic=True)
    )


@given(st.text(alphabet=st.characters(codec=None, categories=["Cs", "Ll"]), min_size=1))
@settings(deadline=None)
def test_text_that_is_not_unicode_is_replaced(text: str) -> None:
    """Lone surrogates, which UTF-8 cannot say, become question marks wherever a string may stand."""
    expected = text.encode("utf-8", "replace").decode()
    message = _parse(
        _span(
            attributes={text: text, "list": [text], "map": {text: 1}},
            events=[Event(text)],
            status=Status(StatusCode.ERROR, text),
        )
    )

    assert [expected, "list", "map"] == [pair.key for pair in message.attributes]
    assert expected == message.attributes[0].value.string_value
    assert expected == message.attributes[1].value.array_value.values[0].string_value
    assert expected == message.attributes[2].value.kvlist_value.values[0].key
    assert (expected, expected) == (message.events[0].name, message.status.message)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_integers_beyond_64_bits_are_decimal_strings(number: int) -> None:
    """What no int64 can hold arrives in decimal, as the specification's mapping asks for."""
    message = _parse(_span(attributes={"n": number}))

    assert str(number) == message.attributes[0].value.string_value


def test_equal_values_of_different_types_stay_apart() -> None:
    """`1`, `True` and `1.0` are equal keys of a dictionary, and still arrive as what they are, whichever came first."""
    kinds = [
        _parse(_span(attributes={"k": value})).attributes[0].value.WhichOneof("value")
        for value in (1, True, 1.0, "1", 1, 0, False, 0.0)
    ]

    assert kinds == [
        "int_value", "bool_value", "double_value", "string_value", "int_value", "int_value", "bool_value", "double_value",
    ]  # fmt: skip


class _Colour(enum.StrEnum):
    RED = "red"


def test_members_of_enums_are_their_values() -> None:
    """An `HTTPStatus` arrives as a number and a member of a `StrEnum` as its text."""
    message = _parse(_span(attributes={"status": HTTPStatus.OK, "colour": _Colour.RED}))

    assert (message.attributes[0].value.int_value, message.attributes[1].value.string_value) == (200, "red")


def test_what_has_no_representation_is_an_empty_value() -> None:
    """None, and an object that OTLP has no type for, arrive as a key without a value."""
    message = _parse(_span(attributes={"none": None, "object": object()}))

    assert [pair.value.WhichOneof("value") for pair in message.attributes] == [None, None]


class _Attributes(Mapping[str, Any]):
    """A mapping that cannot be copied."""

    def __getitem__(self, key: str) -> Any:
        return {"a": 1}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def test_attributes_may_be_any_mapping() -> None:
    """Attributes of a span that was not made by the SDK are read through the mapping's own interface."""
    message = _parse(_span(attributes=_Attributes()))

    assert [(pair.key, pair.value.int_value) for pair in message.attributes] == [("a", 1)]


def test_a_span_without_a_context_has_zero_ids() -> None:
    """A span that was built by hand without ids is encoded with the ids that mean "none"."""
    message = _parse(_span(context=None))

    assert (bytes(16), bytes(8)) == (message.trace_id, message.span_id)


def test_a_span_may_lack_a_scope() -> None:
    """Spans without an instrumentation scope are grouped under an empty one."""
    request = ExportTraceServiceRequest.FromString(encode_batch(b"", [(None, encode_span(_span()))]))

    assert request.resource_spans[0].scope_spans[0].scope.name == ""


def test_equal_scopes_are_one_group_in_the_order_of_their_spans() -> None:
    """Spans of equal scopes share a group even if the scopes are different objects, and keep their order."""
    scopes_of_spans = [InstrumentationScope("a"), InstrumentationScope("b"), InstrumentationScope("a")]
    spans = [_span(start_time=time, instrumentation_scope=scope) for time, scope in enumerate(scopes_of_spans)]
    spans.append(_span(start_time=3, instrumentation_scope=scopes_of_spans[0]))

    request = ExportTraceServiceRequest.FromString(
        encode_batch(b"", [(span.instrumentation_scope, encode_span(span)) for span in spans])
    )

    assert [
        (group.scope.name, [span.start_time_unix_nano for span in group.spans])
        for group in request.resource_spans[0].scope_spans
    ] == [("a", [0, 2, 3]), ("b", [1])]


@pytest.mark.parametrize("size", [0, 1, 120, 127, 128, 200, 16_383, 16_384, 2_100_000])
def test_lengths_of_any_size_are_written(size: int) -> None:
    """Strings around each boundary of protobuf's variable-length integers arrive whole."""
    message = _parse(_span(attributes={"k": "x" * size}))

    assert size == len(message.attributes[0].value.string_value)


def test_what_is_remembered_is_bounded() -> None:
    """Keys, values and names that never come again do not pile up, and still arrive as they were."""
    names, pairs = _otlp_encode._names, _otlp_encode._pairs
    for number in range(1500):
        span = ReadableSpan(
            f"name {number}",
            context=CONTEXT,
            resource=Resource.get_empty(),
            attributes={"path": f"/items/{number}", f"key {number}": number, "body": "x" * 1000},
        )
        message = _parse(span)
        assert f"name {number}" == message.name
        assert [f"/items/{number}", "", "x" * 1000] == [pair.value.string_value for pair in message.attributes]

    assert len(names) <= _otlp_encode._MAX_NAMES
    assert len(pairs) <= _otlp_encode._MAX_KEYS
    assert max(map(len, pairs.values())) <= _otlp_encode._MAX_VALUES
    assert all(len(value) < 1000 for values in pairs.values() for value in values.values())


def test_a_long_name_is_not_remembered() -> None:
    """Names beyond 64 characters, unlikely to be templates, take no room."""
    _parse(ReadableSpan("n" * 65, context=CONTEXT, resource=Resource.get_empty()))

    assert _otlp_encode._names == {}
