"""What reaches a collector, what is counted where it does not, and how long anybody waits for it."""

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

import obslib
from obslib import _otlp, _otlp_http, names
from obslib._otlp import OtlpConfig, OtlpSpanProcessor
from obslib._otlp_encode import encode_span
from obslib._otlp_queue import SpanQueue
from obslib.exceptions import ConfigurationError
from tests.obslib.otlp_collector import (
    Collector,
    drip,
    hang,
    ok,
    ok_and_announce_close,
    ok_then_close,
    partial_success,
    reset,
    status,
)

SCOPE = InstrumentationScope("tests")
#: Long enough never to end by itself.
NEVER_SECONDS = 600.0


class Told:
    """What a processor reports."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.exported = 0
        self.errors: list[str] = []
        self._lock = threading.Lock()

    def on_dropped(self, reason: str, spans: int) -> None:
        with self._lock:
            self.dropped[reason] += spans

    def on_exported(self, spans: int) -> None:
        with self._lock:
            self.exported += spans


Make = Callable[..., OtlpSpanProcessor]


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    yield server
    server.stop()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(collector: Collector, told: Told) -> Iterator[Make]:
    """Make processors that send to the collector, at the end of the test only what is flushed."""
    made: list[OtlpSpanProcessor] = []
    before = senders()

    def make(**options: Any) -> OtlpSpanProcessor:
        config = OtlpConfig(**{"endpoint": collector.url, "flush_interval_seconds": NEVER_SECONDS, **options})
        resource = Resource({"service.name": "shop"}, "https://example.org/schema")
        processor = OtlpSpanProcessor(
            resource, config, on_dropped=told.on_dropped, on_exported=told.on_exported, on_error=told.errors.append
        )
        made.append(processor)
        return processor

    yield make
    collector.released.set()
    for processor in made:
        processor.close(0)
    for thread in senders() - before:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once rather than after a second."""
    monkeypatch.setattr(_otlp, "_FIRST_PAUSE_SECONDS", 0.01)


def span(name: str = "GET /", *, sampled: bool = True, attributes: dict[str, Any] | None = None) -> ReadableSpan:
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(sampled))
    return ReadableSpan(
        name,
        context=context,
        resource=Resource.get_empty(),
        instrumentation_scope=SCOPE,
        attributes=attributes,
        start_time=1,
        end_time=2,
    )


def end(processor: OtlpSpanProcessor, *span_names: str) -> None:
    for name in span_names:
        processor.on_end(span(name))


def senders() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "obslib-span-sender"}


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.005)


def wait_for_sleep(processor: OtlpSpanProcessor) -> None:
    """Wait until the sender has heard every ring so far: only a new one wakes it."""
    eventually(processor._queue._bell.locked)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_nothing_starts_before_start(make: Make, collector: Collector, told: Told) -> None:
    """Spans that end before `start` wait without thread or connection; the thread then keeps no interpreter alive."""
    before = senders()
    processor = make()
    end(processor, "a", "b")

    assert not processor.force_flush(10_000)
    assert (senders() - before, collector.connections) == (set(), 0)

    processor.start()
    processor.start()

    assert [thread.daemon for thread in senders() - before] == [True]
    assert processor.force_flush(10_000)
    assert (collector.names(), told.exported, told.dropped) == (["a", "b"], 2, {})


def test_a_full_batch_is_sent_at_once(make: Make, collector: Collector) -> None:
    """As soon as a batch is full it is sent, however long the interval; what does not fill one waits."""
    processor = make(batch_max_spans=4)
    processor.start()
    end(processor, "a")
    wait_for_sleep(processor)
    assert len(processor._queue.spans) == 1

    end(processor, *"bcdefghi")
    collector.wait(2)

    assert collector.sizes() == [4, 4]


def test_large_spans_are_sent_before_they_fill_the_queue(make: Make, collector: Collector) -> None:
    """Half of the queue's bytes make a batch, however few spans they are."""
    processor = make(queue_max_bytes=4000)
    processor.start()

    for _ in range(2):
        wait_for_sleep(processor)
        processor.on_end(span(attributes={"a": "x" * 1000}))
    collector.wait(1)

    assert collector.sizes() == [2]


