"""`python -m stack up`: install, start, show, wait, stop."""

import asyncio
import signal
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx

from prometheus.durations import Clock
from stack import pages, readiness, screen
from stack.components.catalogue import ALERTMANAGER, JAEGER, PROMETHEUS
from stack.components.install import Installation, install_all
from stack.components.progress import Progress, elapsed
from stack.control import Answer, ControlServer, Handler, Request
from stack.errors import StackError
from stack.example import example_trace
from stack.plan import Plan
from stack.ports import MAX_REPLICAS, choose
from stack.state import Lock, StateDirectory
from stack.status import RUNNING, STARTING, STOPPING, StackStatus
from stack.supervisor import Supervisor
from stack.terminal import Style, say

_FIRST_DATA_SECONDS: Final = 60.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for on the command line."""

    state: StateDirectory
    replicas: int = 2
    load: bool = True
    alertmanager: bool = True
    autoscaler: bool = True
    tick_seconds: float | None = None
    port_base: int | None = None
    clock: Clock = field(default_factory=Clock)
    run_seconds: float | None = None


def up(options: Options, style: Style) -> None:
    """
    Run the stack until it is told to stop.

    Raises:
        StackError: it cannot start; nothing is left running.

    """
    if not 1 <= options.replicas <= MAX_REPLICAS:
        raise StackError(f"--replicas {options.replicas}: the shop can have 1 to {MAX_REPLICAS}.")
    options.state.create()
    lock = Lock(options.state)
    try:
        say(style.strong("Components"))
        installation = install_all(Progress())
        plan = _plan(options, installation)
        asyncio.run(_Run(options, plan, style).run())
    finally:
        lock.release()


def _plan(options: Options, installation: Installation) -> Plan:
    ports, notes = choose(options.port_base)
    for note in notes:
        say(f"  {note}")
    if not options.alertmanager:
        chosen = {name: component for name, component in installation.components.items() if name != ALERTMANAGER.name}
        installation = replace(installation, components=chosen)
    options.state.new_secret(options.state.faults_token)
    options.state.new_secret(options.state.operator_token)
    return Plan(
        state=options.state,
        ports=ports,
        installation=installation,
        redis_password=options.state.new_secret(options.state.run / "redis-password"),
        webhook_token=options.state.new_secret(options.state.webhook_token),
        clock=options.clock,
        tick_seconds=options.tick_seconds,
        autoscales=options.autoscaler and PROMETHEUS.name in installation.components,
    )


class _Run:
    """One run, from the first process to the last."""

    def __init__(self, options: Options, plan: Plan, style: Style) -> None:
        self._options = options
        self._plan = plan
        self._style = style
        self._told_to_stop = asyncio.Event()
        self._pages: dict[str, str] = {}
        self._phase = STARTING

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._told_to_stop.set)
        async with readiness.client() as http:
            supervisor = Supervisor(self._plan, http)
            control = ControlServer(self._options.state.control_socket, self._handlers(supervisor))
            try:
                # First of all, so that a stack that is still starting can be looked at and stopped.
                await control.start()
                await self._unless_told(self._start(supervisor, http))
                await self._wait()
            finally:
                await self._stop(supervisor, control)

    async def _start(self, supervisor: Supervisor, http: httpx.AsyncClient) -> None:
        say(self._style.strong("Starting"))
        before = time.monotonic()
        await supervisor.start(replicas=self._options.replicas, load=self._options.load)
        say(f"  everything is ready after {elapsed(time.monotonic() - before)}; waiting for the first data")
        supervisor.first_data_seconds = await self._first_data(supervisor, before)
        self._pages = await pages.that_load(self._plan, http)
        self._phase = RUNNING
        trace = await asyncio.to_thread(example_trace, self._jaeger_url()) if self._options.load else ""
        status = await self._status(supervisor)
        say(screen.render(status, example_trace=trace, style=self._style))

    async def _first_data(self, supervisor: Supervisor, before: float) -> float | None:
        """
        Seconds until the first scraped replica (under load: the first scraped request).

        Args:
            before: when the first process was started; what had to be installed was there by then.

        """
        if supervisor.prometheus is None:
            return None
        query = pages.REQUESTS_SEEN if self._options.load else pages.REPLICAS_UP
        end = time.monotonic() + _FIRST_DATA_SECONDS
        while time.monotonic() < end:
            try:
                if await supervisor.prometheus.value(query):
                    return time.monotonic() - before
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)
        say(f"  Prometheus has no data after {_FIRST_DATA_SECONDS:.0f} s; see `status` and the logs.")
        return None

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._options.run_seconds):
                await self._told_to_stop.wait()
        except TimeoutError:
            return

    async def _unless_told(self, start: Awaitable[None]) -> None:
        """Start, but stop starting when told to stop."""
        starting = asyncio.ensure_future(start)
        told = asyncio.create_task(self._told_to_stop.wait())
        try:
            await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
        finally:
            told.cancel()
            starting.cancel()
            await asyncio.gather(starting, told, return_exceptions=True)

    async def _stop(self, supervisor: Supervisor, control: ControlServer) -> None:
        say("\nStopping …")
        before = time.monotonic()
        self._phase = STOPPING
        await supervisor.stop()
        await control.stop()
        peak = screen.memory(supervisor.peak_resident_bytes)
        say(f"Stopped in {elapsed(time.monotonic() - before)}. At its largest the stack had {peak} resident.")

    async def _status(self, supervisor: Supervisor) -> StackStatus:
        return replace(await supervisor.status(), pages=self._pages, phase=self._phase)

    def _jaeger_url(self) -> str:
        return self._plan.url("jaeger") if self._plan.has(JAEGER.name) else ""

    def _handlers(self, supervisor: Supervisor) -> dict[str, Handler]:
        async def status(_: Request) -> Answer:
            return (await self._status(supervisor)).to_json()

        async def scale(request: Request) -> Answer:
            service, count, wait = request.get("service"), request.get("replicas"), request.get("wait", True)
            if (
                not isinstance(service, str)
                or not isinstance(count, int)
                or isinstance(count, bool)
                or not isinstance(wait, bool)
            ):
                raise StackError('scale needs {"service": "shop", "replicas": 3}, and may have "wait": false.')
            before = time.monotonic()
            order = supervisor.order(service, count)
            is_newest = await order.settled() if wait else True
            seconds = round(time.monotonic() - before, 1)
            now = asdict(supervisor.replicas()[service])
            return {"service": service, "replicas": count, "superseded": not is_newest, "seconds": seconds, **now}

        async def replicas(_: Request) -> Answer:
            return {"services": {service: asdict(found) for service, found in supervisor.replicas().items()}}

        async def spike(request: Request) -> Answer:
            rate, seconds = request.get("rate_rps"), request.get("duration_seconds")
            if not isinstance(rate, int | float) or not isinstance(seconds, int | float) or rate <= 0 or seconds <= 0:
                raise StackError("A spike needs a rate and a duration above 0.")
            await supervisor.spike(rate, seconds)
            return {"rate_rps": rate, "duration_seconds": seconds}

        async def stop(_: Request) -> Answer:
            self._told_to_stop.set()
            return {}

        return {"status": status, "scale": scale, "replicas": replicas, "spike": spike, "stop": stop}


def install(style: Style) -> None:
    """
    Install the components and start nothing.

    Raises:
        StackError: one of them cannot be had here.

    """
    say(style.strong("Components"))
    installation = install_all(Progress())
    if installation.missing:
        raise StackError("Not everything could be installed; `make demo` runs without what is missing.")


def log_paths(state: StateDirectory, name: str | None) -> list[Path]:
    """
    The log files, or the one of a process.

    Raises:
        StackError: no process of that name has a log.

    """
    paths = sorted(state.logs.glob("*.log"))
    if name is None:
        return paths
    chosen = [path for path in paths if path.stem == name]
    if not chosen:
        known = ", ".join(path.stem for path in paths) or "none yet"
        raise StackError(f"There is no log of {name!r}; there are: {known}.")
    return chosen
