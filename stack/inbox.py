"""`python -m stack.inbox`: in containers, takes what people are told and prints it, and misses the watchdog."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stack.alerting import WATCHDOG
from stack.errors import StackError
from stack.notifications import Notification, render
from stack.ports import PREFERRED
from stack.receiver import Receiver
from stack.terminal import Style

_TOKEN_FILE: Final = "NOTIFICATIONS_TOKEN_FILE"  # noqa: S105 -- the name of a variable
_LOOK_SECONDS: Final = 5.0


class Printer:
    """Prints what people are told; the watchdog is for nobody."""

    def add(self, notification: Notification) -> None:
        if notification.severity != WATCHDOG:
            # The links are for the host; from here nobody can tell who answers there.
            print(render([notification], Style(), lambda _: True), flush=True)


def token(environ: Mapping[str, str]) -> str:
    """
    What Alertmanager has to show.

    Raises:
        StackError: the environment does not say, or names a file without it.

    """
    path = environ.get(_TOKEN_FILE, "")
    if not path:
        raise StackError(f"{_TOKEN_FILE} must name the file with the token that Alertmanager shows.")
    try:
        text = Path(path).read_text().strip()
    except OSError as error:
        raise StackError(f"{_TOKEN_FILE}: {path} cannot be read: {error.strerror}.") from error
    if not text:
        raise StackError(f"{_TOKEN_FILE}: {path} is empty.")
    return text


async def watch(receiver: Receiver, look_seconds: float = _LOOK_SECONDS) -> None:
    """Say that the watchdog is missed, and that it is back; for ever."""
    is_heard = True
    while True:
        await asyncio.sleep(look_seconds)
        if receiver.hears_the_watchdog == is_heard:
            continue
        is_heard = receiver.hears_the_watchdog
        print(
            "Alertmanager's watchdog comes again."
            if is_heard
            else "Alertmanager's watchdog does not come: alerts may reach nobody. See the runbook of Watchdog.",
            flush=True,
        )


async def serve(receiver: Receiver) -> None:
    """Take messages until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await receiver.start()
    watching = asyncio.create_task(watch(receiver))
    await stop.wait()
    watching.cancel()
    await receiver.stop()


def main(environ: Mapping[str, str], port: int = PREFERRED["notifications"]) -> int:
    """Return 0 when told to stop, 2 where something is missing."""
    try:
        asyncio.run(serve(Receiver(port, token(environ), Printer())))
    except (StackError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
