"""Requests to a running shop while its replicas come and go, and what HAProxy and Prometheus saw of it."""

import asyncio
import itertools
import math
import threading
import time
import uuid
from collections import Counter
from typing import Self

import httpx

from obslib import names
from stack.haproxy import HAProxy, SlotStatus
from stack.processes import SHOP
from tests.integration.running import RunningStack

REQUESTS_A_KEY = 100


class Traffic:
    """
    Clients that send one request after another until told to stop, and remember every answer.

    Args:
        url: of the shop.
        clients: how many; as many requests are in flight at any time.
    """

    def __init__(self, url: str, clients: int = 6) -> None:
        self._url = url
        self._clients = clients
        self._name = uuid.uuid4().hex
        self._stop = threading.Event()
        self.answers: Counter[str] = Counter()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            await asyncio.gather(*(self._client(http, number) for number in range(self._clients)))

    async def _client(self, http: httpx.AsyncClient, number: int) -> None:
        for count in itertools.count():
            if self._stop.is_set():
                return
            # A key may send so many requests a minute; the limit is not what is tested here.
            headers = {"X-API-Key": f"{self._name}-{number}-{count // REQUESTS_A_KEY}"}
            try:
                answer = await http.get(f"{self._url}/v1/products/{count % 50 + 1}", headers=headers)
                self.answers[str(answer.status_code)] += 1
            except httpx.HTTPError as error:
                self.answers[repr(error)] += 1


def slots(stack: RunningStack) -> dict[int, SlotStatus]:
    return asyncio.run(HAProxy(stack.state.haproxy_socket).slots())


def serving(stack: RunningStack) -> set[int]:
    return {slot for slot, status in slots(stack).items() if status.status.startswith("UP")}


def scraped(stack: RunningStack) -> set[str]:
    up = stack.query(f'up{{{names.LABEL_SERVICE}="{SHOP}"}} == 1')
    return {entry["metric"][names.LABEL_INSTANCE] for entry in up}


def down_since(stack: RunningStack, moment: float) -> list[tuple[str, float]]:
    """The scrapes of the shop that failed: which replica, and how many seconds after the moment."""
    seconds = math.ceil(time.time() - moment)
    failed = stack.query(f'(up{{{names.LABEL_SERVICE}="{SHOP}"}} == 0)[{seconds}s:1s]')
    return [(entry["metric"][names.LABEL_INSTANCE], entry["values"][0][0] - moment) for entry in failed]