def test_a_lonely_span_is_sent_after_the_interval(make: Make, collector: Collector, told: Told) -> None:
    """What does not fill a batch leaves when the flush interval has passed since the first span of it."""
    processor = make(flush_interval_seconds=0.05)
    processor.start()

    end(processor, "a")
    collector.wait(1)
    end(processor, "b")
    collector.wait(2)

    assert collector.names() == ["a", "b"]


def test_unsampled_spans_are_not_sent(make: Make, collector: Collector, told: Told) -> None:
    """A span that records without being sampled, or has no ids at all, is neither sent nor counted."""
    processor = make()
    processor.start()
    processor.on_end(span("unsampled", sampled=False))
    processor.on_end(ReadableSpan("none", resource=Resource.get_empty()))
    end(processor, "a")

    assert processor.force_flush(10_000)
    assert (collector.names(), told.dropped) == (["a"], {})


def test_spans_may_come_encoded(make: Make, collector: Collector) -> None:
    """`enqueue` takes what `encode_span` returns, under the scope it is given."""
    processor = make()
    processor.start()
    processor.enqueue([(SCOPE, encode_span(span("a")))])

    assert processor.force_flush(10_000)
    request = collector.requests[0][2].resource_spans[0]
    assert (request.scope_spans[0].scope.name, request.scope_spans[0].spans[0].name) == ("tests", "a")
    assert (request.resource.attributes[0].value.string_value, request.schema_url) == (
        "shop",
        "https://example.org/schema",
    )


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_requests_are_what_the_protocol_asks_for(make: Make, collector: Collector, compression: str) -> None:
    """Path, query, media type, compression and user agent follow OTLP/HTTP; the configured headers are sent along."""
    processor = make(
        endpoint=collector.url + "?tenant=1", headers={"Authorization": "Bearer t"}, compression=compression
    )
    processor.start()
    end(processor, "a")

    assert processor.force_flush(10_000)
    path, headers, _ = collector.requests[0]
    headers.pop("content-length", None)
    assert path == "/v1/traces?tenant=1"
    assert {name.lower(): value for name, value in headers.items()} == {
        "host": collector.url.split("/")[2],
        "accept-encoding": "identity",
        "content-length": headers["Content-Length"],
        "content-type": "application/x-protobuf",
        "user-agent": f"obslib-OTLP-Exporter-Python/{obslib.__version__}",
        "authorization": "Bearer t",
        **({"content-encoding": "gzip"} if compression == "gzip" else {}),
    }


def test_the_user_agent_can_be_configured(make: Make, collector: Collector) -> None:
    """Configured headers win over ours whatever their case, but for the one that says what the body is."""
    processor = make(headers={"USER-AGENT": "shop/1", "Content-Type": "text/plain"})
    processor.start()
    end(processor, "a")

    assert processor.force_flush(10_000)
    headers = {name.lower(): value for name, value in collector.requests[0][1].items()}
    assert (headers["user-agent"], headers["content-type"]) == ("shop/1", "application/x-protobuf")


def test_headers_are_masked() -> None:
    """The representation of a configuration shows which headers there are, not what they say."""
    shown = repr(OtlpConfig(endpoint="http://c/v1/traces", headers={"authorization": "Bearer secret"}))

    assert "authorization" in shown
    assert "secret" not in shown


# --- connections -----------------------------------------------------------------------------------------------------


def test_the_connection_is_kept(make: Make, collector: Collector) -> None:
    """Several batches use one connection."""
    processor = make()
    processor.start()
    for name in "abc":
        end(processor, name)
        assert processor.force_flush(10_000)

    assert (collector.names(), collector.connections) == (["a", "b", "c"], 1)


@pytest.mark.parametrize("behaviour", [ok_then_close, ok_and_announce_close])
def test_a_connection_that_was_closed_is_renewed(make: Make, collector: Collector, told: Told, behaviour: Any) -> None:
    """A collector may close the connection between batches, with or without a word: nobody notices."""
    collector.behaviour = behaviour
    processor = make()
    processor.start()
    for name in "abc":
        end(processor, name)
        assert processor.force_flush(10_000)

    assert (collector.names(), collector.connections, told.errors) == (["a", "b", "c"], 3, [])


