"""Which processes the stack has, with what settings: the one place where commands and environments are written."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from obslib import names
from prometheus.durations import Clock
from stack.components.catalogue import HAPROXY, JAEGER, REDIS
from stack.components.install import Installation
from stack.ports import HOST
from stack.processes import PAYMENTS, SHOP, WORKER, ProcessSpec
from stack.state import ROOT, StateDirectory

MEBIBYTE: Final = 1024 * 1024
LOAD: Final = "load"
SPIKE: Final = "spike"
PROBE: Final = "probe"
AUTOSCALER: Final = "autoscaler"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    Turns components, ports and directories into process descriptions.

    Args:
        state: where everything is kept.
        ports: by the names of `stack.ports.PREFERRED`.
        installation: what there is; a missing component's processes are left out and the others told so.
        redis_password: asked for by Redis, known to this user's processes only.
        webhook_token: shown by Alertmanager to whom it tells.
        autoscales: whether the autoscaler is a part of it.
        tick_seconds: how often it looks though no alert wakes it; None: its own default.
        clock: makes the durations of rules, scrapes and alerts shorter, for tests.

    """

    state: StateDirectory
    ports: dict[str, int]
    installation: Installation
    redis_password: str = ""
    webhook_token: str = ""
    autoscales: bool = False
    tick_seconds: float | None = None
    clock: Clock = field(default_factory=Clock)

    def has(self, name: str) -> bool:
        return name in self.installation.components

    @property
    def shop_url(self) -> str:
        """Where requests go in: HAProxy, or the only replica without it."""
        return self.url("http" if self.has(HAPROXY.name) else "shop-1")

    def url(self, port_name: str, path: str = "") -> str:
        return f"http://{HOST}:{self.ports[port_name]}{path}"

    @property
    def scale_url(self) -> str:
        """Who is woken by alerts that ask for replicas; without an autoscaler they are messages as others are."""
        return self.url("autoscaler", "/alerts") if self.autoscales else self.url("notifications", "/scale")

    def payments(self) -> ProcessSpec:
        return ProcessSpec(
            name=PAYMENTS,
            service=PAYMENTS,
            command=_demo(PAYMENTS, "--host", HOST, "--port", str(self.ports["payments"])),
            environment=self._service_environment(PAYMENTS, PAYMENTS),
            port=self.ports["payments"],
            url=self.url("payments"),
            ready_url=self.url("payments", "/readyz"),
        )

    def replica(self, service: str, slot: int) -> ProcessSpec:
        """One replica of the shop or of the worker, in its slot (from 1)."""
        name = f"{service}-{slot}"
        port = self.ports[name]
        if service == WORKER:
            return ProcessSpec(
                name=name,
                service=WORKER,
                command=_demo(WORKER, "--metrics-port", str(port)),
                environment=self._service_environment(WORKER, name),
                port=port,
                url=self.url(name, "/metrics"),
                ready_url=self.url(name, "/metrics"),
            )
        return ProcessSpec(
            name=name,
            service=SHOP,
            command=_demo(SHOP, "--host", HOST, "--port", str(port)),
            environment=self._service_environment(SHOP, name),
            port=port,
            url=self.url(name),
            ready_url=self.url(name, "/readyz"),
        )

    def autoscaler(self) -> ProcessSpec:
        """Decides how many replicas there are; the supervisor carries it out."""
        settings = {
            "HOST": HOST,
            "PORT": str(self.ports[AUTOSCALER]),
            "POLICY_FILE": str(ROOT / "prometheus" / "policy.yml"),
            "PROMETHEUS_URL": self.url("prometheus"),
            "ACTUATOR": "processes",
            "SUPERVISOR_SOCKET": str(self.state.control_socket),
            "WEBHOOK_TOKEN_FILE": str(self.state.webhook_token),
            "OPERATOR_TOKEN_FILE": str(self.state.operator_token),
            "TICK_SECONDS": "" if self.tick_seconds is None else f"{self.tick_seconds:g}",
            "TIME_SCALE": str(self.clock.scale),
        }
        return ProcessSpec(
            name=AUTOSCALER,
            service=AUTOSCALER,
            command=(sys.executable, "-m", "autoscaler"),
            environment={
                **self._telemetry_environment(AUTOSCALER, AUTOSCALER),
                **{f"AUTOSCALER_{name}": value for name, value in settings.items()},
            },
            port=self.ports[AUTOSCALER],
            url=self.url(AUTOSCALER),
            ready_url=self.url(AUTOSCALER, "/readyz"),
        )

    def load(self) -> ProcessSpec:
        return ProcessSpec(
            name=LOAD, service=LOAD, command=_demo("load", "--url", self.shop_url, "--shape", "steady"), stop_seconds=10
        )

    def spike(self, rate_rps: float, duration_seconds: float) -> ProcessSpec:
        """Extra load for a while, beside the steady one."""
        command = (*self.load().command, "--rate-rps", f"{rate_rps:g}", "--duration-seconds", f"{duration_seconds:g}")
        return replace(self.load(), name=SPIKE, service=SPIKE, command=command, restarts=False)

    def _service_environment(self, service: str, instance: str) -> dict[str, str]:
        environment = {
            **self._telemetry_environment(service, instance),
            "SHOP_DATABASE_URL": f"sqlite+aiosqlite:///{self.state.data / 'shop.db'}",
            "SHOP_PAYMENTS_URL": self.url("payments"),
            "SHOP_FAULTS_TOKEN_FILE": str(self.state.faults_token),
            **self._shared_stores(),
        }
        if self.has(HAPROXY.name):
            environment["SHOP_TRUSTED_PROXY"] = HOST
        return environment

    def _telemetry_environment(self, service: str, instance: str) -> dict[str, str]:
        # Without Jaeger the default would be whatever listens on port 4318 of this machine.
        traces = (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url("jaeger_otlp_http")}
            if self.has(JAEGER.name)
            else {"OTEL_TRACES_EXPORTER": "none"}
        )
        return {
            "PYTHONUNBUFFERED": "1",
            "OTEL_SERVICE_NAME": service,
            "OTEL_RESOURCE_ATTRIBUTES": f"{names.RESOURCE_SERVICE_INSTANCE_ID}={instance}",
            **traces,
        }

    def _shared_stores(self) -> dict[str, str]:
        if self.has(REDIS.name):
            server = f"redis://:{self.redis_password}@{HOST}:{self.ports['redis']}"
            return {
                "SHOP_CACHE_URL": f"{server}/0",
                "SHOP_BROKER_URL": f"{server}/1",
                "SHOP_RATE_LIMIT_URL": f"{server}/2",
            }
        queue = self.state.data / "queue"
        queue.mkdir(exist_ok=True)
        return {"SHOP_BROKER_URL": f"filesystem://{queue}"}


def _demo(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "demo_service", *arguments)


def state_file(path: Path) -> str:
    """A path as a person should see it: relative to the working directory where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
