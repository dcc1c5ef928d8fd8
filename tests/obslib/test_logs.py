"""Log lines: one shape, the ids of the request and span they belong to, secrets redacted, nothing that cannot be logged."""

import asyncio
import contextvars
import json
import logging
import sys
import threading
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import pydantic
import pytest
import structlog
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse

import obslib
from obslib import names
from obslib._access_line import AccessLine
from obslib._log_render import Clock, JsonRenderer
from obslib._logs import access_values
from obslib._record import RequestRecord
from obslib._stdlib_bridge import BridgeHandler
from obslib.settings import Settings
from obslib.testing import Captured, capture
from tests.obslib.asgi import call, client_of, http_scope

log = obslib.get_logger("shop.orders", component="orders")


@pytest.fixture
def telemetry() -> Iterator[Captured]:
    with capture(FastAPI(), Settings(service_name="shop", extra_registries=())) as captured:
        yield captured


def test_whole_line(telemetry: Captured) -> None:
    """A line outside a request has the common keys, in their order, and its own."""
    log.info("order_placed", order_id=7)
    [line] = telemetry.lines
    assert list(line.items()) == [
        ("timestamp", "2026-01-01T00:00:00.000000Z"),
        ("level", "info"),
        ("event", "order_placed"),
        ("logger", "shop.orders"),
        ("service", "shop"),
        ("trace_id", ""),
        ("span_id", ""),
        ("request_id", ""),
        ("component", "orders"),
        ("order_id", 7),
    ]


async def test_access_line_as_a_whole() -> None:
    """The access line has every key of the contract."""
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    with capture(app, Settings(service_name="shop", extra_registries=())) as captured:
        headers = [(b"user-agent", b"curl/8"), (b"x-request-id", b"abc-1")]
        await call(app, http_scope("/items/1", headers=headers))
        [line] = captured.lines
    assert line == {
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "level": "info",
        "event": "http_request",
        "logger": "obslib.access",
        "service": "shop",
        "trace_id": f"{1:032x}",
        "span_id": f"{1:016x}",
        "request_id": "abc-1",
        "http_request_method": "GET",
        "http_route": "/items/{item_id}",
        "http_response_status_code": 200,
        "error_type": "",
        "url_scheme": "http",
        "url_path": "/items/1",
        "duration_seconds": 0.0,
        "http_request_body_size_bytes": 0,
        "http_response_body_size_bytes": 1,
        "client_address": "192.0.2.7",
        "user_agent_original": "curl/8",
    }


def test_current_span_wins(telemetry: Captured) -> None:
    """A line logged inside a span carries that span's ids."""
    with telemetry.tracer_provider.get_tracer("t").start_as_current_span("work") as span:
        log.info("inside")
    [line] = telemetry.lines
    assert line["span_id"] == format(span.get_span_context().span_id, "016x")
    assert line["trace_id"] == format(span.get_span_context().trace_id, "032x")


def say(where: str) -> None:
    log.info("said", where=where)
    obslib.bind(**{where: True})


def sync_dependency() -> Iterator[None]:
    say("sync_dependency")
    yield
    say("sync_dependency_end")


async def async_dependency() -> AsyncIterator[None]:
    say("async_dependency")
    yield
    say("async_dependency_end")