def test_an_endless_answer_is_not_read_to_its_end(make: Make, collector: Collector, told: Told) -> None:
    """Of an answer's body 64 KiB are read; the rest costs the connection, not the memory."""
    collector.script.append(status(200, body=bytes(200_000)))
    processor = make()
    processor.start()
    for name in "ab":
        end(processor, name)
        assert processor.force_flush(10_000)

    assert (collector.connections, told.exported, told.errors) == (2, 2, [])


@pytest.mark.usefixtures("soon")
def test_a_broken_connection_is_tried_again(make: Make, collector: Collector, told: Told) -> None:
    """A connection that breaks without an answer, a new one, too, is a reason to try again."""
    collector.script.extend([reset, reset])
    processor = make()
    processor.start()
    end(processor, "a")

    assert processor.force_flush(10_000)
    assert (collector.names(), told.exported, told.dropped) == (["a", "a", "a"], 1, {})
    assert len(told.errors) == 2


@pytest.mark.usefixtures("soon")
def test_a_collector_that_comes_late_gets_everything(make: Make, collector: Collector, told: Told) -> None:
    """While nothing listens, spans wait; when it does, they arrive."""
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    processor = make(endpoint=f"http://127.0.0.1:{port}/")
    processor.start()
    end(processor, "a")
    assert not processor.force_flush(50)
    eventually(lambda: len(told.errors) > 1)
    assert told.errors[0].startswith("ConnectionRefusedError")
    assert (told.exported, told.dropped) == (0, {})

    late = Collector(port=port)
    try:
        assert processor.force_flush(10_000)
        assert (late.names(), told.exported, told.dropped) == (["a"], 1, {})
    finally:
        late.stop()


# --- answers ---------------------------------------------------------------------------------------------------------

LONG_AGO = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)


@pytest.mark.parametrize("code", [429, 502, 503, 504])
@pytest.mark.parametrize("retry_after", ["0", LONG_AGO])
def test_retryable_answers_are_tried_again_when_asked(
    make: Make, collector: Collector, told: Told, monkeypatch: pytest.MonkeyPatch, code: int, retry_after: str
) -> None:
    """A batch that a busy collector sent away comes again when `Retry-After`, seconds or a date, says so."""
    monkeypatch.setattr(_otlp, "_FIRST_PAUSE_SECONDS", NEVER_SECONDS)
    collector.script.append(status(code, {"retry-after": retry_after}))
    processor = make()
    processor.start()
    end(processor, "a")

    assert processor.force_flush(10_000)
    assert (collector.names(), told.exported, told.dropped) == (["a", "a"], 1, {})
    assert told.errors[0].startswith(f"The collector answered {code} ")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("headers", [{}, {"retry-after": "soon"}, {"retry-after": "-5"}])
def test_retryable_answers_without_a_time_are_tried_again_later(
    make: Make, collector: Collector, told: Told, headers: dict[str, str]
) -> None:
    """Without `Retry-After`, or with one that cannot be read, the pause is our own."""
    collector.script.extend([status(503, headers)] * 3)
    processor = make()
    processor.start()
    end(processor, "a")

    assert processor.force_flush(10_000)
    assert (len(collector.requests), told.exported) == (4, 1)


def test_a_pause_beyond_the_deadline_ends_the_batch(make: Make, collector: Collector, told: Told) -> None:
    """Where `Retry-After` lies beyond the batch's time-out the batch is given up at once, and the next one is sent."""
    collector.script.append(status(503, {"retry-after": "3600"}))
    processor = make()
    processor.start()
    for name in "ab":
        end(processor, name)
        assert processor.force_flush(10_000)

    assert (told.exported, told.dropped) == (1, {names.DROPPED_EXPORT_FAILED: 1})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (302, names.DROPPED_EXPORT_FAILED),
        (400, names.DROPPED_REJECTED),
        (401, names.DROPPED_REJECTED),
        (500, names.DROPPED_EXPORT_FAILED),
        (501, names.DROPPED_EXPORT_FAILED),
    ],
)
def test_final_answers_are_not_tried_again(
    make: Make, collector: Collector, told: Told, code: int, reason: str
) -> None:
    """Any other answer than success ends the batch: it is counted, and no redirect is followed."""
    collector.script.append(status(code, {"location": collector.url}))
    processor = make()
    processor.start()
    end(processor, "a", "b")

    assert processor.force_flush(10_000)
    assert (len(collector.requests), told.exported, told.dropped) == (1, 0, {reason: 2})
    assert told.errors[0].startswith(f"The collector answered {code} ")


