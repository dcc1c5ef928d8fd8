"""Who starts and stops replicas: one protocol, one module for each way."""

from dataclasses import dataclass
from typing import Protocol


class ActuatorError(Exception):
    """It could not be asked, refused, or failed at its last order; the sentence says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """
    What an actuator has of a service.

    Args:
        running: replicas that exist, those that start or drain included.
        target: how many were ordered last and are being worked towards; `running` when nothing is in progress.
        error: why the last order came to nothing, a sentence; empty when it did not.

    """

    running: int
    target: int
    error: str = ""


class Actuator(Protocol):
    """
    Starts replicas, and stops them without losing a request. Every method may be asked at any time, and again.

    `owns_replicas` says that its count is the truth, which the autoscaler then exports and the rules read.
    """

    owns_replicas: bool

    async def replicas(self, service: str) -> Replicas:
        """
        What there is now.

        Raises:
            ActuatorError: nobody knows.

        """

    async def scale_to(self, service: str, count: int) -> None:
        """
        Order a number of replicas; returns when the order is accepted, the newest one holds.

        Raises:
            ActuatorError: the order was not accepted.

        """

    async def close(self) -> None:
        """Let go of connections; replicas stay."""
