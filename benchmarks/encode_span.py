"""
What it costs to make OTLP bytes of spans: by hand when each one ends, or by the stock encoder a batch at a time.

`python -m benchmarks.encode_span` interleaves the variants in one process and prints medians of their rounds: compare
the ratios of one run, never times of two.
"""

import platform
import statistics
import time
from collections.abc import Callable, Sequence

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

from obslib._otlp import OtlpConfig, OtlpSpanProcessor
from obslib._otlp_encode import encode_batch, encode_resource, encode_span

ROUNDS = 31
SPANS = 2048
BATCH = 512


class _Ended(SpanProcessor):
    """Keeps what ends."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def make_spans(provider: TracerProvider) -> list[ReadableSpan]:
    """Return SERVER spans with ten attributes, one of which is never the same."""
    ended = _Ended()
    provider.add_span_processor(ended)
    tracer = provider.get_tracer("obslib", "0.1.0")
    for number in range(SPANS):
        attributes: dict[str, str | int] = {
            "http.request.method": "GET",
            "http.route": "/items/{item_id}",
            "http.response.status_code": 200,
            "url.path": f"/items/{number}",
            "url.scheme": "http",
            "server.address": "localhost",
            "server.port": 8000,
            "client.address": f"10.0.0.{number % 8}",
            "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64) wrk/4.1",
            "network.protocol.version": "1.1",
        }
        tracer.start_span("GET /items/{item_id}", kind=SpanKind.SERVER, attributes=attributes).end()
    return ended.spans


def make_processor(provider: TracerProvider) -> OtlpSpanProcessor:
    """Return a processor that has room for everything and is never started."""
    config = OtlpConfig(endpoint="http://localhost/", queue_max_spans=1 << 30, queue_max_bytes=1 << 40)
    return OtlpSpanProcessor(
        provider.resource,
        config,
        on_dropped=lambda _reason, _spans: None,
        on_exported=lambda _spans: None,
        on_error=lambda _sentence: None,
    )


def main() -> None:
    """Measure and print."""
    provider = TracerProvider(shutdown_on_exit=False)
    spans = make_spans(provider)
    resource = encode_resource(provider.resource)
    encoded = [(span.instrumentation_scope, encode_span(span)) for span in spans]
    batches = [slice(start, start + BATCH) for start in range(0, SPANS, BATCH)]

    def on_end() -> None:
        processor = make_processor(provider)
        for span in spans:
            processor.on_end(span)

    variants: dict[str, Callable[[], Sequence[object] | None]] = {
        "stock: encode_spans + SerializeToString": lambda: [
            encode_spans(spans[b]).SerializeToString() for b in batches
        ],
        "ours: encode_span": lambda: [encode_span(span) for span in spans],
        "ours: on_end (encode_span and the queue)": on_end,
        "ours: encode_batch, in the sender thread": lambda: [encode_batch(resource, encoded[b]) for b in batches],
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            seconds[name].append((time.perf_counter() - start) / SPANS)

    stock = statistics.median(next(iter(seconds.values())))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, {ROUNDS} rounds of {SPANS} SERVER spans with 10 attributes, batches of {BATCH}")
    print(f"{'variant':<42} {'µs a span: median':>18} {'least':>8} {'of stock':>9}")
    for name, measured in seconds.items():
        median = statistics.median(measured)
        print(f"{name:<42} {median * 1e6:>18.2f} {min(measured) * 1e6:>8.2f} {median / stock:>9.3f}")


if __name__ == "__main__":
    main()