def test_a_batch_that_is_too_large_comes_in_halves(make: Make, collector: Collector, told: Told) -> None:
    """After a 413 each half is tried once; a half that is too large still is dropped."""
    collector.script.extend([status(413), ok, status(413)])
    processor = make()
    processor.start()
    end(processor, *"abcde")

    assert processor.force_flush(10_000)
    assert (collector.sizes(), told.exported, told.dropped) == ([5, 2, 3], 2, {names.DROPPED_TOO_LARGE: 3})


def test_a_span_that_is_too_large_is_dropped(make: Make, collector: Collector, told: Told) -> None:
    """A single span has no halves."""
    collector.script.append(status(413))
    processor = make()
    processor.start()
    end(processor, "a")

    assert processor.force_flush(10_000)
    assert (collector.sizes(), told.dropped) == ([1], {names.DROPPED_TOO_LARGE: 1})


@pytest.mark.parametrize(("rejected", "exported"), [(2, 1), (3, 0), (99, 0)])
def test_partial_success_is_counted(make: Make, collector: Collector, told: Told, rejected: int, exported: int) -> None:
    """Spans that the collector refuses within a success count as rejected, never more than there were."""
    collector.script.append(partial_success(rejected, "no name: ü"))
    processor = make()
    processor.start()
    end(processor, *"abc")

    assert processor.force_flush(10_000)
    assert (told.exported, told.dropped) == (exported, {names.DROPPED_REJECTED: 3 - exported})
    assert told.errors == [f"The collector rejected {rejected} spans: no name: ü"]


def test_partial_success_may_have_neighbours(make: Make, collector: Collector, told: Told) -> None:
    """Fields that a later version of the protocol adds, of whatever type, do not hide the rejected spans."""
    fixed64, fixed32, text = b"\x11" + b"\xff" * 8, b"\x1d" + b"\xff" * 4, b"\x22\x01x"
    collector.script.append(status(200, body=fixed64 + fixed32 + text + b"\x0a\x04\x08\x01\x18\x05"))
    processor = make()
    processor.start()
    end(processor, "a", "b")

    assert processor.force_flush(10_000)
    assert (told.exported, told.dropped) == (1, {names.DROPPED_REJECTED: 1})


def test_a_warning_within_a_success_is_reported(make: Make, collector: Collector, told: Told) -> None:
    """A collector that takes everything may still have something to say."""
    collector.script.append(partial_success(0, "use gzip"))
    processor = make()
    processor.start()
    end(processor, "a")

    assert processor.force_flush(10_000)
    assert (told.exported, told.dropped) == (1, {})
    assert told.errors == ["The collector rejected 0 spans: use gzip"]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"\x0a\x20",  # ends within a field
        b"\x0a\x20\x08\x01",
        b"\x0a\xff",  # ends within a length
        b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # -1 spans
        b"\x11\x01\x02\x03\x04\x05\x06\x07\x08\x15\x01\x02\x03\x04\x0a\x02\x18\x07",  # fields from the future
        b"\x08\x01\x0a\x04\x0a\x00\x10\x01",  # known numbers with other types
    ],
)
def test_a_success_that_says_nothing_clear_is_a_success(
    make: Make, collector: Collector, told: Told, body: bytes
) -> None:
    """The body of a success that is no answer we know changes nothing."""
    collector.script.append(status(200, body=body))
    processor = make()
    processor.start()
    end(processor, "a")

    assert processor.force_flush(10_000)
    assert (told.exported, told.dropped, told.errors) == (1, {}, [])


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_the_queue_is_bounded_in_spans(make: Make, collector: Collector, told: Told) -> None:
    """Beyond the number of spans the newest are dropped and counted."""
    processor = make(queue_max_spans=3, batch_max_spans=3)
    end(processor, *"abcde")
    processor.enqueue([(SCOPE, encode_span(span("f")))])
    processor.start()

    assert processor.force_flush(10_000)
    assert (collector.names(), told.dropped) == (["a", "b", "c"], {names.DROPPED_QUEUE_FULL: 3})


