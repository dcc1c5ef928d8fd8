"""`make comparison`: the same questions to obslib and its peers, each in its own process, for docs/comparison.md."""

import argparse
import asyncio
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, generate_latest
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse

import obslib

PAGE: Final = Path(__file__).parents[1] / "docs" / "comparison.md"
BEGIN: Final = "<!-- begin: written by make comparison -->"
END: Final = "<!-- end -->"
_SECONDS: Final = 60
#: How long the task after the response takes: the question is only whether a duration contains it.
_BACKGROUND_SECONDS: Final = 0.3

PEERS: Final[dict[str, tuple[str, ...]]] = {
    "obslib": (),
    "obslib, contrib's engine": ("opentelemetry-instrumentation-fastapi",),
    "contrib": ("opentelemetry-instrumentation-fastapi",),
    "FastAPI native": ("fastapi",),
    "PFI": ("prometheus-fastapi-instrumentator",),
    "starlette_exporter": ("starlette-exporter",),
    "logfire": ("logfire",),
}


def build() -> FastAPI:
    """Make the application that is asked."""
    app, inner = FastAPI(), FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    @inner.get("/leaf/{x}")
    async def leaf(x: str) -> str:
        return x

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("broken")

    @app.get("/background")
    async def background() -> PlainTextResponse:
        return PlainTextResponse("x", background=BackgroundTask(asyncio.sleep, _BACKGROUND_SECONDS))

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"x" * 10] * 3))

    app.mount("/in/{tenant}", inner)
    return app


class Watched:
    """An application under a peer, with every span that it makes."""

    def __init__(self, app: FastAPI, exporter: InMemorySpanExporter, metrics: Callable[[], str]) -> None:
        self._app = app
        self._exporter = exporter
        self._metrics = metrics

    def ask(self, path: str, method: str = "GET", query: bytes = b"") -> int | str:
        """Send one request; return the status, or the exception's class where there was no answer."""
        statuses: list[int] = []
        body = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            if body:
                return body.pop()
            await asyncio.Event().wait()
            raise AssertionError("nothing sets that event")

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", b"shop")],
            "client": ("192.0.2.7", 1),
            "server": ("shop", 80),
        }
        try:
            asyncio.run(self._app(scope, receive, send))
        except Exception as error:  # noqa: BLE001 -- what it raises is the answer
            return statuses[0] if statuses else type(error).__name__
        return statuses[0] if statuses else "no answer"

    def spans(self) -> list[ReadableSpan]:
        """Return the spans since the last call."""
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans

    def metrics(self) -> str:
        """Return what a scrape of the peer's metrics answers; empty if it has none."""
        return self._metrics()


# --- the questions ---------------------------------------------------------------------------------------------------


def _servers(watched: Watched) -> list[ReadableSpan]:
    return [span for span in watched.spans() if span.kind is trace.SpanKind.SERVER]


def _spans_of_one_request(watched: Watched) -> str:
    watched.ask("/items/3")
    spans = watched.spans()
    servers = [span for span in spans if span.kind is trace.SpanKind.SERVER]
    return f"{len(servers)} SERVER, {len(spans) - len(servers)} other" if spans else "-"


def _mounted_route(watched: Watched) -> str:
    watched.ask("/in/acme/leaf/7")
    servers = _servers(watched)
    if servers:
        return " + ".join(str((span.attributes or {}).get("http.route")) for span in servers)
    templates = ("/in/{tenant}/leaf/{x}", "/in/{tenant}", "/in/acme/leaf/7", "/leaf/{x}")
    return next((it for it in templates if f'"{it}"' in watched.metrics()), "none")


def _unreadable_query(watched: Watched) -> str:
    return str(watched.ask("/items/3", query=b"q=\xff"))


def _invented_method(watched: Watched) -> str:
    for method in ("BREW", "STEEP"):
        watched.ask("/items/3", method)
    text = watched.metrics()
    found = [method for method in ("BREW", "STEEP") if f'"{method}"' in text]
    return f"{len(found)} of 2 are labels" if text else "-"


def _stack_trace(watched: Watched) -> str:
    watched.ask("/boom")
    servers = _servers(watched)
    if not servers:
        return "-"
    events = [event for span in servers for event in span.events if event.name == "exception"]
    return f"{len(events)} on the span"


def _secret_in_query(watched: Watched) -> str:
    watched.ask("/items/3", query=b"password=geheim")
    servers = _servers(watched)
    return "-" if not servers else "shown" if any("geheim" in str(span.attributes) for span in servers) else "hidden"


