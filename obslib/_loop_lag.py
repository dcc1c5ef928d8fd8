"""How late an event loop is with what is due."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

#: Between two samples of a loop that works, and of one that has had nothing to do for a while.
BUSY_SECONDS: Final = 0.25
IDLE_SECONDS: Final = 4.0
#: A process that uses less of one core is idle.
_IDLE_CPU_SHARE: Final = 0.02


class LoopLagSampler:
    """
    Asks the loop to call it at a time, and observes how much later it does.

    No thread, and no task that could keep a loop from ending: a timer, the next one set when one has fired, so that a
    loop that was blocked has one late sample, not a row of them. Chance spreads the samples, or work that repeats in
    their rhythm would always, or never, be seen.

    Args:
        loop: The running one.
        observe: Told seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, observe: Callable[[float], None]) -> None:
        self._loop = loop
        self._observe = observe
        self._is_stopped = False
        self._wait_seconds = BUSY_SECONDS
        self._set_timer()

    def stop(self) -> None:
        """Stop; from any thread, and whether or not the loop still runs."""
        self._is_stopped = True
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)

    def abandon(self) -> None:
        """Stop without a word to the loop: in a fork's child it is the parent's."""
        self._is_stopped = True

    def _cancel(self) -> None:
        self._timer.cancel()

    def _set_timer(self) -> None:
        delay_seconds = self._wait_seconds * random.uniform(0.5, 1.5)
        # Not the loop's own clock: uvloop's stands still while callbacks run, which is what is to be measured.
        self._set_seconds = time.perf_counter()
        self._due_seconds = self._set_seconds + delay_seconds
        self._cpu_seconds = time.process_time()
        self._timer = self._loop.call_later(delay_seconds, self._sample)

    def _sample(self) -> None:
        if self._is_stopped:
            return
        now_seconds = time.perf_counter()
        lag_seconds = max(0.0, now_seconds - self._due_seconds)  # loops may be early by their clock's resolution
        self._observe(lag_seconds)
        used_seconds = time.process_time() - self._cpu_seconds
        is_idle = used_seconds < _IDLE_CPU_SHARE * (now_seconds - self._set_seconds) and lag_seconds < BUSY_SECONDS
        self._wait_seconds = min(2 * self._wait_seconds, IDLE_SECONDS) if is_idle else BUSY_SECONDS
        self._set_timer()