def test_the_queue_is_bounded_in_bytes(make: Make, collector: Collector, told: Told) -> None:
    """Beyond the number of bytes the newest are dropped and counted; room that is given back can be used again."""
    processor = make(queue_max_bytes=2500)
    for name in "abc":
        processor.on_end(span(name, attributes={"a": "x" * 1000}))
    processor.start()
    assert processor.force_flush(10_000)
    processor.on_end(span("d", attributes={"a": "x" * 1000}))

    assert processor.force_flush(10_000)
    assert (collector.names(), told.dropped) == (["a", "b", "d"], {names.DROPPED_QUEUE_FULL: 1})


def test_a_span_that_cannot_be_encoded_is_counted(make: Make, collector: Collector, told: Told) -> None:
    """A span that is not what the SDK promises costs itself only."""
    processor = make()
    processor.start()
    processor.on_end(span(None))  # type: ignore[arg-type]  # that is the point
    end(processor, "a")

    assert processor.force_flush(10_000)
    assert (collector.names(), told.dropped) == (["a"], {names.DROPPED_ENCODING_FAILED: 1})
    assert told.errors[0].startswith("A span could not be encoded: AttributeError")


def test_a_full_queue_costs_no_encoding(make: Make, told: Told) -> None:
    """Where there is no room a span is not looked at: a dead collector must not cost what a living one does."""
    processor = make(queue_max_spans=1, batch_max_spans=1)
    end(processor, "a")
    processor.on_end(span(None))  # type: ignore[arg-type]  # encoding it would be counted otherwise

    assert told.dropped == {names.DROPPED_QUEUE_FULL: 1}


def test_a_span_may_end_while_the_same_thread_queues_another(make: Make, collector: Collector) -> None:
    """A finalizer that ends a span while its thread holds the queue does not wait for itself."""
    processor = make()
    with processor._queue._lock:
        end(processor, "a")
    processor.start()

    assert processor.force_flush(10_000)
    assert collector.names() == ["a"]


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_flush_honours_its_timeout(make: Make, collector: Collector, told: Told) -> None:
    """`force_flush` returns False when its time is over, and the spans still arrive."""
    collector.script.append(hang)
    processor = make()
    processor.start()
    end(processor, "a")
    began = time.monotonic()

    assert not processor.force_flush(100)
    assert 0.1 <= time.monotonic() - began < 5

    collector.released.set()
    assert processor.force_flush(10_000)
    assert told.exported == 1


def test_flush_waits_for_what_ended_before_it(make: Make, collector: Collector) -> None:
    """`force_flush` has to wait for spans that ended before the call, in as many batches as it takes."""
    processor = make(batch_max_spans=2)
    processor.start()
    end(processor, *"abcde")

    assert processor.force_flush(10_000)
    assert (collector.names(), collector.sizes()) == (list("abcde"), [2, 2, 1])


@pytest.mark.parametrize("behaviour", [hang, drip])
def test_a_batch_ends_with_its_timeout(make: Make, collector: Collector, told: Told, behaviour: Any) -> None:
    """An answer that never comes, or comes byte by byte, ends when the batch's time is over."""
    collector.script.append(behaviour)
    processor = make(timeout_seconds=0.3)
    processor.start()
    end(processor, "a")
    began = time.monotonic()

    assert processor.force_flush(10_000)
    assert 0.3 <= time.monotonic() - began < 5
    assert (told.dropped, told.errors) == ({names.DROPPED_EXPORT_FAILED: 1}, ["TimeoutError: timed out"])


def _silent_server() -> socket.socket:
    """Accepts connections by its backlog, and never says a word."""
    return socket.create_server(("127.0.0.1", 0))


