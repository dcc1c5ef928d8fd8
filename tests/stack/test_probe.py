"""The probe: a real server is asked at each scrape, and one that fails or is away is no success."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from prometheus import foreign
from stack import probe, readiness
from stack.ports import HOST, any_free
from stack.probe import Probe


@asynccontextmanager
async def serving(*statuses: str) -> AsyncIterator[str]:
    """A server that answers with one status after another."""
    left = list(statuses)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {left.pop(0)}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/readyz"


async def scrape(url: str, times: int) -> list[str]:
    """The values of `probe_success` at some scrapes."""
    port = any_free(set())
    values = []
    async with readiness.client() as http:
        it = Probe(url, port, http)
        await it.start()
        try:
            for _ in range(times):
                answer = await http.get(f"http://{HOST}:{port}/metrics")
                assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
                values += [row.split()[1] for row in answer.text.splitlines() if row.startswith(probe.SUCCESS)]
        finally:
            await it.stop()
    return values


async def test_each_scrape_asks_anew() -> None:
    """A 503 is no success, and the next good answer is one again."""
    async with serving("200 OK", "503 Service Unavailable", "200 OK") as url:
        assert await scrape(url, 3) == ["1", "0", "1"]


async def test_what_is_away_is_no_success() -> None:
    """A refused connection is a result, not an error of the scrape."""
    assert await scrape(f"http://{HOST}:{any_free(set())}/", 1) == ["0"]


@pytest.mark.parametrize("header", ["0.4", "nonsense", None], ids=["short", "nonsense", "none"])
async def test_a_shop_that_keeps_silent_is_no_success(header: str | None) -> None:
    """Said before Prometheus, which says how long it waits, gives up: else there would be no result at all."""

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    port = any_free(set())
    silent = await asyncio.start_server(hear, HOST, 0)
    async with silent, readiness.client() as http:
        it = Probe(f"http://{HOST}:{silent.sockets[0].getsockname()[1]}/", port, http)
        await it.start()
        try:
            headers = {"X-Prometheus-Scrape-Timeout-Seconds": header} if header else {}
            answer = await http.get(f"http://{HOST}:{port}/metrics", headers=headers, timeout=30)
        finally:
            await it.stop()
    values = dict(row.split() for row in answer.text.splitlines() if not row.startswith("#"))
    assert values[probe.SUCCESS] == "0"
    assert (float(values[probe.DURATION]) < 3) == (header == "0.4")


async def test_a_stranger_who_sends_nonsense_breaks_nothing() -> None:
    """The connection is closed, and the next scrape is answered."""
    port = any_free(set())
    async with serving("200 OK") as url, readiness.client() as http:
        it = Probe(url, port, http)
        await it.start()
        try:
            _, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"x" * 100)
            writer.close()
            await writer.wait_closed()
            answer = await http.get(f"http://{HOST}:{port}/metrics")
        finally:
            await it.stop()
    assert f"{probe.SUCCESS} 1\n" in answer.text


def test_the_rules_read_it_by_the_same_name() -> None:
    """The rules know blackbox_exporter's name; the probe uses it."""
    assert probe.SUCCESS == foreign.PROBE_SUCCESS
