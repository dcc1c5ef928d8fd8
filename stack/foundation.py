"""What the services stand on: how each component is started and where Prometheus finds it."""

from stack import monitoring
from stack.components.catalogue import ALERTMANAGER, HAPROXY, JAEGER, PROMETHEUS, REDIS, Component
from stack.plan import MEBIBYTE, PROBE, Plan
from stack.ports import HOST
from stack.processes import SHOP, ProcessSpec
from stack.state import ROOT
from stack.targets import Target


def foundation(plan: Plan) -> list[ProcessSpec]:
    """What services stand on, in any order."""
    made = {
        REDIS.name: _redis,
        JAEGER.name: _jaeger,
        PROMETHEUS.name: monitoring.prometheus,
        ALERTMANAGER.name: monitoring.alertmanager,
        HAPROXY.name: _haproxy,
    }
    return [make(plan, plan.installation.components[name]) for name, make in made.items() if plan.has(name)]


def _redis(plan: Plan, component: Component) -> ProcessSpec:
    settings = plan.state.run / "redis.conf"
    plan.state.write_secret(
        settings,
        f"bind {HOST}\nport {plan.ports['redis']}\nrequirepass {plan.redis_password}\ndir {plan.state.data}\n"
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
        port=plan.ports["redis"],
    )


def _jaeger(plan: Plan, component: Component) -> ProcessSpec:
    return ProcessSpec(
        name="jaeger",
        service="jaeger",
        command=(component.command("jaeger"), "--config", str(ROOT / "deploy" / "jaeger.yaml")),
        environment={
            **component.environment(),
            "JAEGER_HOST": HOST,
            "JAEGER_QUERY_PORT": str(plan.ports["jaeger"]),
            "JAEGER_QUERY_GRPC_PORT": str(plan.ports["jaeger_query_grpc"]),
            "JAEGER_OTLP_HTTP_PORT": str(plan.ports["jaeger_otlp_http"]),
            "JAEGER_OTLP_GRPC_PORT": str(plan.ports["jaeger_otlp_grpc"]),
            "JAEGER_HEALTH_PORT": str(plan.ports["jaeger_health"]),
            "JAEGER_METRICS_PORT": str(plan.ports["jaeger_metrics"]),
            "GOMEMLIMIT": "400MiB",
        },
        port=plan.ports["jaeger"],
        url=plan.url("jaeger"),
        ready_url=plan.url("jaeger_health", "/status"),
    )


def _haproxy(plan: Plan, component: Component) -> ProcessSpec:
    return ProcessSpec(
        name="haproxy",
        service="haproxy",
        command=(component.command("haproxy"), "-db", "-f", str(ROOT / "deploy" / "haproxy.cfg")),
        environment={
            **component.environment(),
            "HAPROXY_HOST": HOST,
            "HAPROXY_PORT": str(plan.ports["http"]),
            "HAPROXY_METRICS_PORT": str(plan.ports["haproxy_metrics"]),
            "HAPROXY_SOCKET": str(plan.state.haproxy_socket),
        },
        port=plan.ports["http"],
        url=plan.url("http"),
        ready_url=plan.url("haproxy_metrics", "/healthz"),
        stop_seconds=5,
    )


def platform_targets(plan: Plan) -> dict[str, int]:
    """The metrics ports of what the services stand on."""
    ports = {
        HAPROXY.name: plan.ports["haproxy_metrics"],
        JAEGER.name: plan.ports["jaeger_metrics"],
        PROMETHEUS.name: plan.ports["prometheus"],
        ALERTMANAGER.name: plan.ports["alertmanager"],
    }
    return {name: port for name, port in ports.items() if plan.has(name)}


def platform(plan: Plan, *, probed: bool) -> list[Target]:
    """
    What Prometheus scrapes beside the services: what they stand on, and the probe that asks for the shop.

    Args:
        probed: whether the probe may ask: a shop that has not been started yet breaks no promise.

    """
    found = [Target(service=name, replica=name, port=port) for name, port in platform_targets(plan).items()]
    probe = Target(service=PROBE, replica=PROBE, port=plan.ports[PROBE], probed=SHOP)
    return [*found, probe] if probed else found
