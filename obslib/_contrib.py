"""`engine="contrib"`: opentelemetry-instrumentation-fastapi makes the server span, and it says what our record says."""

import re
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote_from_bytes

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from starlette.applications import Starlette

from obslib import names
from obslib._exchange import Exchange
from obslib._framework import SCOPE_RECORD, ASGIApp, Receive, Send, is_fastapi
from obslib._outbound import demand_stable_conventions
from obslib._record import RequestRecord, Scope
from obslib._redaction import Redactor
from obslib._span_attributes import describe_outcome, final_name, initial_name, start_attributes
from obslib._span_ids import digits_of
from obslib.exceptions import ConfigurationError, MissingExtraError, ObslibError
from obslib.settings import Settings

#: What contrib sets on an application that it has instrumented.
CONTRIB_MARK: Final = "_is_instrumented_by_opentelemetry"
_NO_CONTEXT: Final = Context()
#: contrib matches all routes of the application before the router does, and sets `http.route` to what it finds: wrong
#: for a middleware's answers, and the caller's path below Host routing. Here it finds none.
_WITHOUT_ROUTES: Final = SimpleNamespace(routes=())
#: Where the scope that contrib gets holds the request that it belongs to.
_PASSAGE: Final = "obslib.contrib_passage"


class ContribRecorder:
    """Learns the ids of contrib's server span when it starts, and completes that span before contrib ends it."""

    signal: Final = "traces"

    def __init__(self, settings: Settings, on_error: Callable[[str, BaseException], None]) -> None:
        self.on_error: Final = on_error
        self._request_id_attribute = f"{names.ATTR_RESPONSE_HEADER_PREFIX}{settings.request_id_header.lower()}"
        self._redactor = Redactor(settings.redacted_keys)

    def started(self, _record: RequestRecord, _scope: Scope) -> Context:
        """Let contrib start from an empty context: inside another span it would make no server span."""
        return _NO_CONTEXT

    def adopt(self, span: trace.Span, scope: Scope) -> None:
        """Take it over; contrib calls this when its span has just started."""
        record = scope.get(SCOPE_RECORD)
        if not isinstance(record, RequestRecord) or record.span is not None:
            return
        record.span = span
        context = span.get_span_context()
        record.sampled, record.id_digits = context.trace_flags.sampled, digits_of(context)
        passage = scope.get(_PASSAGE)
        came = passage.scope if isinstance(passage, _Passage) else scope
        if query := came.get("query_string"):
            record.query = self._redactor.query(query.decode("latin-1"))
        # contrib says the server's socket where the caller's Host is meant, and some releases put ports into addresses.
        span.set_attributes(start_attributes(record))

    def ended(self, record: RequestRecord) -> None:
        """Complete the span: contrib knows only the mount, and nothing of sizes and request ids."""
        span = record.span
        if span is not None and span.is_recording():
            if record.route and getattr(span, "name", "") == initial_name(record):  # unless the user has renamed it
                span.update_name(final_name(record))
            # contrib has recorded an exception that nobody handled; a second event would show it twice.
            is_recorded = any(event.name == "exception" for event in getattr(span, "events", ()))
            describe_outcome(
                span, record, self._request_id_attribute, self._redactor.text, with_exception=not is_recorded
            )

    def finished(self, records: Iterable[RequestRecord]) -> None:
        """Do nothing: contrib ends its span."""

    def hand_over(self) -> None:
        """Do nothing: contrib sends its span."""


class _Passage:
    """One request on its way through contrib's middleware."""

    __slots__ = ("entered", "error", "exchange", "scope")

    def __init__(self, scope: Scope, exchange: Exchange | None) -> None:
        self.scope = scope
        self.exchange = exchange
        self.entered = False
        #: What the application raised.
        self.error: BaseException | None = None