def test_a_handshake_ends_with_the_timeout(make: Make, told: Told) -> None:
    """TLS with a server that does not speak it ends when the batch's time is over."""
    with _silent_server() as server:
        processor = make(endpoint=f"https://127.0.0.1:{server.getsockname()[1]}/", timeout_seconds=0.3)
        processor.start()
        end(processor, "a")

        assert processor.force_flush(10_000)
    assert told.dropped == {names.DROPPED_EXPORT_FAILED: 1}


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://collector", ("collector", 80)),
        ("https://collector/v1/traces", ("collector", 443)),
        ("https://[::1]:4318/v1/traces", ("::1", 4318)),
    ],
)
def test_endpoints_have_the_ports_of_their_schemes(
    make: Make, told: Told, monkeypatch: pytest.MonkeyPatch, endpoint: str, address: tuple[str, int]
) -> None:
    """Without a port in the endpoint the connection goes to 80 or, with TLS, to 443."""
    addresses = []

    def create_connection(address: tuple[str, int], _timeout_seconds: float) -> socket.socket:
        addresses.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", create_connection)
    processor = make(endpoint=endpoint, timeout_seconds=0.1)
    processor.start()
    end(processor, "a")

    assert processor.force_flush(10_000)
    assert addresses == [address]


def test_a_batch_that_is_read_too_slowly_ends_with_its_timeout(make: Make, told: Told) -> None:
    """A collector that reads a little at a time, always in time, ends with the batch's deadline, too."""
    done = threading.Event()

    def read_slowly() -> None:
        with server.accept()[0] as connection:
            while not done.wait(0.05):
                connection.recv(65_536)

    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        server.bind(("127.0.0.1", 0))
        server.listen()
        reader = threading.Thread(target=read_slowly)
        reader.start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}/"
        processor = make(endpoint=endpoint, timeout_seconds=0.5, queue_max_bytes=100_000_000)
        processor.on_end(span(attributes={"a": "x" * 40_000_000}))
        processor.start()
        began = time.monotonic()

        assert processor.force_flush(20_000)
        assert time.monotonic() - began < 5
        done.set()
        reader.join()
    assert told.dropped == {names.DROPPED_EXPORT_FAILED: 1}


def test_an_answer_that_comes_too_late_begins_nothing(make: Make, collector: Collector, told: Told) -> None:
    """A deadline that has passed already ends an attempt before it begins."""
    connection = _otlp_http.CollectorConnection(OtlpConfig(endpoint=collector.url))

    with pytest.raises(TimeoutError):
        connection.post(b"", time.monotonic() - 1)
    assert collector.connections == 0


def test_close_sends_what_is_queued(make: Make, collector: Collector, told: Told) -> None:
    """`close` sends without waiting for the interval, ends the thread, and tells that nothing was lost."""
    before = senders()
    processor = make(batch_max_spans=2)
    processor.start()
    end(processor, *"abc")

    assert processor.close(10)
    assert (collector.names(), told.exported, told.dropped) == (["a", "b", "c"], 3, {})
    assert senders() <= before


def test_close_sends_what_is_queued_without_start(make: Make, collector: Collector, told: Told) -> None:
    """A program that never started the thread does not lose its spans at its end."""
    processor = make()
    end(processor, "a")

    assert processor.close(10)
    assert (collector.names(), told.exported) == (["a"], 1)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("headers", [{}, {"retry-after": LONG_AGO}])
def test_close_tries_again_within_its_deadline(
    make: Make, collector: Collector, told: Told, headers: dict[str, str]
) -> None:
    """A collector that is busy for a moment when the process ends gets the spans nevertheless."""
    collector.script.append(status(503, headers))
    processor = make()
    end(processor, "a")

    assert processor.close(10)
    assert (len(collector.requests), told.exported, told.dropped) == (2, 1, {})


def test_a_closed_processor_can_be_started_again(make: Make, collector: Collector) -> None:
    """Spans that end after `close` wait for the next `start`: a server may have several lifespans."""
    processor = make()
    processor.start()
    end(processor, "a")
    assert processor.close(10)
    end(processor, "b")
    assert collector.names() == ["a"]

    processor.start()
    assert processor.force_flush(10_000)
    assert collector.names() == ["a", "b"]


