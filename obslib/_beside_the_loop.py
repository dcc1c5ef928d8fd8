"""Blocking work beside the event loop, asyncio's or trio's."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync


def is_asyncio_running() -> bool:
    """Tell whether it is asyncio's loop that runs here; hypercorn serves on trio, too."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def in_own_thread(function: Callable[[], None]) -> None:
    """Run a function; unlike in the default executor, never behind other work."""
    if not is_asyncio_running():
        await run_sync(function, limiter=CapacityLimiter(1))
        return
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def run() -> None:
        try:
            function()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop may have been closed meanwhile
                loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(None))

    threading.Thread(target=run, name="obslib-shutdown", daemon=True).start()
    await done
