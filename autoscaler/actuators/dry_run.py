"""Nobody: what would be done is decided, counted and logged, and nothing is done."""

import time

from autoscaler.actuators import ActuatorError, Replicas
from autoscaler.prometheus_api import PrometheusApi, PrometheusError
from prometheus.policy import Service


class DryRun:
    """
    Counts the replicas as the rules do, and takes orders without carrying them out.

    Args:
        services: by name.
        prometheus: who evaluates the rules.

    """

    owns_replicas = False

    def __init__(self, services: dict[str, Service], prometheus: PrometheusApi) -> None:
        self._services = services
        self._prometheus = prometheus

    async def replicas(self, service: str) -> Replicas:
        try:
            running = await self._prometheus.running(self._services[service], time.time())
        except PrometheusError as error:
            raise ActuatorError(str(error)) from None
        if running is None:
            raise ActuatorError(f"The rules count no replicas of {service}.")
        return Replicas(running=running, target=running)

    async def scale_to(self, service: str, count: int) -> None:
        """Nothing: the decision has been logged."""

    async def close(self) -> None:
        """Nothing is kept open."""
