"""The replicas of one service: who runs, who gets requests, who is scraped, and how each joins and leaves."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import httpx

from stack.child import Child, Hook, Phase
from stack.errors import StackError
from stack.haproxy import ANSWER_SECONDS, HAProxy
from stack.orders import Order, Orders, Replicas
from stack.plan import Plan
from stack.ports import MAX_REPLICAS, any_free, is_free
from stack.processes import ProcessSpec
from stack.prometheus_api import PrometheusApi
from stack.targets import Target, TargetFile

# By then HAProxy has ended whatever a replica left unanswered.
_DRAIN_SECONDS: Final = ANSWER_SECONDS + 5.0
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
        self._orders = Orders(self._approach, lambda: len(self._running))

    @property
    def children(self) -> list[Child]:
        """The replicas' processes, by slot."""
        return [child for _, child in sorted(self._running.items())]

    @property
    def replicas(self) -> Replicas:
        """How many there are and how many are ordered; asks nobody."""
        return self._orders.replicas

    def order(self, count: int) -> Order:
        """
        Have the number of replicas brought to `count`, without losing a request on either way; returns at once.

        The newest order holds. While replicas leave, one for more keeps those that have not begun to stop; while
        replicas start, one for fewer waits until they have.

        Raises:
            StackError: it cannot be; or no orders are taken any more.

        """
        if not 1 <= count <= MAX_REPLICAS:
            raise StackError(f"{self.service} can have 1 to {MAX_REPLICAS} replicas, not {count}.")
        return self._orders.place(count)

    async def scale_to(self, count: int) -> bool:
        """
        Order a number of replicas and wait for it: whether they are there, or a newer order took this one's place.

        Raises:
            StackError: a replica could not be started, or HAProxy did not do as told; those that run go on.

        """
        return await self.order(count).settled()

    async def register_again(self) -> None:
        """Give requests to all that are ready and to stay; HAProxy remembers nothing when it is started again."""
        for child in self.children:
            if child.phase is Phase.READY:
                await self._on_ready(child)

    async def stop(self) -> None:
        """Take no more orders and end all replicas at once; nothing is drained."""
        await self._orders.close()
        await asyncio.gather(*(child.stop() for child in self._running.values()))

    async def _approach(self, count: int) -> None:
        slots = sorted(self._running)
        await self._keep(self._draining - set(slots[count:]))
        if self._orders.target != count:
            return
        if count > len(slots):
            await self._grow(len(slots), [slot for slot in range(1, MAX_REPLICAS + 1) if slot not in slots])
        elif count < len(slots):
            await self._shrink(slots[count:])

    async def _grow(self, present: int, free: list[int]) -> None:
        # The first one alone: what cannot start should fail once, and a start costs a core for seconds.
        await self._start(free[0])
        # Seconds later another number may be ordered.
        missing = max(self._orders.target - present, 0)
        await together(self._start(slot) for slot in free[1:missing])

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
        self._targets.add(_target(child))
        await self._put(child)

    async def _put(self, child: Child) -> None:
        if self._haproxy is not None:
            # A HAProxy that is away takes everyone in when it is back.
            with contextlib.suppress(StackError):
                await self._haproxy.put(_slot(child), child.spec.port)

    async def _on_death(self, child: Child) -> None:
        # It stays a target: that it does not answer is what `up` is for.
        if self._haproxy is not None:
            with contextlib.suppress(StackError):
                await self._haproxy.take_out(_slot(child))

    async def _shrink(self, slots: list[int]) -> None:
        self._draining.update(slots)
        try:
            if await self._drain(slots) and await self._leave(slots):
                await self._end(slots)
        except Exception:
            # Whatever it was: nobody may stay where no requests come, with nobody to call them back.
            await self._keep(self._draining)
            raise

    async def _keep(self, slots: set[int]) -> None:
        """Give requests and scrapes back to replicas that were to leave and are not any more."""
        self._draining = self._draining - slots
        kept = [self._running[slot] for slot in sorted(slots)]
        # Requests first: it may be the target file that cannot be written.
        for child in kept:
            if child.phase is Phase.READY:
                await self._put(child)
        if kept:
            self._targets.add(*map(_target, kept))

    async def _drain(self, slots: list[int]) -> bool:
        """Wait until nobody uses the slots; whether they are still to leave."""
        if self._haproxy is None:
            return True
        haproxy = self._haproxy
        for slot in slots:
            await haproxy.drain(slot)

        async def empty() -> bool:
            status = await haproxy.slots()
            return all(slot in status and not status[slot].sessions for slot in slots)

        return await self._while_leaving(slots, empty, _DRAIN_SECONDS)

    async def _leave(self, slots: list[int]) -> bool:
        """Let Prometheus read the counters' last values and forget the replicas; whether they are still to leave."""
        replicas = [self._running[slot].spec.name for slot in slots]
        drained = time.time()

        async def scraped() -> bool:
            assert self._prometheus is not None
            seen = await self._prometheus.targets()
            return all(name not in seen or seen[name].last_scrape > drained for name in replicas)

        async def forgotten() -> bool:
            # Or it would see a target down that was stopped on purpose.
            assert self._prometheus is not None
            return not set(replicas) & set(await self._prometheus.targets())

        if self._prometheus is not None and not await self._while_leaving(slots, scraped, _LAST_SCRAPE_SECONDS):
            return False
        self._targets.remove(*replicas)
        return self._prometheus is None or await self._while_leaving(slots, forgotten, _FORGOTTEN_SECONDS)

    async def _end(self, slots: list[int]) -> None:
        await asyncio.gather(*(self._running[slot].stop() for slot in slots))
        for slot in slots:
            del self._running[slot]
            self._draining.discard(slot)
            if self._haproxy is not None:
                # One that is away comes back with all slots closed.
                with contextlib.suppress(StackError):
                    await self._haproxy.take_out(slot)

    async def _while_leaving(self, slots: list[int], condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
        """Poll until true or the time is over, since an API may be away; whether the slots are still to leave."""
        end = time.monotonic() + seconds
        while self._is_leaving(slots) and time.monotonic() < end:
            with contextlib.suppress(StackError, httpx.HTTPError):
                if await condition():
                    break
            await asyncio.sleep(_POLL_SECONDS)
        return self._is_leaving(slots)

    def _is_leaving(self, slots: list[int]) -> bool:
        return sorted(self._running)[self._orders.target :] == slots


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


def _slot(child: Child) -> int:
    return int(child.spec.name.rpartition("-")[2])


def _target(child: Child) -> Target:
    return Target(service=child.spec.service, replica=child.spec.name, port=child.spec.port)
