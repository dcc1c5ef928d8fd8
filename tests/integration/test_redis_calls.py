"""What is counted of redis' clients, against a real Redis."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping

import pytest
import redis

from stack.components.catalogue import Component
from stack.ports import HOST, any_free
from tests.obslib.redis_cases import commands_of_a_client_are_counted, commands_of_an_async_client_are_counted

DEADLINE_SECONDS = 180


@pytest.fixture(scope="module")
def redis_port(components: Mapping[str, Component]) -> Iterator[int]:
    """The port of a Redis of this module's own, which keeps nothing."""
    component = components["redis"]
    port = any_free(set())
    options = ["--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(
        [component.command("redis-server"), *options],
        env={**os.environ, **component.environment()},
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        with redis.Redis(port=port) as client:
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(DEADLINE_SECONDS)


def test_commands_of_a_client_are_counted(redis_port: int) -> None:
    """Commands, pipelines, transactions and errors count once each, as redis-py talks to a real server."""
    commands_of_a_client_are_counted(redis_port)


async def test_commands_of_an_async_client_are_counted(redis_port: int) -> None:
    """The same for redis.asyncio, and its pool."""
    await commands_of_an_async_client_are_counted(redis_port)
