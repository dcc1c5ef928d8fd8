"""Which processes the stack has, with what settings: the one place where commands and environments are written."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from obslib import names
from stack.components.catalogue import HAPROXY, JAEGER, PROMETHEUS, REDIS, Component
from stack.components.install import Installation
from stack.ports import HOST
from stack.processes import PAYMENTS, SHOP, WORKER, ProcessSpec
from stack.state import ROOT, StateDirectory
from stack.targets import Target

MEBIBYTE: Final = 1024 * 1024
LOAD: Final = "load"
SPIKE: Final = "spike"
PROBE: Final = "probe"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    Turns components, ports and directories into process descriptions.

    Args:
        state: where everything is kept.
        ports: by the names of `stack.ports.PREFERRED`.
        installation: what there is; a missing component's processes are left out and the others told so.
        redis_password: asked for by Redis, known to this user's processes only.

    """

    state: StateDirectory
    ports: dict[str, int]
    installation: Installation
    redis_password: str = ""

    def has(self, name: str) -> bool:
        return name in self.installation.components

    @property
    def shop_url(self) -> str:
        """Where requests go in: HAProxy, or the only replica without it."""
        return self.url("http" if self.has(HAPROXY.name) else "shop-1")

    def url(self, port_name: str, path: str = "") -> str:
        return f"http://{HOST}:{self.ports[port_name]}{path}"

    def foundation(self) -> list[ProcessSpec]:
        """What services stand on, in any order."""
        made = {
            REDIS.name: self._redis,
            JAEGER.name: self._jaeger,
            PROMETHEUS.name: self._prometheus,
            HAPROXY.name: self._haproxy,
        }
        return [make(self.installation.components[name]) for name, make in made.items() if self.has(name)]

    def _redis(self, component: Component) -> ProcessSpec:
        settings = self.state.run / "redis.conf"
        self.state.write_secret(
            settings,
            f"bind {HOST}\nport {self.ports['redis']}\nrequirepass {self.redis_password}\ndir {self.state.data}\n"
            # Nothing is kept: the outbox in the database publishes again what was lost.
            'save ""\nappendonly no\n'
            # Only what has an expiry, the cache, may be evicted; queued jobs have none.
            f"maxmemory {64 * MEBIBYTE}\nmaxmemory-policy volatile-lru\n",
        )
        return ProcessSpec(
            name="redis",
            service="redis",
            command=(component.command("redis-server"), str(settings)),
            environment=component.environment(),
            port=self.ports["redis"],
        )

    def _jaeger(self, component: Component) -> ProcessSpec:
        return ProcessSpec(
            name="jaeger",
            service="jaeger",
            command=(component.command("jaeger"), "--config", str(ROOT / "deploy" / "jaeger.yaml")),
            environment={
                **component.environment(),
                "JAEGER_HOST": HOST,
                "JAEGER_QUERY_PORT": str(self.ports["jaeger"]),
                "JAEGER_QUERY_GRPC_PORT": str(self.ports["jaeger_query_grpc"]),
                "JAEGER_OTLP_HTTP_PORT": str(self.ports["jaeger_otlp_http"]),
                "JAEGER_OTLP_GRPC_PORT": str(self.ports["jaeger_otlp_grpc"]),
                "JAEGER_HEALTH_PORT": str(self.ports["jaeger_health"]),
                "JAEGER_METRICS_PORT": str(self.ports["jaeger_metrics"]),
                "GOMEMLIMIT": "400MiB",
            },
            port=self.ports["jaeger"],
            url=self.url("jaeger"),
            ready_url=self.url("jaeger_health", "/status"),
        )

    def _prometheus(self, component: Component) -> ProcessSpec:
        settings = self.state.config / "prometheus.yml"
        settings.write_text((ROOT / "prometheus" / "prometheus.yml").read_text())
        rules = self.state.config / "rules"
        rules.unlink(missing_ok=True)
        rules.symlink_to(ROOT / "prometheus" / "generated" / "rules")
        assets = component.shared_file("usr/share/prometheus/web")
        return ProcessSpec(
            name="prometheus",
            service="prometheus",
            command=(
                component.command("prometheus"),
                f"--config.file={settings}",
                f"--storage.tsdb.path={self.state.data / 'prometheus'}",
                "--storage.tsdb.retention.time=15d",
                "--storage.tsdb.retention.size=2GB",
                f"--web.listen-address={HOST}:{self.ports['prometheus']}",
                "--enable-feature=exemplar-storage",
                *([f"--web.local-assets={assets}"] if assets else []),
            ),
            environment={**component.environment(), "GOMEMLIMIT": "300MiB"},
            port=self.ports["prometheus"],
            url=self.url("prometheus"),
            ready_url=self.url("prometheus", "/-/ready"),
        )

    def _haproxy(self, component: Component) -> ProcessSpec:
        return ProcessSpec(
            name="haproxy",
            service="haproxy",
            command=(component.command("haproxy"), "-db", "-f", str(ROOT / "deploy" / "haproxy.cfg")),
            environment={
                **component.environment(),
                "HAPROXY_HOST": HOST,
                "HAPROXY_PORT": str(self.ports["http"]),
                "HAPROXY_METRICS_PORT": str(self.ports["haproxy_metrics"]),
                "HAPROXY_SOCKET": str(self.state.haproxy_socket),
            },
            port=self.ports["http"],
            url=self.url("http"),
            ready_url=self.url("haproxy_metrics", "/healthz"),
            stop_seconds=5,
        )

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
            "PYTHONUNBUFFERED": "1",
            "OTEL_SERVICE_NAME": service,
            "OTEL_RESOURCE_ATTRIBUTES": f"{names.RESOURCE_SERVICE_INSTANCE_ID}={instance}",
            "SHOP_DATABASE_URL": f"sqlite+aiosqlite:///{self.state.data / 'shop.db'}",
            "SHOP_PAYMENTS_URL": self.url("payments"),
            "SHOP_FAULTS_TOKEN_FILE": str(self.state.faults_token),
            **self._shared_stores(),
        }
        if self.has(HAPROXY.name):
            environment["SHOP_TRUSTED_PROXY"] = HOST
        if self.has(JAEGER.name):
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = self.url("jaeger_otlp_http")
        else:
            # The default would be whatever listens on port 4318 of this machine.
            environment["OTEL_TRACES_EXPORTER"] = "none"
        return environment

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


def platform_targets(plan: Plan) -> dict[str, int]:
    """The metrics ports of what the services stand on."""
    ports = {
        HAPROXY.name: plan.ports["haproxy_metrics"],
        JAEGER.name: plan.ports["jaeger_metrics"],
        PROMETHEUS.name: plan.ports["prometheus"],
    }
    return {name: port for name, port in ports.items() if plan.has(name)}


def platform(plan: Plan) -> list[Target]:
    """What Prometheus scrapes beside the services: what they stand on, and the probe that asks for the shop."""
    found = [Target(service=name, replica=name, port=port) for name, port in platform_targets(plan).items()]
    return [*found, Target(service=PROBE, replica=PROBE, port=plan.ports[PROBE], probed=SHOP)]


def state_file(path: Path) -> str:
    """A path as a person should see it: relative to the working directory where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
