"""`/metrics`: one answer in Prometheus' text format or OpenMetrics, made in slices so that requests pass in between.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ (text 0.0.4) and OpenMetrics 1.0.0.
"""

import asyncio
import hmac
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from anyio.to_thread import run_sync

from obslib._beside_the_loop import is_asyncio_running
from obslib._foreign import ForeignMetrics
from obslib._foreign import render as render_foreign
from obslib._instruments import Instruments
from obslib._merge import merge

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
#: The label `worker` of a process that has no siblings.
LONE_WORKER: Final = "0"
#: Label sets rendered in one go; a histogram has about 17 lines, so this is some 200 lines.
_SLICE_CHILDREN: Final = 12
#: Between two slices: then requests pass.
PAUSE_SECONDS: Final = 0.0002
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


class Siblings(Protocol):
    """The other worker processes of this service."""

    def gather(self, content_type: str) -> list[bytes]:
        """Return what each of them says, within a deadline. Does not raise."""

    def before_answer(self) -> None:
        """Called when this process' part of an answer is written down. Does not raise."""


class Exposition:
    """
    Writes down obslib's metrics and those of other registries, and those of the siblings if there are any.

    Args:
        worker: The value of the label `worker` on every series.
        token: Demanded as a bearer token if not None.
        on_error: Told which exception a foreign collector or a gauge's function raised; it is then left out.
    """

    def __init__(
        self,
        instruments: Instruments,
        foreign: ForeignMetrics,
        *,
        worker: str,
        token: str | None,
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._instruments = instruments
        self._foreign = foreign
        self._siblings: Siblings | None = None
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
        if plan.refusal is not None:
            body = plan.refusal
        elif is_asyncio_running():
            body = await self._in_slices(plan)
        else:  # on trio: one thread does it all
            body = await run_sync(self._at_once, plan)
        await _respond(send, plan, body, head=scope["method"] == "HEAD")

    def join(self, worker: str, siblings: Siblings | None) -> None:
        """Be this worker from now on, and answer for the siblings, too."""
        self._worker = worker
        self._siblings = siblings

    def render(self, content_type: str) -> bytes:
        """Return the whole answer in one go, for callers that have no event loop to keep free."""
        siblings = self._siblings
        own = b"".join(self.own_parts(content_type))
        return own if siblings is None else self._complete(siblings, own, siblings.gather(content_type))

    def own_parts(self, content_type: str) -> Iterator[bytes]:
        """Yield what this process says, a slice at a time."""
        openmetrics = content_type == OPENMETRICS
        yield from self._own_slices(openmetrics=openmetrics)
        yield self._foreign_part(openmetrics=openmetrics)

    def _allows(self, authorization: str) -> bool:
        if self._token is None:
            return True
        given = authorization.removeprefix("Bearer ").encode("utf-8", "replace")
        return authorization.startswith("Bearer ") and hmac.compare_digest(given, self._token.encode())

    def _at_once(self, plan: Plan) -> bytes:
        body = self.render(plan.content_type)
        return b"".join(gzip_pieces(body)) if plan.compress else body

    async def _in_slices(self, plan: Plan) -> bytes:
        body = await self._single_flight(plan.content_type)
        if not plan.compress:
            return body
        pieces = []
        for piece in gzip_pieces(body):
            pieces.append(piece)
            await asyncio.sleep(0)
        return b"".join(pieces)

    async def _single_flight(self, content_type: str) -> bytes:
        """Scrapes that arrive while one is rendered share its answer."""
        task = self._in_flight.get(content_type)
        if task is None:
            task = asyncio.create_task(self._render_in_slices(content_type))
            self._in_flight[content_type] = task
            task.add_done_callback(lambda _task: self._in_flight.pop(content_type, None))
        return await asyncio.shield(task)

    async def _render_in_slices(self, content_type: str) -> bytes:
        openmetrics = content_type == OPENMETRICS
        siblings = self._siblings
        gathering = None
        if siblings is not None:
            gathering = asyncio.create_task(asyncio.to_thread(siblings.gather, content_type))
        parts = []
        for part in self._own_slices(openmetrics=openmetrics):
            parts.append(part)
            await asyncio.sleep(PAUSE_SECONDS)
        # Foreign collectors may block (some ask a database), so they are asked in a thread.
        parts.append(await asyncio.to_thread(self._foreign_part, openmetrics=openmetrics))
        own = b"".join(parts)
        if siblings is None or gathering is None:
            return own
        return await asyncio.to_thread(self._complete, siblings, own, await gathering)

    def _complete(self, siblings: Siblings, own: bytes, others: Sequence[bytes]) -> bytes:
        siblings.before_answer()
        return merge([own, *others], self._on_error)

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

    def _foreign_part(self, *, openmetrics: bool) -> bytes:
        taken = [metric.family_name for metric in self._instruments.all()]
        return render_foreign(self._foreign.collect(taken), self._worker, openmetrics=openmetrics)


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
