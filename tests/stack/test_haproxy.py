"""HAProxy's own tongue, against a socket that answers as HAProxy 2.6 does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from stack.errors import StackError
from stack.haproxy import ANSWER_SECONDS, HAProxy, parse_statistics
from stack.state import ROOT

STATISTICS = """# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,wredis,status
http,FRONTEND,,,1,2,4076,30,10,20,,OPEN
shop,shop-1,0,0,3,9,,16216,1,2,0,UP
shop,shop-2,2,4,0,9,,12,1,2,1,DRAIN
shop,shop-3,0,0,0,0,,0,0,0,0,MAINT
shop,BACKEND,0,0,3,9,408,16228,1,2,1,UP

"""


class Socket:
    """Answers each command with what the test chose, and remembers it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, str] = {}
        self.commands: list[str] = []
        self.held: dict[str, asyncio.Event] = {}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = (await reader.readline()).decode().strip()
        self.commands.append(command)
        if command in self.held:
            await self.held[command].wait()
        writer.write(self.answers.get(command, "\n").encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest_asyncio.fixture
async def haproxy_socket(tmp_path: Path) -> AsyncIterator[Socket]:
    """A stats socket."""
    socket = Socket(tmp_path / "haproxy.sock")
    server = await asyncio.start_unix_server(socket.answer, str(socket.path))
    yield socket
    server.close()


def test_haproxy_waits_as_long_for_an_answer_as_a_scale_in_for_its_end() -> None:
    """The configuration has the number twice, once for the caller to read."""
    configuration = (ROOT / "deploy" / "haproxy.cfg").read_text()

    assert f"    timeout server {ANSWER_SECONDS}s\n" in configuration
    assert f'"The replica did not answer within {ANSWER_SECONDS} s."' in configuration


def test_slots_are_read_from_the_statistics() -> None:
    """Only the shop's slots; frontends and sums are not slots."""
    slots = parse_statistics(STATISTICS)

    assert sorted(slots) == [1, 2, 3]
    assert (slots[1].status, slots[1].sessions, slots[1].requests) == ("UP", 3, 16216)
    assert (slots[2].status, slots[2].queued, slots[2].redispatched) == ("DRAIN", 2, 1)


@pytest.mark.parametrize(
    "text",
    [
        STATISTICS[:130],
        STATISTICS.replace("16216", "many"),
        STATISTICS.replace("scur", "sessions"),
        STATISTICS.replace("shop-2", "shop-two"),
    ],
)
def test_statistics_that_are_none_are_an_error(text: str) -> None:
    """Cut off, without a number, without a column, of a slot that is not ours."""
    with pytest.raises(StackError, match="HAProxy's statistics cannot be read"):
        parse_statistics(text)


async def test_a_haproxy_that_is_on_its_way_out_has_no_slots(haproxy_socket: Socket) -> None:
    """It closes the connection without a word: nothing is known about any slot."""
    haproxy_socket.answers["show stat"] = ""

    assert await HAProxy(haproxy_socket.path).slots() == {}


async def test_a_replica_gets_its_address_before_its_requests(haproxy_socket: Socket) -> None:
    """The other way round the first requests would go to the slot's former address."""
    haproxy_socket.answers["set server shop/shop-3 addr 127.0.0.1 port 8103"] = (
        "IP changed from '127.0.0.1' to '127.0.0.1', port changed from '9' to '8103' by 'stats socket command'\n"
    )

    await HAProxy(haproxy_socket.path).put(3, 8103)

    assert haproxy_socket.commands == [
        "set server shop/shop-3 addr 127.0.0.1 port 8103",
        "set server shop/shop-3 state ready",
    ]


@pytest.mark.parametrize("order", ["drain", "maint"])
async def test_commands_that_belong_together_are_not_parted(haproxy_socket: Socket, order: str) -> None:
    """What closes a slot while it is filled comes after both commands; in between it would be undone at once."""
    address = "set server shop/shop-3 addr 127.0.0.1 port 8103"
    haproxy_socket.held[address] = may_go_on = asyncio.Event()
    haproxy = HAProxy(haproxy_socket.path)
    filling = asyncio.create_task(haproxy.put(3, 8103))
    while not haproxy_socket.commands:  # noqa: ASYNC110 - the command is on its way
        await asyncio.sleep(0)

    closing = asyncio.create_task(haproxy.drain(3) if order == "drain" else haproxy.take_out(3))
    await asyncio.wait({closing}, timeout=0.1)
    may_go_on.set()
    await asyncio.gather(filling, closing)

    assert haproxy_socket.commands == [
        address,
        "set server shop/shop-3 state ready",
        f"set server shop/shop-3 state {order}",
    ]


async def test_a_refusal_is_an_error(haproxy_socket: Socket) -> None:
    """HAProxy says no in words; they are passed on."""
    haproxy_socket.answers["set server shop/shop-9 state drain"] = "No such server.\n"

    with pytest.raises(StackError, match="No such server"):
        await HAProxy(haproxy_socket.path).drain(9)


async def test_a_haproxy_that_is_away_is_an_error(tmp_path: Path) -> None:
    """Said in a sentence, at once."""
    with pytest.raises(StackError, match="HAProxy does not answer on its socket"):
        await HAProxy(tmp_path / "nobody.sock").slots()
