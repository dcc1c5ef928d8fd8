"""Responses in several pieces, and such as the server reads from a file."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import StreamingResponse

from obslib import names
from obslib.testing import Captured, capture
from tests.obslib.asgi import call, http_scope

FIRST_BYTE = f"{names.HTTP_SERVER_TIME_TO_FIRST_BYTE}_sum"
STREAM = {names.LABEL_METHOD: "GET", names.LABEL_ROUTE: "/stream"}


async def test_time_to_first_byte_and_duration() -> None:
    """A stream has both, in all three signals; it is one span, however many pieces it has."""
    captured: Captured
    app = FastAPI()

    async def pieces() -> Any:
        captured.clock.advance(0.25)
        for _ in range(10):
            yield b"piece"
            captured.clock.advance(1)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces())

    with capture(app) as captured:
        await call(app, http_scope("/stream"))
    assert captured.sample(FIRST_BYTE, STREAM) == 0.25
    [line] = captured.access_lines
    assert (line["time_to_first_byte_seconds"], line["duration_seconds"]) == (0.25, 10.25)
    assert line["http_response_body_size_bytes"] == 50
    [span] = captured.spans
    assert (span.attributes or {})[names.ATTR_TIME_TO_FIRST_BYTE] == 0.25
    assert (span.end_time or 0) - (span.start_time or 0) == 10_250_000_000


async def test_a_response_in_one_piece_has_no_time_to_first_byte() -> None:
    """There it would be the duration, and cost what the duration costs."""
    app = FastAPI()
    app.get("/stream")(lambda: None)
    with capture(app) as captured:
        await call(app, http_scope("/stream"))
    assert captured.sample(FIRST_BYTE, STREAM) is None
    assert "time_to_first_byte_seconds" not in captured.access_lines[0]
    assert names.ATTR_TIME_TO_FIRST_BYTE not in (captured.spans[0].attributes or {})


def raw_app(*messages: dict[str, Any]) -> Starlette:
    async def raw(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for message in messages:
            await send(message)

    class Raw(Starlette):
        def build_middleware_stack(self) -> Any:
            return raw

    return Raw()


async def test_empty_pieces_are_no_first_byte() -> None:
    """What counts is when the client has something to read."""
    app = raw_app(
        {"type": "http.response.body", "body": b"", "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": False},
    )
    with capture(app) as captured:
        await call(app, http_scope("/"))
    assert "time_to_first_byte_seconds" not in captured.access_lines[0]


async def test_files_that_the_server_sends(tmp_path: Path) -> None:
    """Their bytes count, though they do not pass through the application."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.seek(4)
        for expected, message in (
            (10, {"type": "http.response.pathsend", "path": str(path)}),
            (0, {"type": "http.response.pathsend", "path": str(tmp_path / "gone")}),
            (6, {"type": "http.response.zerocopysend", "file": file}),
            (7, {"type": "http.response.zerocopysend", "file": file, "offset": 3}),
            (2, {"type": "http.response.zerocopysend", "file": file, "offset": 3, "count": 2}),
        ):
            app = raw_app(message)
            with capture(app) as captured:
                exchange = await call(app, http_scope("/"))
            assert exchange.sent[1] == message
            [line] = captured.access_lines
            assert line["http_response_body_size_bytes"] == expected
            assert line["error_type"] == ""


@pytest.mark.parametrize("more", [True, False])
async def test_a_file_in_several_pieces(tmp_path: Path, more: bool) -> None:
    """Each piece counts; a response is complete when the last one is sent."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        piece = {"type": "http.response.zerocopysend", "file": file, "offset": 0, "count": 5}
        app = raw_app({**piece, "more_body": True}, {**piece, "more_body": more})
        with capture(app) as captured:
            await call(app, http_scope("/"))
    [line] = captured.access_lines
    assert line["http_response_body_size_bytes"] == 10
    assert line["error_type"] == (names.ERROR_INCOMPLETE_RESPONSE if more else "")
