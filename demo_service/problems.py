"""Errors as `application/problem+json` (RFC 9457), each with the request's id."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

import obslib

MEDIA_TYPE: Final = "application/problem+json"


class Problem(Exception):  # noqa: N818 -- RFC 9457's word
    """
    An answer that is an error.

    Args:
        status: The HTTP status.
        detail: What the caller can do about it; never repeats what was sent.
        kind: A slug that programs can tell apart; `""` where the status says it all.
        headers: Further response headers, e.g. Retry-After.
        members: Further members of the body.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.headers = dict(headers or {})
        self.members = members

    def response(self) -> Response:
        """Return the answer, an ASGI application."""
        body: dict[str, Any] = {
            "type": f"urn:shop:problem:{self.kind}" if self.kind else "about:blank",
            "title": _title(self.status),
            "status": self.status,
        }
        if self.detail:
            body["detail"] = self.detail
        body |= self.members
        body["request_id"] = obslib.request_id()
        return Response(orjson.dumps(body), self.status, self.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let every error of the application be answered as a problem."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail if error.detail != _title(error.status_code) else ""
    return Problem(error.status_code, detail, headers=error.headers).response()


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    if any(item["type"] == "json_invalid" for item in errors):
        return Problem(400, "The body is not valid JSON.", kind="malformed-json").response()
    found = [{"pointer": "/".join(str(part) for part in item["loc"]), "detail": item["msg"]} for item in errors[:20]]
    return Problem(422, "The request does not fit the schema.", kind="invalid-request", errors=found).response()


async def _unexpected(_request: Request, _error: Exception) -> Response:
    # Starlette raises the error again after this answer, so obslib and the server still see it.
    return Problem(500, "Something went wrong on our side; quote the request id.").response()
