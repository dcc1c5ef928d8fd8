"""HAProxy's slots, over its stats socket: which replica gets requests."""

import asyncio
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stack.errors import StackError
from stack.ports import HOST

#: How long a replica may be silent before HAProxy ends a request: `timeout server` in deploy/haproxy.cfg.
ANSWER_SECONDS: Final = 60
_BACKEND: Final = "shop"
_TIMEOUT_SECONDS: Final = 3.0


@dataclass(frozen=True, kw_only=True)
class SlotStatus:
    """What HAProxy says about one slot."""

    slot: int
    status: str
    sessions: int
    queued: int
    redispatched: int
    requests: int


class HAProxy:
    """
    Puts replicas into slots and takes them out.

    Args:
        socket_path: the stats socket, open to this user alone.

    """

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        # One caller at a time, in the order they came: a drain between an address and its `ready` would be undone.
        self._turn = asyncio.Lock()

    async def put(self, slot: int, port: int) -> None:
        """Send requests to the replica on `port`; it is taken as healthy until a check says otherwise."""
        server = _server(slot)
        async with self._turn:
            await self._tell(f"set server {server} addr {HOST} port {port}", expected="")
            await self._tell(f"set server {server} state ready")

    async def drain(self, slot: int) -> None:
        """Send no new request to the slot; those on their way finish."""
        async with self._turn:
            await self._tell(f"set server {_server(slot)} state drain")

    async def take_out(self, slot: int) -> None:
        """Close the slot."""
        async with self._turn:
            await self._tell(f"set server {_server(slot)} state maint")

    async def slots(self) -> dict[int, SlotStatus]:
        """The state of all slots."""
        return parse_statistics(await self._ask("show stat"))

    async def _tell(self, command: str, expected: str | None = None) -> None:
        answer = (await self._ask(command)).strip()
        # Silence is success; a changed address is confirmed in words that begin with what was changed.
        if answer and not (expected is not None and ("changed" in answer or "no need" in answer)):
            raise StackError(f"HAProxy refused `{command}`: {answer}")

    async def _ask(self, command: str) -> str:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._socket_path))
                writer.write(f"{command}\n".encode())
                await writer.drain()
                answer = await reader.read()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError) as error:
            raise StackError(f"HAProxy does not answer on its socket: {str(error) or 'no answer in time'}") from error
        return answer.decode(errors="replace")


def parse_statistics(text: str) -> dict[int, SlotStatus]:
    """
    The slots in HAProxy's own CSV.

    Args:
        text: the answer to `show stat`.

    Raises:
        StackError: it is none, or half of one.

    """
    try:
        return {
            slot: SlotStatus(
                slot=slot,
                status=row["status"],
                sessions=int(row["scur"]),
                queued=int(row["qcur"]),
                redispatched=int(row["wredis"]),
                requests=int(row["stot"]),
            )
            for row in csv.DictReader(io.StringIO(text.lstrip("# ")))
            if row["pxname"] == _BACKEND and row["svname"].startswith(f"{_BACKEND}-")
            for slot in [int(row["svname"].rpartition("-")[2])]
        }
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise StackError(f"HAProxy's statistics cannot be read: {error!r}") from error


def _server(slot: int) -> str:
    return f"{_BACKEND}/{_BACKEND}-{slot}"