class Saying(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        say("middleware")
        response: Response = await call_next(request)
        say("middleware_end")
        return response


async def assert_lines_belong(app: FastAPI, engine: Literal["obslib", "contrib"], places: dict[str, set[str]]) -> None:
    """Ask for all paths at once; at these places each has logged with its ids, and bound for its access line."""
    with capture(app, Settings(service_name="shop", extra_registries=(), engine=engine)) as captured:
        async with client_of(app) as client:
            await asyncio.gather(*(client.get(path) for path in places))
        access = {line["url_path"]: line for line in captured.access_lines}
        said = [line for line in captured.lines if line["event"] == "said"]
    for path, expected in places.items():
        ids = access[path]["trace_id"], access[path]["request_id"]
        assert {line["where"] for line in said if (line["trace_id"], line["request_id"]) == ids} == expected
        # Background tasks and the ends of dependencies come when the access line is written already.
        later = {where for where in expected if where.endswith(("background", "dependency_end"))}
        if engine == "contrib":  # some of its releases end before Starlette's last handler: docs/comparison.md
            later.add("last_handler")
        assert expected - access[path].keys() <= later
    assert len(said) == sum(map(len, places.values()))


@pytest.mark.parametrize("engine", ["obslib", "contrib"])
async def test_lines_of_a_request(engine: Literal["obslib", "contrib"]) -> None:
    """Wherever a request's code logs, the line has the request's ids, and what `bind` gets is on the access line."""
    app = FastAPI()
    app.add_middleware(Saying)

    @app.get("/async", dependencies=[Depends(sync_dependency), Depends(async_dependency)])
    async def in_async(tasks: BackgroundTasks) -> None:
        tasks.add_task(say, "background")
        say("async")
        await asyncio.to_thread(say, "to_thread")
        await run_in_threadpool(say, "threadpool")
        await asyncio.create_task(asyncio.to_thread(say, "task"))
        thread = threading.Thread(target=contextvars.copy_context().run, args=(say, "own_thread"))
        thread.start()
        thread.join()

    @app.get("/sync")
    def in_sync(tasks: BackgroundTasks) -> None:
        tasks.add_task(say, "background")
        say("sync")

    around = {"middleware", "middleware_end", "background"}
    dependencies = {f"{kind}_dependency{end}" for kind in ("sync", "async") for end in ("", "_end")}
    threads = {"to_thread", "threadpool", "task", "own_thread"}
    await assert_lines_belong(
        app, engine, {"/async": {"async", *around, *dependencies, *threads}, "/sync": {"sync", *around}}
    )


@pytest.mark.parametrize("engine", ["obslib", "contrib"])
async def test_lines_of_exception_handlers(engine: Literal["obslib", "contrib"]) -> None:
    """Handlers of exceptions are part of their request, in the loop and in threads, for a 500 too."""
    app = FastAPI()
    app.add_middleware(Saying)

    @app.exception_handler(LookupError)
    async def in_async_handler(_request: Request, _error: Exception) -> PlainTextResponse:
        say("async_handler")
        return PlainTextResponse("", 404)

    @app.exception_handler(ArithmeticError)
    def in_sync_handler(_request: Request, _error: Exception) -> PlainTextResponse:
        say("sync_handler")
        return PlainTextResponse("", 400)

    @app.exception_handler(Exception)
    async def in_last_handler(_request: Request, _error: Exception) -> PlainTextResponse:
        say("last_handler")
        return PlainTextResponse("", 500)

    errors = {"/lookup": LookupError, "/arithmetic": ArithmeticError, "/other": RuntimeError}

    @app.get("/{name}")
    async def fail(request: Request) -> None:
        say("endpoint")
        raise errors[request.url.path]

    around = {"endpoint", "middleware", "middleware_end"}
    await assert_lines_belong(
        app,
        engine,
        {
            "/lookup": {"async_handler", *around},
            "/arithmetic": {"sync_handler", *around},
            "/other": {"last_handler", "endpoint", "middleware"},
        },
    )


async def test_lines_of_child_spans() -> None:
    """Within a span of the user's own a line has that span's id, and the request's trace."""
    app = FastAPI()

    @app.get("/")
    async def root() -> None:
        with trace.get_tracer("user").start_as_current_span("child"):
            log.info("in_child")

    with capture(app, Settings(service_name="shop", extra_registries=())) as captured:
        async with client_of(app) as client:
            await client.get("/")
        [line], [access] = [line for line in captured.lines if line["event"] == "in_child"], captured.access_lines
    assert (line["trace_id"], line["request_id"]) == (access["trace_id"], access["request_id"])


async def test_ids_never_leak_between_requests() -> None:
    """Requests that overlap keep their own ids and bound values."""
    app = FastAPI()
    barrier = asyncio.Barrier(10)

    @app.get("/{number}")
    async def root(number: int) -> None:
        obslib.bind(number=number)
        await barrier.wait()
        log.info("after", expected=number)

    with capture(app, Settings(service_name="shop", extra_registries=())) as captured:
        async with client_of(app) as client:
            await asyncio.gather(*(client.get(f"/{number}") for number in range(10)))
        lines = captured.lines
    after = {line["expected"]: line for line in lines if line["event"] == "after"}
    access = {line["number"]: line for line in captured.access_lines}
    assert all(line["number"] == expected for expected, line in after.items())
    assert {number: line["trace_id"] for number, line in after.items()} == {
        number: line["trace_id"] for number, line in access.items()
    }
    assert len({line["trace_id"] for line in after.values()}) == 10


def test_levels(telemetry: Captured) -> None:
    """Lines below the level are not made; the names are the standard library's in lower case."""
    log.debug("no")
    log.warning("yes")
    log.critical("yes")
    assert [line["level"] for line in telemetry.lines] == ["warning", "critical"]


@pytest.mark.parametrize("exc_info", ["exception", "true", "instance", "triple"])
def test_exceptions(telemetry: Captured, exc_info: str) -> None:
    """An exception comes out as type, message and stack trace, however it is given."""
    try:
        raise ValueError("bad")
    except ValueError as error:
        if exc_info == "exception":
            log.exception("failed")
        else:
            given: Any = {"true": True, "instance": error, "triple": sys.exc_info()}[exc_info]
            log.error("failed", exc_info=given)
    [line] = telemetry.lines
    assert (line["level"], line[names.LOG_EXCEPTION_TYPE], line[names.LOG_EXCEPTION_MESSAGE]) == (
        "error",
        "ValueError",
        "bad",
    )
    assert "test_exceptions" in line[names.LOG_EXCEPTION_STACKTRACE]


def test_exc_info_without_an_exception(telemetry: Captured) -> None:
    """`exc_info=True` where nothing was raised adds nothing."""
    log.error("failed", exc_info=True)
    assert names.LOG_EXCEPTION_TYPE not in telemetry.lines[0]


class Evil:
    """Raises when it is described."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1}
    value["self"] = [value] * 50
    return value


@pytest.mark.parametrize(
    "value",
    [
        Evil(), {1: Evil()}, object(), cyclic(), 2**80, -(2**70), "\ud800", b"\xff", float("nan"), {1, 2}, ["x"] * 100_000,
        "x" * 1_000_000, {"k" * 400_000: 1}, ValueError("\udfff"), {("a", "b"): 1}, 1 + 2j, [[[[[[[[[[[[1]]]]]]]]]]]],
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_anything_can_be_logged(telemetry: Captured, value: object) -> None:
    """Whatever is logged comes out as one line of valid JSON that is not endless."""
    log.info("odd", value=value)
    [line] = telemetry.lines
    assert line["event"] == "odd"
    assert line["value"] is None or line["value"]
    assert len(json.dumps(line)) < 3_000_000


def test_redaction(telemetry: Captured) -> None:
    """Values under secret keys are replaced at any depth; the caller's own objects stay as they are."""
    given = {"Authorization": "Bearer x", "nested": [{"db_password": "p", "fine": 1}]}
    log.info("login", password="p", user_token="t", **{"Set-Cookie": "c"}, headers=given, author="kept")
    [line] = telemetry.lines
    secret = "[REDACTED]"
    assert (line["password"], line["user_token"], line["Set-Cookie"], line["author"]) == (
        secret,
        secret,
        secret,
        "kept",
    )
    assert line["headers"] == {"Authorization": secret, "nested": [{"db_password": secret, "fine": 1}]}
    assert given["Authorization"] == "Bearer x"


class Pair(NamedTuple):
    user: str
    password: str


@dataclass
class Login:
    user: str
    password: str
    _note: str = "never shown"


@dataclass(slots=True)
class Slotted:
    user: str
    password: str = field(init=False)


class Model(pydantic.BaseModel):
    user: str
    password: str
    notes: str = pydantic.Field(default="never shown", repr=False)


class Defined:
    """What `attrs.define` makes of a class, as far as its fields go."""

    __attrs_attrs__ = tuple(
        SimpleNamespace(name=name, repr=is_shown)
        for name, is_shown in (("user", True), ("password", True), ("notes", False))
    )

    def __init__(self, user: str, password: str) -> None:
        self.user, self.password, self.notes = user, password, "never shown"


class Row(list[object]): ...


class Headers(Mapping[str, str]):
    def __getitem__(self, key: str) -> str:
        return {"user": "ada", "password": "p4ss"}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("user", "password"))

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(user="ada", password="p4ss"),
        defaultdict(str, user="ada", password="p4ss"),
        Pair("ada", "p4ss"),
        Login("ada", "p4ss"),
        Headers(),
        Model(user="ada", password="p4ss"),
        Defined("ada", "p4ss"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_redaction_in_containers_of_other_classes(telemetry: Captured, value: object) -> None:
    """Whatever has keys or fields, and comes out as an object, comes out without its secrets."""
    log.info("login", given=value, deep=Row([{"item": (value,)}]))
    [line] = telemetry.lines
    assert "p4ss" not in telemetry.text
    shown = {"user": "ada", "password": "[REDACTED]"}
    assert (line["given"], line["deep"]) == (shown, [{"item": [shown]}])


def test_redaction_in_a_set(telemetry: Captured) -> None:
    """A set comes out as a list, its members without their secrets."""
    log.info("login", given={Pair("ada", "p4ss")}, plain=frozenset({1}))
    [line] = telemetry.lines
    assert (line["given"], line["plain"]) == ([{"user": "ada", "password": "[REDACTED]"}], [1])


def test_redaction_of_what_cannot_be_looked_into(telemetry: Captured) -> None:
    """A value that raises while secrets are looked for is named instead, and a field without a value is None."""

    class Broken(Headers):
        def __iter__(self) -> Iterator[str]:
            raise RuntimeError("gone")

    slotted = Slotted("ada")
    log.info("login", given=Broken(), partly=slotted)
    [line] = telemetry.lines
    assert line["given"] == "<Broken: RuntimeError while its secrets were looked for>"
    assert line["partly"] == {"user": "ada", "password": None}


def test_reserved_keys_cannot_be_forged(telemetry: Captured) -> None:
    """A caller cannot overwrite what every line says about itself."""
    log.info("x", service="forged", timestamp="1970", trace_id="t")
    [line] = telemetry.lines
    assert (line["service"], line["timestamp"], line["trace_id"]) == ("shop", "2026-01-01T00:00:00.000000Z", "")


def test_structlog_contextvars(telemetry: Captured) -> None:
    """Values bound with structlog's own contextvars come out where the same context sees them."""
    with structlog.contextvars.bound_contextvars(job="nightly"):
        log.info("step")
    assert telemetry.lines[0]["job"] == "nightly"


def bridge(message: object, *args: object, **extra: Any) -> None:
    """Send one record of the standard library through the bridge, as a handler on a logger would."""
    logger = logging.Logger("some.library")
    logger.addHandler(BridgeHandler())
    logger.warning(message, *args, **extra)


def test_stdlib(telemetry: Captured) -> None:
    """The standard library's lines have the same shape, their extras as keys, their exception expanded."""
    try:
        raise KeyError("k")
    except KeyError:
        bridge("took %d ms", 5, extra={"tries": 2, "api_key": "x"}, exc_info=True, stack_info=True)
    [line] = telemetry.lines
    assert (line["event"], line["logger"], line["level"]) == ("took 5 ms", "some.library", "warning")
    assert (line["tries"], line["api_key"], line[names.LOG_EXCEPTION_TYPE]) == (2, "[REDACTED]", "KeyError")
    assert "Stack" in line["stack"]


def test_stdlib_arguments_that_do_not_fit(telemetry: Captured) -> None:
    """A record whose arguments cannot be formatted still comes out."""
    bridge("%d items", "three")
    assert telemetry.lines[0]["event"].startswith("%d items")


def test_console(capsys: pytest.CaptureFixture[str]) -> None:
    """For people, a line is text with the event and its keys, and the stack trace below."""
    with capture(FastAPI(), Settings(service_name="shop", extra_registries=(), log_format="console")) as captured:
        try:
            raise ValueError("bad")
        except ValueError:
            log.exception("failed", order_id=7)
        text = captured.text
    assert "failed" in text
    assert "order_id" in text
    assert "ValueError: bad" in text.splitlines()[-1]


def test_auto_format_is_json_without_a_terminal() -> None:
    """Where stdout is no terminal, `auto` is JSON."""
    with capture(FastAPI(), Settings(service_name="shop", extra_registries=(), log_format="auto")) as captured:
        log.info("x")
        assert captured.lines[0]["event"] == "x"


async def test_access_log_off() -> None:
    """Without the access log there is no access line, and nothing else is missing."""
    app = FastAPI()

    @app.get("/")
    async def root() -> None:
        log.info("here")

    with capture(app, Settings(service_name="shop", extra_registries=(), access_log=False)) as captured:
        async with client_of(app) as client:
            await client.get("/")
        assert [line["event"] for line in captured.lines] == ["here"]
        assert len(captured.spans) == 1


def test_logger_without_instrumentation(capfd: pytest.CaptureFixture[str]) -> None:
    """A logger that is used before anything is set up prints lines of the same shape."""
    obslib.get_logger("early").info("starting")
    line = json.loads(capfd.readouterr().out)
    assert (line["event"], line["logger"], line["service"]) == ("starting", "early", "unknown_service")


def test_later_values_win(telemetry: Captured) -> None:
    """`bind` on a logger and values of the call come out, the call's over the logger's."""
    bound = log.bind(component="changed", cart=1)
    bound.info("x", cart=2)
    assert (telemetry.lines[0]["component"], telemetry.lines[0]["cart"]) == ("changed", 2)


TEXTS = st.text(max_size=30)


@given(
    TEXTS, st.binary(max_size=30), TEXTS, st.sampled_from([0, 200, 404, 503]), st.sampled_from(["", "503", names.ERROR_INCOMPLETE_RESPONSE]),
    st.integers(0, 2**53), st.integers(0, 2**53), st.integers(0, 2**60),
)  # fmt: skip
def test_access_line_from_pieces(
    path: str, agent: bytes, route: str, status: int, error_type: str, sent: int, received: int, duration_ns: int
) -> None:
    """For any request the line written from pieces is the object that rendering all its values would give."""
    record = RequestRecord.begin("GET", path, "http", "1.1", {}, "", "", 0, 1)
    record.headers = {b"user-agent": agent}
    record.route, record.status_code, record.error_type = route, status, error_type
    record.request_body_bytes, record.response_body_bytes, record.duration_ns = received, sent, duration_ns
    line = "".join(ACCESS_LINE.pieces(record, "2026-01-01T00:00:00.000000Z"))
    whole = JsonRenderer(str)(access_values(record, "2026-01-01T00:00:00.000000Z", 'sh"op'))
    assert json.loads(line) == json.loads(whole)
    assert line.count("\n") == 1


ACCESS_LINE = AccessLine('sh"op')


@pytest.mark.parametrize(
    "unix_ns", [0, 1, 999_999_999, 1_000_000_000, 1_767_225_600_000_001_999, 1_767_225_600_999_999_999]
)
def test_timestamps(unix_ns: int) -> None:
    """A timestamp is RFC 3339 in UTC with the microseconds cut off, also in the first second there was."""
    expected = (
        datetime.fromtimestamp(unix_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{unix_ns // 1000 % 10**6:06d}Z"
    )
    assert Clock().format(unix_ns) == expected


def test_console_without_an_exception() -> None:
    """For people, values of every kind are shown as they are."""
    with capture(FastAPI(), Settings(service_name="shop", extra_registries=(), log_format="console")) as captured:
        log.info("shown", nothing=None, ratio=1.5, deep=[[[[[[[[[1]]]]]]]]], huge=2**80)
        text = captured.text
    assert text.count("\n") == 1
    assert "None" in text
    assert "1.5" in text


def test_keys_without_end(telemetry: Captured) -> None:
    """Keys that never repeat cost no memory for ever, and are redacted all the same."""
    for number in range(5000):
        log.info("x", **{f"key_{number}": 1, f"password_{number}_password": "p"})
    assert telemetry.lines[-1]["password_4999_password"] == "[REDACTED]"


def test_texts_without_end() -> None:
    """Paths and routes that never repeat leave the access line's memory bounded."""
    line = AccessLine("shop")
    for number in range(3000):
        record = RequestRecord.begin("GET", f"/{number}" + "x" * (number % 400), "http", "1.1", {}, "", "", 0, 1)
        record.route, record.response_body_bytes = f"/{number}", number
        assert json.loads("".join(line.pieces(record, "t")))["http_route"] == f"/{number}"
    assert len(line._paths) <= 1024
    assert len(line._callers) <= 1024
    assert len(line._sizes) <= 1024
    assert len(line._frames) <= 1024


def test_logger_without_instrumentation_twice(capfd: pytest.CaptureFixture[str]) -> None:
    """Lines before any set-up keep coming, and those below INFO do not."""
    early = obslib.get_logger("early")
    for event in ("one", "two"):
        early.info(event)
        early.debug(event)
    assert [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()] == ["one", "two"]


def test_forgetting(telemetry: Captured) -> None:
    """`clear` forgets spans and lines."""
    log.info("x")
    telemetry.clear()
    assert (telemetry.lines, telemetry.spans) == ([], [])


def test_capture_with_logs_off(capsys: pytest.CaptureFixture[str]) -> None:
    """With logs off `capture`, like `instrument`, leaves lines to whoever takes them without it."""
    with capture(FastAPI(), Settings(service_name="shop", extra_registries=(), logs_enabled=False)) as captured:
        log.info("elsewhere")
    assert captured.lines == []
    assert "elsewhere" in capsys.readouterr().out
