"""Orders for a service's replicas: who gave which, which of them holds, and what became of it."""

import asyncio
import contextlib
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from stack.errors import StackError

Approach = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """
    What a service has, and what it is to have.

    Args:
        running: processes that the supervisor has, those that start or drain included.
        target: what was ordered last and is being worked towards; `running` when nothing is in progress.
        error: why the last order failed, a sentence; empty after one that succeeded.

    """

    running: int
    target: int
    error: str = ""


class Order:
    """A number of replicas that was asked for, and what became of it."""

    def __init__(self, count: int) -> None:
        self.count: Final = count
        self._outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def settled(self) -> bool:
        """
        Wait until it has been carried out (true), or until a newer one has taken its place (false).

        Raises:
            StackError: it failed.

        """
        # Shielded: several may wait for the same order, and one who goes away must not take it from the others.
        return await asyncio.shield(self._outcome)

    def settle(self, *, is_done: bool) -> None:
        self._outcome.set_result(is_done)

    def fail(self, error: StackError) -> None:
        # One that was overtaken has its answer already.
        if not self._outcome.done():
            self._outcome.set_exception(error)
            # Retrieved: nobody has to wait for an order.
            self._outcome.exception()


class Orders:
    """
    Takes orders at any time and has the newest carried out, one step after the other.

    Args:
        approach: takes a step towards a number of replicas; may return before they are reached when that number is no
            longer what is ordered.
        running: how many there are now.

    """

    def __init__(self, approach: Approach, running: Callable[[], int]) -> None:
        self._approach = approach
        self._running = running
        self._order: Order | None = None
        self._error = ""
        self._worker: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def replicas(self) -> Replicas:
        """What there is, and what was ordered; asks nobody."""
        running = self._running()
        return Replicas(running=running, target=self._order.count if self._order else running, error=self._error)

    @property
    def target(self) -> int:
        return self.replicas.target

    def place(self, count: int) -> Order:
        """
        Take an order; the same as the one in progress changes nothing.

        Raises:
            StackError: no orders are taken any more.

        """
        if self._is_closed:
            raise StackError("The stack is stopping; it takes no orders.")
        if self._order is not None:
            if self._order.count == count:
                return self._order
            self._order.settle(is_done=False)
        self._order = Order(count)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return self._order

    async def close(self) -> None:
        """Take no more orders, and leave the one in progress where it is."""
        self._is_closed = True
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker

    async def _work(self) -> None:
        try:
            while self._order is not None:
                await self._step(self._order)
        finally:
            if self._order is not None:
                why = "the stack is stopping" if self._is_closed else "the supervisor's output says why"
                self._order.fail(StackError(f"The order was given up: {why}."))
                self._order = None

    async def _step(self, order: Order) -> None:
        try:
            await self._approach(order.count)
        except Exception as error:  # noqa: BLE001 - whoever ordered must hear of it, whatever it was
            failure = error if isinstance(error, StackError) else _unexpected(error)
            self._error = failure.sentence
            order.fail(failure)
            self._finish(order)
            return
        if self._order is order and self._running() == order.count:
            self._error = ""
            order.settle(is_done=True)
            self._finish(order)

    def _finish(self, order: Order) -> None:
        # A newer one that came meanwhile is carried out next.
        if self._order is order:
            self._order = None


def _unexpected(error: Exception) -> StackError:
    traceback.print_exception(error)
    return StackError(f"The order failed: {error!r}. The supervisor's output has more.")
