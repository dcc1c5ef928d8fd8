"""What is to run: one frozen description a process."""

from dataclasses import dataclass, field
from typing import Final

#: The services. The replicas of the first two are counted; everything else runs once.
SHOP: Final = "shop"
WORKER: Final = "worker"
PAYMENTS: Final = "payments"


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """
    One process.

    Args:
        name: unique in the stack; also its log file's and, for a service, its instance's name.
        service: the service it belongs to.
        command: program and arguments.
        environment: added to the supervisor's own, cleaned one.
        port: what it listens on, 0 when on nothing.
        url: what a person or program may open; "" when there is nothing to open.
        ready_url: answers 2xx once the process can do its work; "" to take an open port as ready.
        ready_seconds: how long it may take to become ready.
        stop_seconds: how long it may take to stop orderly.
        restarts: whether it is started again when it dies.

    """

    name: str
    service: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    port: int = 0
    url: str = ""
    ready_url: str = ""
    ready_seconds: float = 60.0
    stop_seconds: float = 15.0
    restarts: bool = True
