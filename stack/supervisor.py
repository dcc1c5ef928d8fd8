"""The one owner of processes, HAProxy's slots and the target file."""

import asyncio
import os
import time
from pathlib import Path
from typing import Final

import httpx
import psutil

from stack import readiness
from stack.child import Child, Hook, Phase
from stack.components.catalogue import ALERTMANAGER, HAPROXY, PROMETHEUS
from stack.errors import StackError
from stack.fleet import Fleet, together
from stack.foundation import foundation, platform
from stack.haproxy import HAProxy
from stack.notifications import NotificationLog
from stack.orders import Order, Replicas
from stack.plan import AUTOSCALER, LOAD, PROBE, SPIKE, Plan
from stack.probe import Probe
from stack.processes import PAYMENTS, SHOP, WORKER, ProcessSpec
from stack.prometheus_api import PrometheusApi
from stack.receiver import Receiver
from stack.state import write_atomically
from stack.status import ProcessStatus, StackStatus
from stack.targets import Target, TargetFile, render, render_addresses

_MEMORY_SECONDS: Final = 5.0


class Supervisor:
    """
    Starts, watches and stops the stack.

    Args:
        plan: what is to run.
        http: asks processes whether they are ready.

    """

    def __init__(self, plan: Plan, http: httpx.AsyncClient) -> None:
        self._plan = plan
        self._http = http
        self._single: dict[str, Child] = {}
        self._targets = TargetFile(plan.state.services_targets)
        self.prometheus = PrometheusApi(plan.url("prometheus"), http) if plan.has(PROMETHEUS.name) else None
        haproxy = HAProxy(plan.state.haproxy_socket) if plan.has(HAPROXY.name) else None
        self._fleets = {
            service: Fleet(service, plan, self._child, self._targets, balancer, self.prometheus)
            for service, balancer in ((WORKER, None), (SHOP, haproxy))
        }
        self._probe = Probe(f"{plan.shop_url}/readyz", plan.ports[PROBE], http)
        log = NotificationLog(plan.state.notifications)
        self._receiver = Receiver(plan.ports["notifications"], plan.webhook_token, log)
        self._takes_orders = False
        self._watch: asyncio.Task[None] | None = None
        self._started = time.time()
        self.peak_resident_bytes = 0
        self.first_data_seconds: float | None = None

    async def start(self, *, replicas: int, load: bool) -> None:
        """
        Start everything in the order of dependence.

        Raises:
            ProcessFailedError: something did not start; what did is still running and has to be stopped.

        """
        self._write_targets()
        await self._probe.start()
        await self._receiver.start()
        self._watch = asyncio.create_task(self._watch_memory())
        await together(self._start_single(spec) for spec in foundation(self._plan))
        self._takes_orders = True
        await together((self._start_payments(), self._start_fleet(WORKER, 1), self._start_fleet(SHOP, replicas)))
        write_atomically(self._plan.state.platform_targets, render(platform(self._plan, probed=True)))
        if load:
            await self._start_single(self._plan.load())
        if self._plan.autoscales:
            await self._start_single(self._plan.autoscaler())

    def _write_targets(self) -> None:
        state, ports = self._plan.state, self._plan.ports
        write_atomically(state.platform_targets, render(platform(self._plan, probed=False)))
        alertmanagers = [ports["alertmanager"]] if self._plan.has(ALERTMANAGER.name) else []
        write_atomically(state.alertmanager_targets, render_addresses(alertmanagers))
        autoscaler = Target(service=AUTOSCALER, replica=AUTOSCALER, port=ports["autoscaler"])
        write_atomically(state.autoscaler_targets, render([autoscaler] if self._plan.autoscales else []))

    async def _start_payments(self) -> None:
        spec = self._plan.payments()
        await self._start_single(spec)
        self._targets.add(Target(service=PAYMENTS, replica=spec.name, port=spec.port))

    async def _start_fleet(self, service: str, replicas: int) -> None:
        await self._fleets[service].scale_to(replicas if self._can_scale(service) else 1)

    def _can_scale(self, service: str) -> bool:
        return service != SHOP or self._plan.has(HAPROXY.name)

    async def stop(self) -> None:
        """Stop everything, those first who use the others. Nothing is left, however it ends."""
        if self._watch is not None:
            self._watch.cancel()
        await self._probe.stop()
        await self._stop_single(AUTOSCALER)
        await self._stop_single(SPIKE, LOAD)
        await self._fleets[SHOP].stop()
        await self._fleets[WORKER].stop()
        await self._stop_single(PAYMENTS, "haproxy")
        await self._stop_single("prometheus", "jaeger")
        await self._stop_single(*list(self._single))
        await self._receiver.stop()

    def order(self, service: str, replicas: int) -> Order:
        """
        Have a service brought to a number of replicas; returns at once, and each service goes its own way.

        Raises:
            StackError: it cannot be done; the sentence says why.

        """
        fleet = self._fleets.get(service)
        if fleet is None:
            raise StackError(f"{service!r} cannot be scaled; {' and '.join(sorted(self._fleets))} can.")
        if not self._can_scale(service):
            raise StackError("The shop cannot be scaled without HAProxy: nothing would share the requests out.")
        if not self._takes_orders:
            raise StackError(f"The {service} has not been started yet; ask again when the stack runs.")
        return fleet.order(replicas)

    def replicas(self) -> dict[str, Replicas]:
        """What each service has and is to have; nobody is asked."""
        return {service: fleet.replicas for service, fleet in sorted(self._fleets.items())}

    async def spike(self, rate_rps: float, duration_seconds: float) -> None:
        """
        Send extra load for a while.

        Raises:
            StackError: a spike runs already.

        """
        running = self._single.get(SPIKE)
        if running is not None and running.phase is Phase.READY:
            raise StackError("A spike is running already.")
        await self._start_single(self._plan.spike(rate_rps, duration_seconds))

    async def status(self) -> StackStatus:
        """What runs now; each process is asked whether it is well."""
        children = self._children()
        healthy = await asyncio.gather(*(self._is_healthy(child) for child in children))
        processes = [_process_status(child, well) for child, well in zip(children, healthy, strict=True)]
        processes.append(self._own_status())
        self._remember_peak(sum(process.resident_bytes for process in processes))
        return StackStatus(
            state_directory=str(self._plan.state.path),
            started=self._started,
            shop_url=self._plan.shop_url,
            processes=processes,
            replicas={service: replicas.running for service, replicas in self.replicas().items()},
            missing=self._plan.installation.missing,
            peak_resident_bytes=self.peak_resident_bytes,
            first_data_seconds=self.first_data_seconds,
            faults_token_file=str(self._plan.state.faults_token),
            watchdog_age_seconds=self._receiver.watchdog_age_seconds,
            time_scale=float(self._plan.clock.scale),
        )

    def _children(self) -> list[Child]:
        replicas = [child for fleet in self._fleets.values() for child in fleet.children]
        by_name = {child.spec.name: child for child in (*self._single.values(), *replicas)}
        order = ["haproxy", *(f"{SHOP}-{n}" for n in range(1, 9)), PAYMENTS, *(f"{WORKER}-{n}" for n in range(1, 9))]
        rest = [name for name in by_name if name not in order]
        return [
            by_name[name] for name in (*order, *rest) if name in by_name and by_name[name].phase is not Phase.STOPPED
        ]

    async def _is_healthy(self, child: Child) -> bool:
        return child.phase is Phase.READY and await readiness.is_ready(child.spec, self._http)

    def _child(self, spec: ProcessSpec, on_ready: Hook, on_death: Hook) -> Child:
        return Child(spec, self._log(spec.name), self._http, on_ready=on_ready, on_death=on_death)

    def _log(self, name: str) -> Path:
        return self._plan.state.logs / f"{name}.log"

    async def _start_single(self, spec: ProcessSpec) -> None:
        child = Child(spec, self._log(spec.name), self._http, on_ready=self._on_ready)
        self._single[spec.name] = child
        await child.start()

    async def _stop_single(self, *names: str) -> None:
        await asyncio.gather(*(self._single.pop(name).stop() for name in names if name in self._single))

    async def _on_ready(self, child: Child) -> None:
        if child.spec.name == "haproxy":
            await self._fleets[SHOP].register_again()

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(_MEMORY_SECONDS)
            pids = [os.getpid(), *(child.pid for child in self._children())]
            self._remember_peak(sum(resident_bytes(pid) for pid in pids))

    def _remember_peak(self, resident: int) -> None:
        self.peak_resident_bytes = max(self.peak_resident_bytes, resident)

    def _own_status(self) -> ProcessStatus:
        return ProcessStatus(
            name="supervisor",
            service="stack",
            pid=os.getpid(),
            url="",
            phase=Phase.READY.value,
            healthy=True,
            restarts=0,
            resident_bytes=resident_bytes(os.getpid()),
            log_file="",
        )


def _process_status(child: Child, healthy: bool) -> ProcessStatus:
    return ProcessStatus(
        name=child.spec.name,
        service=child.spec.service,
        pid=child.pid,
        url=child.spec.url,
        phase=child.phase.value,
        healthy=healthy,
        restarts=child.restarts,
        resident_bytes=resident_bytes(child.pid),
        log_file=str(child.log_path),
    )


def resident_bytes(pid: int | None) -> int:
    """The memory a process has in use, 0 when it is gone."""
    try:
        return psutil.Process(pid).memory_info().rss if pid else 0
    except psutil.NoSuchProcess:
        return 0
