"""One process that is started, watched, started again when it dies, and stopped."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import Final

import httpx

from stack import launch, readiness
from stack.errors import ProcessFailedError, StackError
from stack.logs import open_log, tail
from stack.processes import ProcessSpec
from stack.state import ROOT

_SHORTEST_BACKOFF_SECONDS: Final = 0.5
_LONGEST_BACKOFF_SECONDS: Final = 30.0
# A process that ran this long is taken as healthy: its next death starts the back-off anew.
_SETTLED_SECONDS: Final = 60.0

Hook = Callable[["Child"], Awaitable[None]]


class Phase(Enum):
    """Where a process is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"


async def _nothing(_: "Child") -> None:
    return


class Child:
    """
    A process and its log.

    Args:
        spec: what to run.
        log_path: where its output goes.
        http: asks whether it is ready.
        on_ready: awaited each time it has become ready.
        on_death: awaited each time it has died unasked.

    """

    def __init__(
        self,
        spec: ProcessSpec,
        log_path: Path,
        http: httpx.AsyncClient,
        *,
        on_ready: Hook = _nothing,
        on_death: Hook = _nothing,
    ) -> None:
        self.spec = spec
        self.log_path = log_path
        self.phase = Phase.STOPPED
        self.restarts = 0
        self._http = http
        self._on_ready = on_ready
        self._on_death = on_death
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """
        Start it, wait until it is ready, and keep it running from then on.

        Raises:
            ProcessFailedError: it died or was not ready in time; it is stopped then.

        """
        self.phase = Phase.STARTING
        try:
            await self._spawn()
            await self._until_ready()
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.spec.name}")

    async def stop(self) -> None:
        """Ask it to stop, and end it when it does not within its time. Only what was started here is touched."""
        self.phase = Phase.STOPPING
        if self._keeper is not None:
            self._keeper.cancel()
            # Not awaited for its outcome: what broke it off earlier must not keep the process running.
            await asyncio.wait({self._keeper})
            self._keeper = None
        if self._process is not None:
            await self._end(self._process)
        self.phase = Phase.STOPPED

    async def _spawn(self) -> None:
        with open_log(self.log_path) as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                launch.__file__,
                str(os.getpid()),
                *self.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env={**clean_environment(), **self.spec.environment},
                cwd=ROOT,
                # Of its own session: Ctrl-C at the terminal reaches the supervisor only, which stops it in order.
                start_new_session=True,
            )

    async def _until_ready(self) -> None:
        assert self._process is not None
        death = asyncio.create_task(self._process.wait())
        ready = asyncio.create_task(readiness.until_ready(self.spec, self._http))
        try:
            await asyncio.wait({death, ready}, timeout=self.spec.ready_seconds, return_when=asyncio.FIRST_COMPLETED)
            if death.done():
                raise self._failure(f"{self.spec.name} {how_it_ended(death.result())} before it was ready")
            if not ready.done():
                raise self._failure(f"{self.spec.name} was not ready after {self.spec.ready_seconds:.0f} s")
            ready.result()
        finally:
            death.cancel()
            ready.cancel()
            await asyncio.gather(death, ready, return_exceptions=True)
        self.phase = Phase.READY
        await self._on_ready(self)

    async def _keep(self) -> None:
        backoff_seconds = _SHORTEST_BACKOFF_SECONDS
        while True:
            assert self._process is not None
            started = time.monotonic()
            returncode = await self._process.wait()
            if not self.spec.restarts:
                self.phase = Phase.STOPPED
                return
            self.phase = Phase.RESTARTING
            if time.monotonic() - started > _SETTLED_SECONDS:
                backoff_seconds = _SHORTEST_BACKOFF_SECONDS
            self._note(f"{self.spec.name} {how_it_ended(returncode)}; starting it again in {backoff_seconds:.1f} s")
            await self._on_death(self)
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(backoff_seconds * 2, _LONGEST_BACKOFF_SECONDS)
            self.restarts += 1
            await self._try_again()

    async def _try_again(self) -> None:
        try:
            await self._spawn()
            await self._until_ready()
        except StackError as error:
            self.phase = Phase.RESTARTING
            self._note(error.sentence)
            if self._process is not None:
                await self._end(self._process)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(self.spec.stop_seconds):
                    await process.wait()
            except TimeoutError:
                self._note(f"{self.spec.name} did not stop within {self.spec.stop_seconds:.0f} s and was killed")
                # The group is its own, and its leader still lives: nobody else can be meant.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def _failure(self, sentence: str) -> ProcessFailedError:
        lines = tail(self.log_path, 8)
        shown = "".join(f"\n    {line[:200]}" for line in lines) or "\n    (it printed nothing)"
        return ProcessFailedError(f"{sentence}.\n  The end of {self.log_path}:{shown}")

    def _note(self, sentence: str) -> None:
        print(f"[{time.strftime('%H:%M:%S')}] {sentence}", file=sys.stderr, flush=True)


def how_it_ended(returncode: int) -> str:
    """`exited with status 3`, `was ended by SIGKILL`."""
    if returncode >= 0:
        return f"exited with status {returncode}"
    return f"was ended by {signal.Signals(-returncode).name}"


def clean_environment() -> dict[str, str]:
    """
    The supervisor's environment without what would bend the demo.

    A shell prepared for another collector must not receive the demo's traces, and a proxy cannot reach this machine's
    loopback.
    """
    proxies = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OTEL_", "SHOP_", "AUTOSCALER_")) and key.lower() not in proxies
    }
