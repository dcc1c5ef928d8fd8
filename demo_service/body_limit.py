"""Bodies have a limit, counted on the bytes that arrive."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo_service.problems import Problem


class BodyLimitLayer:
    """ASGI layer that answers 413 to a body over the limit, announced or not."""

    def __init__(self, app: ASGIApp, *, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            # An announcement saves reading the body; it is not believed otherwise.
            if name == b"content-length" and value.isdigit() and int(value) > self._limit_bytes:
                await Problem(413, self._detail).response()(scope, receive, send)
                return
        received_bytes = 0

        async def counting() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._limit_bytes:
                # FastAPI passes on only this exception from reading a body; any other one becomes a 400.
                raise HTTPException(413, self._detail)
            return message

        await self._app(scope, counting, send)

    @property
    def _detail(self) -> str:
        return f"A body may have {self._limit_bytes} bytes."
