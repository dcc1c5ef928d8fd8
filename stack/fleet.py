"""The replicas of one service: who runs, who gets requests, who is scraped, and how each joins and leaves."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import httpx

from stack.child import Child, Hook, Phase
from stack.errors import StackError
from stack.haproxy import HAProxy
from stack.plan import Plan
from stack.ports import MAX_REPLICAS, any_free, is_free
from stack.processes import ProcessSpec
from stack.prometheus_api import PrometheusApi
from stack.targets import Target, TargetFile

_DRAIN_SECONDS: Final = 30.0
# A scrape comes every 5 s, and Prometheus reads changed target files at most every 5 s.
_LAST_SCRAPE_SECONDS: Final = 12.0
_FORGOTTEN_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.2

MakeChild = Callable[[ProcessSpec, Hook, Hook], Child]


class Fleet:
    """
    One service's replicas, each in a slot from 1 to 8.

    Args:
        service: `shop` or `worker`.
        plan: knows a replica's command and port.
        make_child: makes a process with hooks for becoming ready and dying.
        targets: Prometheus' target file.
        haproxy: where the replicas get their requests from; None when they get them elsewhere.
        prometheus: asked before a replica stops; None when there is none.

    """

    def __init__(
        self,
        service: str,
        plan: Plan,
        make_child: MakeChild,
        targets: TargetFile,
        haproxy: HAProxy | None,
        prometheus: PrometheusApi | None,
    ) -> None:
        self.service = service
        self._plan = plan
        self._make_child = make_child
        self._targets = targets
        self._haproxy = haproxy
        self._prometheus = prometheus
        self._running: dict[int, Child] = {}
        self._draining: set[int] = set()

    @property
    def children(self) -> list[Child]:
        """The replicas' processes, by slot."""
        return [child for _, child in sorted(self._running.items())]

    async def scale_to(self, count: int) -> None:
        """
        Bring the number of replicas to `count`, without losing a request on either way.

        Raises:
            StackError: a replica could not be started, or HAProxy did not do as told; those that run go on.

        """
        if not 1 <= count <= MAX_REPLICAS:
            raise StackError(f"{self.service} can have 1 to {MAX_REPLICAS} replicas, not {count}.")
        slots = sorted(self._running)
        if count > len(slots):
            free = [slot for slot in range(1, MAX_REPLICAS + 1) if slot not in self._running]
            await self._grow(free[: count - len(slots)])
        elif count < len(slots):
            await self._shrink(slots[count:])

    async def register_again(self) -> None:
        """Give requests to all that are ready and to stay; HAProxy remembers nothing when it is started again."""
        for child in self.children:
            if child.phase is Phase.READY:
                await self._on_ready(child)

    async def stop(self) -> None:
        """End all replicas at once; nothing is drained."""
        await asyncio.gather(*(child.stop() for child in self._running.values()))

    async def _grow(self, slots: list[int]) -> None:
        # The first one alone: what cannot start should fail once, and a start costs a core for seconds.
        await self._start(slots[0])
        await together(self._start(slot) for slot in slots[1:])

    async def _start(self, slot: int) -> None:
        name = f"{self.service}-{slot}"
        if not is_free(self._plan.ports[name]):
            self._plan.ports[name] = any_free(set(self._plan.ports.values()))
        child = self._make_child(self._plan.replica(self.service, slot), self._on_ready, self._on_death)
        self._running[slot] = child
        try:
            await child.start()
        except BaseException:
            del self._running[slot]
            self._targets.remove(name)
            raise

    async def _on_ready(self, child: Child) -> None:
        if _slot(child) in self._draining:
            return  # it died on its way out, and its keeper does not know that it is to leave
        spec = child.spec
        self._targets.add(Target(service=self.service, replica=spec.name, port=spec.port))
        if self._haproxy is not None:
            # A HAProxy that is away takes everyone in when it is back.
            with contextlib.suppress(StackError):
                await self._haproxy.put(_slot(child), spec.port)

    async def _on_death(self, child: Child) -> None:
        # It stays a target: that it does not answer is what `up` is for.
        if self._haproxy is not None:
            with contextlib.suppress(StackError):
                await self._haproxy.take_out(_slot(child))

    async def _shrink(self, slots: list[int]) -> None:
        self._draining.update(slots)
        try:
            await self._drain(slots)
            names = [self._running[slot].spec.name for slot in slots]
            await self._last_scrape(names)
            self._targets.remove(*names)
            await self._until_forgotten(names)
            await asyncio.gather(*(self._running.pop(slot).stop() for slot in slots))
            if self._haproxy is not None:
                for slot in slots:
                    await self._haproxy.take_out(slot)
        finally:
            self._draining.clear()

    async def _drain(self, slots: list[int]) -> None:
        if self._haproxy is None:
            return
        haproxy = self._haproxy
        try:
            for slot in slots:
                await haproxy.drain(slot)
        except StackError:
            self._draining.difference_update(slots)
            await self.register_again()
            raise

        async def empty() -> bool:
            status = await haproxy.slots()
            return not any(status[slot].sessions for slot in slots)

        await _eventually(empty, _DRAIN_SECONDS)

    async def _last_scrape(self, replicas: list[str]) -> None:
        """Let the counters' last values be read; no Prometheus, no wait."""
        drained = time.time()

        async def scraped() -> bool:
            assert self._prometheus is not None
            seen = await self._prometheus.targets()
            return all(name not in seen or seen[name].last_scrape > drained for name in replicas)

        if self._prometheus is not None:
            await _eventually(scraped, _LAST_SCRAPE_SECONDS)

    async def _until_forgotten(self, replicas: list[str]) -> None:
        """Wait until Prometheus has read the target file: or it would see a target down that was stopped on purpose."""

        async def forgotten() -> bool:
            assert self._prometheus is not None
            return not set(replicas) & set(await self._prometheus.targets())

        if self._prometheus is not None:
            await _eventually(forgotten, _FORGOTTEN_SECONDS)


async def together(starts: Iterable[Awaitable[None]]) -> None:
    """Await all at once; the first failure cancels the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(_run(start))
    except* StackError as failures:
        first: BaseException = failures
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def _run(start: Awaitable[None]) -> None:
    await start


async def _eventually(condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Poll until true or the time is over. An API that is away counts as not yet: the wait is bounded."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(StackError, httpx.HTTPError):
            if await condition():
                return True
        await asyncio.sleep(_POLL_SECONDS)
    return False


def _slot(child: Child) -> int:
    return int(child.spec.name.rpartition("-")[2])