class _Guard:
    """
    Around contrib's middleware: what goes wrong in there never reaches the request, which is then served without it.

    contrib decodes headers and the query string before it has started a span, and raises for what is not UTF-8. It gets
    a scope of its own, with a query string that it can read and no routes; the application gets the scope that came.

    Args:
        contrib: contrib's middleware.
    """

    def __init__(self, contrib: Any, recorder: ContribRecorder) -> None:
        self._contrib: ASGIApp = contrib
        self._app: ASGIApp = contrib.app
        self._recorder = recorder
        contrib.app = self._enter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._contrib(scope, receive, send)
            return
        passage = _Passage(scope, self._exchange_of(receive))
        readable = _readable(scope.get("query_string", b""))
        theirs = {**scope, _PASSAGE: passage, "app": _WITHOUT_ROUTES, "query_string": readable}
        try:
            await self._contrib(theirs, receive, send)
        except Exception as error:
            if error is passage.error:
                raise
            self._recorder.on_error(self._recorder.signal, error)
        if passage.error is not None:
            raise passage.error
        if not passage.entered:
            await self._app(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request; contrib calls this in the application's place."""
        passage = scope.get(_PASSAGE)
        if not isinstance(passage, _Passage):
            await self._app(scope, receive, send)
            return
        passage.entered = True
        exchange = passage.exchange
        span = None if exchange is None else _span_of(passage.scope)
        try:
            await self._app(passage.scope, receive, send)
        except BaseException as error:
            passage.error = error
            if exchange is not None:
                exchange.break_off(error)
            raise
        else:
            if exchange is not None and not exchange.is_finished:
                exchange.end()
        finally:
            # contrib would end a span that we can no longer complete, and record the exception a second time.
            if span is not None and span.is_recording():
                span.end()

    def _exchange_of(self, receive: Receive) -> Exchange | None:
        """Return the layer's exchange, unless the layer around another application records this request."""
        exchange = getattr(receive, "__self__", None)  # what lies between passes `receive` on as it is
        if isinstance(exchange, Exchange) and exchange.desk.spans is self._recorder:
            return exchange
        return None


def _span_of(scope: Scope) -> trace.Span | None:
    record = scope.get(SCOPE_RECORD)
    return record.span if isinstance(record, RequestRecord) else None


def _guard(stack: Any, recorder: ContribRecorder) -> None:
    """Find contrib's middleware in a stack, and put the guard around it."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: PLC0415 -- an extra

    outside = stack
    while (inside := getattr(outside, "app", None)) is not None:
        if isinstance(inside, OpenTelemetryMiddleware):
            outside.app = _Guard(inside, recorder)
            return
        outside = inside


def _readable(query: bytes) -> bytes:
    """Return a query string that is UTF-8: bytes that are not ASCII are written as callers should have written them."""
    return query if query.isascii() else quote_from_bytes(query, safe="%&=+;/?:@!$'()*,-._~").encode()


def install_contrib(
    app: Starlette, provider: trace.TracerProvider, recorder: ContribRecorder, settings: Settings
) -> Callable[[], None]:
    """
    Let contrib instrument the application; return the undo.

    Raises:
        MissingExtraError: opentelemetry-instrumentation-fastapi is not installed.
        ConfigurationError: The application is not FastAPI's, is instrumented already, or old conventions are demanded.
    """
    undo_conventions = demand_stable_conventions()
    try:
        instrumentor = _find_instrumentor(app)
    except ObslibError:
        undo_conventions()
        raise
    fastapi_app: Any = app  # is_fastapi() has seen to it, without importing FastAPI for its type
    instrumentor.instrument_app(
        fastapi_app,
        server_request_hook=recorder.adopt,
        tracer_provider=provider,
        meter_provider=NoOpMeterProvider(),
        excluded_urls=_excluded_urls(settings),
        exclude_spans=["receive", "send"],
    )
    build = app.build_middleware_stack

    def build_guarded() -> ASGIApp:
        stack: Any = build()
        _guard(stack, recorder)
        return stack  # type: ignore[no-any-return]  # contrib does not say what it builds

    vars(app)["build_middleware_stack"] = build_guarded

    def undo() -> None:
        instrumentor.uninstrument_app(fastapi_app)
        # contrib leaves a built stack, to which no middleware can be added, and its marks on the application.
        for name in ("build_middleware_stack", CONTRIB_MARK):
            vars(app).pop(name, None)
        app.middleware_stack = None
        undo_conventions()

    return undo


def _find_instrumentor(app: Starlette) -> Any:
    """Return contrib's class, if it can do what is asked of it here."""
    if not is_fastapi(app):
        raise ConfigurationError('Settings.engine="contrib" needs a FastAPI application; use engine="obslib".')
    try:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise MissingExtraError(
            'Settings.engine="contrib" needs the extra: pip install "obslib-fastapi[contrib]"'
        ) from error
    if not _uses_stable_conventions():
        raise ConfigurationError(
            'Settings.engine="contrib" needs the stable conventions, and this process uses the retired ones: set '
            "OTEL_SEMCONV_STABILITY_OPT_IN=http before it starts."
        )
    if app.middleware_stack is not None:
        raise ConfigurationError(
            'Settings.engine="contrib" must be set up before the application serves its first event: contrib silently '
            "does nothing afterwards."
        )
    if getattr(app, CONTRIB_MARK, False):
        raise ConfigurationError(
            "FastAPIInstrumentor has instrumented this application already. Remove that call, because obslib makes it "
            'itself; if opentelemetry-instrument has made it, use engine="obslib".'
        )
    return FastAPIInstrumentor


def _uses_stable_conventions() -> bool:
    """Tell what contrib's packages will do: the first of them that is set up decides for the whole process."""
    from opentelemetry.instrumentation import _semconv  # noqa: PLC0415 -- an extra; there is no public way to ask

    conventions = _semconv._OpenTelemetrySemanticConventionStability  # noqa: SLF001
    conventions._initialize()  # type: ignore[no-untyped-call]  # noqa: SLF001
    signal = _semconv._OpenTelemetryStabilitySignalType.HTTP  # noqa: SLF001
    mode = conventions._get_opentelemetry_stability_opt_in_mode(signal)  # noqa: SLF001
    return bool(mode is not _semconv._StabilityMode.DEFAULT)  # noqa: SLF001


def _excluded_urls(settings: Settings) -> str:
    """Return contrib's expression for `Settings.excluded_paths`: anchored, which contrib's own are not."""
    patterns = []
    for path in settings.excluded_paths:
        prefix = path.removesuffix("/*")
        patterns.append(f"^[a-z]+://[^/]*{re.escape(prefix)}{'(/.*)?' if prefix != path else ''}$")
    return ",".join(patterns)