def _background(watched: Watched) -> str:
    before = _duration_sum(watched.metrics())
    watched.ask("/background")
    spans = _servers(watched)
    parts = []
    if spans and spans[0].start_time is not None and spans[0].end_time is not None:
        parts.append(f"span: {_is_in((spans[0].end_time - spans[0].start_time) / 1e9)}")
    if watched.metrics():
        parts.append(f"metric: {_is_in(_duration_sum(watched.metrics()) - before)}")
    return ", ".join(parts)


def _is_in(seconds: float) -> str:
    return "contained" if seconds >= _BACKGROUND_SECONDS else "not contained"


def _duration_sum(text: str) -> float:
    """Return the sum of the histograms of durations; a peer may have one by handler and one for all: the largest."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if "duration" in name and name.endswith("_sum"):
            sums[name] = sums.get(name, 0.0) + float(line.rpartition(" ")[2])
    return max(sums.values(), default=0.0)


QUESTIONS: Final[dict[str, Callable[[Watched], str]]] = {
    "spans of one request": _spans_of_one_request,
    "route of a request to a mounted application": _mounted_route,
    "a query string that is not UTF-8": _unreadable_query,
    "invented methods": _invented_method,
    "an exception nobody handles": _stack_trace,
    "a password in the query string": _secret_in_query,
    "the duration and a background task": _background,
}


# --- the peers -------------------------------------------------------------------------------------------------------


@contextmanager
def watching(peer: str) -> Iterator[Watched]:
    """Put an application under a peer, as its documentation shows it."""
    app, exporter = build(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    if peer.startswith("obslib"):
        settings = obslib.Settings(
            service_name="shop",
            engine="contrib" if "contrib" in peer else "obslib",
            traces_exporter="none",
            logs_enabled=False,
            extra_registries=(),
        )
        with obslib.instrument(app, settings) as observability:
            ours = observability.tracer_provider
            assert isinstance(ours, TracerProvider)
            ours.add_span_processor(SimpleSpanProcessor(exporter))

            def scrape() -> str:
                observability.flush()
                return generate_latest(observability.registry).decode()

            yield Watched(app, exporter, scrape)
        return
    _apply(peer, app, provider)
    has_metrics = peer in {"PFI", "starlette_exporter"}
    yield Watched(app, exporter, (lambda: generate_latest(REGISTRY).decode()) if has_metrics else lambda: "")


def _apply(peer: str, app: FastAPI, provider: TracerProvider) -> None:
    if peer == "contrib":
        module = importlib.import_module("opentelemetry.instrumentation.fastapi")
        module.FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    elif peer == "FastAPI native":
        trace.set_tracer_provider(provider)
    elif peer == "PFI":
        importlib.import_module("prometheus_fastapi_instrumentator").Instrumentator().instrument(app).expose(app)
    elif peer == "starlette_exporter":
        module = importlib.import_module("starlette_exporter")
        app.add_middleware(module.PrometheusMiddleware)
        app.add_route("/metrics", module.handle_metrics)
    else:
        module = importlib.import_module("logfire")
        span_processors = [provider._active_span_processor]  # noqa: SLF001 -- so that its own provider is watched
        module.configure(
            send_to_logfire=False, console=False, inspect_arguments=False, additional_span_processors=span_processors
        )
        module.instrument_fastapi(app)


def answers_of(peer: str) -> dict[str, str]:
    """Ask one peer everything, in this process."""
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    with watching(peer) as watched:
        return {question: ask(watched) for question, ask in QUESTIONS.items()}


def _asked_in_a_process(peer: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.comparison", "--peer", peer],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{peer}:\n{done.stderr}")
    answers: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answers


def table(said: dict[str, dict[str, str]]) -> str:
    """Return the answers as Markdown, a column for each peer."""
    peers = list(said)
    lines = [f"| asked | {' | '.join(peers)} |", f"|---|{'---|' * len(peers)}"]
    for question in QUESTIONS:
        cells = [said[peer][question].replace("{", "&#123;") for peer in peers]
        lines.append(f"| {question} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _versions() -> str:
    packages = sorted({package for packages in PEERS.values() for package in packages} | {"opentelemetry-sdk"})
    return "Versions: " + ", ".join(f"{package} {_version(package)}" for package in packages) + "."


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Ask one peer, or all of them and write their answers into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument("--peer", choices=list(PEERS))
    chosen = parser.parse_args()
    if chosen.peer:
        print(json.dumps(answers_of(chosen.peer)))
        return
    text = f"{_versions()}\n\n{table({peer: _asked_in_a_process(peer) for peer in PEERS})}"
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    print(text)


if __name__ == "__main__":
    main()