@pytest.mark.parametrize("behaviour", [hang, drip])
def test_close_honours_its_deadline(make: Make, collector: Collector, told: Told, behaviour: Any) -> None:
    """A collector that does not answer holds `close` no longer than its deadline; what came of it counts no more."""
    collector.behaviour = behaviour
    before = senders()
    processor = make(batch_max_spans=2)
    processor.start()
    end(processor, "a", "b", "c")
    collector.wait(1)
    began = time.monotonic()

    assert not processor.close(0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert (told.exported, told.dropped) == (0, {names.DROPPED_SHUTDOWN: 3})

    collector.released.set()
    eventually(lambda: senders() <= before)
    assert (told.exported, told.dropped) == (0, {names.DROPPED_SHUTDOWN: 3})
    assert collector.names() == ["a", "b"]


def test_close_does_not_wait_for_a_handshake(make: Make, told: Told) -> None:
    """TLS with a server that does not speak it ends with the deadline."""
    with _silent_server() as server:
        processor = make(endpoint=f"https://127.0.0.1:{server.getsockname()[1]}/")
        processor.start()
        end(processor, "a")
        began = time.monotonic()

        assert not processor.close(0.3)
        assert time.monotonic() - began < 5
    assert told.dropped == {names.DROPPED_SHUTDOWN: 1}


def test_close_does_not_wait_for_a_connection(make: Make, told: Told) -> None:
    """A host that swallows the attempt to connect ends with the deadline."""
    with socket.socket() as server, socket.socket() as filler, socket.socket() as another:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for client in (filler, another):
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        processor = make(endpoint=f"http://127.0.0.1:{server.getsockname()[1]}/")
        processor.start()
        end(processor, "a")
        began = time.monotonic()

        assert not processor.close(0.3)
        assert time.monotonic() - began < 5
    assert told.dropped == {names.DROPPED_SHUTDOWN: 1}


def test_close_gives_a_dead_collector_up_early(make: Make, told: Told) -> None:
    """Where nothing listens, `close` stops at the first batch whose next attempt would come too late."""
    with _silent_server() as server:
        port = server.getsockname()[1]
    processor = make(endpoint=f"http://127.0.0.1:{port}/", batch_max_spans=1, timeout_seconds=0.5)
    end(processor, *"abc")
    began = time.monotonic()

    assert not processor.close(60)
    assert time.monotonic() - began < 30
    assert (told.dropped, len(told.errors)) == ({names.DROPPED_SHUTDOWN: 3}, 1)


def test_an_idle_processor_closes_at_once(make: Make, collector: Collector, told: Told) -> None:
    """With nothing to send there is no connection, and nothing to wait for, thread or no thread."""
    processor = make()
    assert processor.close(60)
    processor.start()
    assert processor.force_flush(0)
    assert processor.close(60)

    assert (collector.connections, told.dropped, told.errors) == (0, {}, [])


def test_shutdown_is_for_good(make: Make, collector: Collector, told: Told) -> None:
    """After `shutdown` spans are ignored without being counted, and nothing starts again."""
    processor = make()
    processor.start()
    end(processor, "a")
    processor.shutdown()
    before = senders()
    end(processor, "b")
    processor.enqueue([(SCOPE, encode_span(span("c")))])
    processor.start()

    assert processor.force_flush(0)
    assert (collector.names(), told.exported, told.dropped, senders() - before) == (["a"], 1, {}, set())


# --- what must not happen --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("soon")
def test_the_thread_survives(make: Make, collector: Collector, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody thought of costs one batch, which is counted, and the thread goes on."""
    processor = make(headers={"x": "1\n2"})
    processor.start()
    end(processor, "a")
    assert processor.force_flush(10_000)
    assert told.dropped == {names.DROPPED_EXPORT_FAILED: 1}
    eventually(lambda: bool(told.errors))
    assert told.errors[0].startswith("The sender thread failed: ValueError")

    monkeypatch.setattr(http.client.HTTPConnection, "request", _request_without_headers)
    end(processor, "b")
    assert processor.force_flush(10_000)
    assert collector.names() == ["b"]


_request = http.client.HTTPConnection.request


def _request_without_headers(self: http.client.HTTPConnection, *arguments: Any) -> None:
    _request(self, *arguments[:3])


@pytest.mark.usefixtures("soon")
def test_a_callback_that_fails_stops_nothing(
    make: Make, collector: Collector, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callback that raises does not end the thread, and nobody waits for ever for the spans it was about."""
    failing, count = iter([True]), told.on_exported

    def on_exported(spans: int) -> None:
        if next(failing, False):
            raise LookupError("no such counter")
        count(spans)

    monkeypatch.setattr(told, "on_exported", on_exported)
    processor = make()
    processor.start()
    for name in "ab":
        end(processor, name)
        assert processor.force_flush(10_000)

    assert (collector.names(), told.exported) == (["a", "b"], 1)
    assert told.errors == ["The sender thread failed: LookupError: no such counter"]


def test_a_thread_that_cannot_start_is_reported(
    make: Make, collector: Collector, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system refuses a thread, `start` reports it and the next `start` tries again."""
    processor = make()
    end(processor, "a")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refuse)
        processor.start()
    assert told.errors == ["The sender thread could not start: RuntimeError: can't start new thread"]

    processor.start()
    assert processor.force_flush(10_000)
    assert collector.names() == ["a"]


def _refuse(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_sends_its_own_spans_only(make: Make, collector: Collector) -> None:
    """After a fork parent and child send what ended in them, once each, while the parent holds the queue."""
    processor = make()
    processor.start()
    end(processor, "kept")
    assert processor.force_flush(10_000)
    end(processor, "parent")
    with processor._queue._lock:
        child = os.fork()
        if child == 0:
            processor.start()
            end(processor, "child")
            os._exit(0 if processor.force_flush(10_000) and processor.close(10) else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert processor.force_flush(10_000)
    assert sorted(collector.names()) == ["child", "kept", "parent"]


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate of 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    directory = tmp_path_factory.mktemp("certificates")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=collector"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "certificate.pem"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory


@pytest.fixture
def secure_collector(certificates: Path) -> Iterator[Collector]:
    """A collector that demands a certificate of its clients, too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "certificate.pem"))
    context.load_cert_chain(certificates / "certificate.pem", certificates / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = Collector(context)
    yield server
    server.stop()


def test_certificates_are_used_both_ways(
    make: Make, secure_collector: Collector, certificates: Path, told: Told
) -> None:
    """The collector is checked against the configured authority and shown the configured certificate."""
    processor = make(
        endpoint=secure_collector.url,
        certificate_file=str(certificates / "certificate.pem"),
        client_certificate_file=str(certificates / "certificate.pem"),
        client_key_file=str(certificates / "key.pem"),
    )
    processor.start()
    for name in "ab":
        end(processor, name)
        assert processor.force_flush(10_000)

    assert (secure_collector.names(), secure_collector.connections, told.errors) == (["a", "b"], 1, [])
    headers = secure_collector.requests[0][1]
    assert headers["Host"] == secure_collector.url.split("/")[2]


def test_an_unknown_collector_gets_nothing(make: Make, secure_collector: Collector, told: Told) -> None:
    """A certificate that nobody we trust signed ends the connection before a span is sent."""
    processor = make(endpoint=secure_collector.url, timeout_seconds=0.5)
    processor.start()
    end(processor, "a")

    assert processor.force_flush(10_000)
    assert (secure_collector.requests, told.dropped) == ([], {names.DROPPED_EXPORT_FAILED: 1})
    assert told.errors[0].startswith("SSLCertVerificationError")


@pytest.mark.parametrize("option", ["certificate_file", "client_certificate_file"])
def test_files_that_are_no_certificates_fail_at_once(make: Make, tmp_path: Path, option: str) -> None:
    """A certificate that cannot be read is a wrong set-up: the constructor says so."""
    with pytest.raises(ConfigurationError, match="must be PEM files that can be read"):
        make(endpoint="https://127.0.0.1/", **{option: str(tmp_path / "none.pem")})


def test_a_queue_that_was_given_up_takes_nothing() -> None:
    """A span that ends meanwhile is left out, to be counted by whoever brought it."""
    queue = SpanQueue(OtlpConfig(endpoint="http://127.0.0.1:1/v1/traces"))
    assert queue.put([(None, b"a"), (None, b"b")]) == 2
    assert queue.abandon() == 2
    assert queue.put([(None, b"c")]) == 0
