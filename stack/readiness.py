"""Whether a process answers yet."""

import asyncio
import contextlib
from typing import Final

import httpx

from stack.ports import HOST
from stack.processes import ProcessSpec

_POLL_SECONDS: Final = 0.1
_ANSWER_SECONDS: Final = 2.0


def client(timeout_seconds: float = _ANSWER_SECONDS) -> httpx.AsyncClient:
    """A client for addresses on this machine: it ignores proxies that the environment may name."""
    return httpx.AsyncClient(trust_env=False, timeout=timeout_seconds)


async def is_ready(spec: ProcessSpec, http: httpx.AsyncClient) -> bool:
    """Whether the process can do its work now."""
    if spec.ready_url:
        try:
            return (await http.get(spec.ready_url)).is_success
        except httpx.HTTPError:
            return False
    return not spec.port or await _accepts(spec.port)


async def until_ready(spec: ProcessSpec, http: httpx.AsyncClient) -> None:
    """Wait until the process can do its work; the caller sets the limit."""
    while not await is_ready(spec, http):  # noqa: ASYNC110 - what is waited for happens in another process
        await asyncio.sleep(_POLL_SECONDS)


async def _accepts(port: int) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
