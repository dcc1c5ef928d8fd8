"""`/metrics`: one answer in Prometheus' text format or OpenMetrics, made in slices so that requests pass in between.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ (text 0.0.4) and OpenMetrics 1.0.0.
"""

import asyncio
import hmac
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_latest_openmetrics

from obslib import names
from obslib._instruments import Instruments

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
#: Label sets rendered in one go; a histogram has about 17 lines, so this is some 200 lines.
_SLICE_CHILDREN: Final = 12
_PAUSE_SECONDS: Final = 0.0002
_GZIP_LEVEL: Final = 1
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_GZIP_BYTES: Final = 64 * 1024

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Plan(NamedTuple):
    """How to answer a request: with the metrics, or with a refusal that is complete."""

    status: int
    headers: tuple[tuple[str, str], ...]
    content_type: str = "text/plain; charset=utf-8"
    refusal: bytes | None = None
    compress: bool = False


class Exposition:
    """
    Writes down obslib's metrics and those of other registries.

    Args:
        worker: The value of the label `worker` on every series.
        token: Demanded as a bearer token if not None.
        on_error: Told which exception a foreign collector or a gauge's function raised; it is then left out.
    """

    def __init__(
        self,
        instruments: Instruments,
        foreign: Sequence[CollectorRegistry],
        *,
        worker: str,
        token: str | None,
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._instruments = instruments
        self._foreign = tuple(registry for registry in foreign if registry is not instruments.registry)
        self._worker = worker
        self._token = token
        self._on_error = on_error
        self._in_flight: dict[str, asyncio.Task[bytes]] = {}

    def plan(self, method: str, headers: Mapping[str, str]) -> Plan:
        """
        Decide how to answer a request.

        Args:
            headers: By lower-case name.
        """
        if method not in {"GET", "HEAD"}:
            return Plan(405, (("allow", "GET, HEAD"),), refusal=b"Only GET and HEAD are allowed here.\n")
        if not self._allows(headers.get("authorization", "")):
            return Plan(401, (("www-authenticate", "Bearer"),), refusal=b"A bearer token is needed.\n")
        compress = accepts_gzip(headers.get("accept-encoding", ""))
        extra = [("vary", "accept, accept-encoding"), ("cache-control", "no-store")]
        if compress:
            extra.append(("content-encoding", "gzip"))
        return Plan(200, tuple(extra), negotiate(headers.get("accept", "")), compress=compress)

    async def serve(self, scope: MutableMapping[str, Any], send: Send) -> None:
        """Answer one ASGI request."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        plan = self.plan(scope["method"], headers)
        body = plan.refusal
        if body is None:
            body = await self._single_flight(plan.content_type)
        if plan.compress:
            pieces = []
            for piece in gzip_pieces(body):
                pieces.append(piece)
                await asyncio.sleep(0)
            body = b"".join(pieces)
        await _respond(send, plan, body, head=scope["method"] == "HEAD")

    def render(self, content_type: str) -> bytes:
        """Return the whole answer in one go, for callers that have no event loop to keep free."""
        parts = [*self._own_slices(openmetrics=content_type == OPENMETRICS), self._render_foreign(content_type)]
        return b"".join(parts)

    def _allows(self, authorization: str) -> bool:
        if self._token is None:
            return True
        given = authorization.removeprefix("Bearer ").encode("utf-8", "replace")
        return authorization.startswith("Bearer ") and hmac.compare_digest(given, self._token.encode())

    async def _single_flight(self, content_type: str) -> bytes:
        """Scrapes that arrive while one is rendered share its answer."""
        task = self._in_flight.get(content_type)
        if task is None:
            task = asyncio.create_task(self._render_in_slices(content_type))
            self._in_flight[content_type] = task
            task.add_done_callback(lambda _task: self._in_flight.pop(content_type, None))
        return await asyncio.shield(task)

    async def _render_in_slices(self, content_type: str) -> bytes:
        parts = []
        for part in self._own_slices(openmetrics=content_type == OPENMETRICS):
            parts.append(part)
            await asyncio.sleep(_PAUSE_SECONDS)
        # Foreign collectors may block (some ask a database), so they are asked in a thread.
        parts.append(await asyncio.to_thread(self._render_foreign, content_type))
        return b"".join(parts)

    def _own_slices(self, *, openmetrics: bool) -> Iterator[bytes]:
        lines: list[str] = []
        count = 0
        for metric in self._instruments.all():
            children = metric.children()
            if not children:
                continue
            name, kind = metric.family_name, metric.kind
            if not openmetrics:
                name, kind = metric.name, "gauge" if metric.kind == "info" else metric.kind
            documentation = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
            lines.append(f"# HELP {name} {documentation}\n# TYPE {name} {kind}\n")
            for child in children:
                try:
                    lines.append(child.lines(metric.name, self._worker, openmetrics=openmetrics))
                except Exception as error:  # noqa: BLE001 -- a gauge's function may raise anything; the others still count
                    self._on_error(error)
                count += 1
                if count % _SLICE_CHILDREN == 0:
                    yield "".join(lines).encode()
                    lines = []
        yield "".join(lines).encode()

    def _render_foreign(self, content_type: str) -> bytes:
        openmetrics = content_type == OPENMETRICS
        taken = {metric.family_name for metric in self._instruments.all()}
        families: list[Metric] = []
        for registry in self._foreign:
            try:
                collected = list(registry.collect())
            except Exception as error:  # noqa: BLE001 -- a collector may raise anything; the others still count
                self._on_error(error)
                continue
            for family in collected:
                if family.name not in taken:
                    taken.add(family.name)
                    families.append(self._with_worker(family))
        generate = generate_latest_openmetrics if openmetrics else generate_latest
        return generate(_Families(families))

    def _with_worker(self, family: Metric) -> Metric:
        """Return a copy in which every sample has the label `worker`; `_created` series are left out."""
        copy = Metric(family.name, family.documentation, family.type)
        copy.samples = [
            sample._replace(labels={**sample.labels, names.LABEL_WORKER: self._worker})
            for sample in family.samples
            if not sample.name.endswith("_created") or family.type not in {"counter", "histogram", "summary"}
        ]
        return copy


class _Families(CollectorRegistry):
    """Families that were collected already, in the shape prometheus_client writes down."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def negotiate(accept: str) -> str:
    """
    Return the content type for an `Accept` header: OpenMetrics where it is wanted at least as much as text.

    Follows RFC 9110 as far as scrapers use it: media types with `q`; versions of OpenMetrics other than 1.0.0 and
    0.0.1 are not offered.
    """
    quality = {"application/openmetrics-text": -1.0, "text/plain": -1.0}
    for item in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in item.split(";"))
        values = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        if media_type == "application/openmetrics-text" and values.get("version", "1.0.0") not in {"1.0.0", "0.0.1"}:
            continue
        if media_type in quality:
            quality[media_type] = max(quality[media_type], _quality(values.get("q", "1")))
    wanted = quality["application/openmetrics-text"]
    if wanted > 0 and wanted >= max(quality["text/plain"], 0.0):
        return OPENMETRICS
    return TEXT


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether an `Accept-Encoding` header allows gzip."""
    for item in accept_encoding.split(","):
        coding, *parameters = (part.strip().lower() for part in item.split(";"))
        if coding in {"gzip", "*"}:
            values = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
            return _quality(values.get("q", "1")) > 0
    return False


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def gzip_pieces(body: bytes) -> Iterator[bytes]:
    """Yield the body compressed, a little at a time."""
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    for start in range(0, len(body), _GZIP_BYTES):
        yield compressor.compress(body[start : start + _GZIP_BYTES])
    yield compressor.flush()


async def _respond(send: Send, plan: Plan, body: bytes, *, head: bool) -> None:
    headers = [("content-type", plan.content_type), ("content-length", str(len(body))), *plan.headers]
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": plan.status, "headers": encoded})
    await send({"type": "http.response.body", "body": b"" if head else body})
