"""Which port each part listens on: fixed ones people can remember, others when a stranger has them."""

import random
import socket
from collections.abc import Callable, Mapping
from typing import Final

from stack.errors import StackError

HOST: Final = "127.0.0.1"
MAX_REPLICAS: Final = 8

#: The defaults, in the order in which `--port-base` numbers them.
PREFERRED: Final[Mapping[str, int]] = {
    "http": 8080,
    "prometheus": 9090,
    "jaeger": 16686,
    "haproxy_metrics": 8404,
    "payments": 8090,
    "redis": 16379,
    "jaeger_otlp_http": 4318,
    "jaeger_otlp_grpc": 4317,
    "jaeger_query_grpc": 16685,
    "jaeger_health": 13133,
    "jaeger_metrics": 8888,
    **{f"shop-{number}": 8100 + number for number in range(1, MAX_REPLICAS + 1)},
    **{f"worker-{number}": 8200 + number for number in range(1, MAX_REPLICAS + 1)},
    "probe": 9115,
    "alertmanager": 9093,
    "autoscaler": 9095,
    "notifications": 9096,
}

# Below the range the kernel takes outgoing connections' ports from, so that none of those grabs a port between our look
# and the child's bind.
_RANDOM_RANGE: Final = (20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether `port` can be listened on now; the remains of closed connections do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def any_free(taken: set[int], *, free: Callable[[int], bool] = is_free) -> int:
    """A free port that is not in `taken`, at random, so that two stacks starting at once rarely meet."""
    for _ in range(1000):
        port = random.randrange(*_RANDOM_RANGE)
        if port not in taken and free(port):
            return port
    raise StackError(f"No free port between {_RANDOM_RANGE[0]} and {_RANDOM_RANGE[1]} on {HOST}.")


def choose(base: int | None = None, *, free: Callable[[int], bool] = is_free) -> tuple[dict[str, int], list[str]]:
    """
    Choose a port for each part.

    Args:
        base: None for the defaults, moved where taken; 0 for free ports at random; otherwise the first of a row of
            ports that were asked for explicitly, so that a taken one is an error.
        free: tells whether a port can be listened on.

    Returns:
        The ports by name, and a sentence for each default that was taken.

    Raises:
        StackError: a port of the asked row is taken.

    """
    if base:
        return _row(base, free), []
    chosen: dict[str, int] = {}
    notes: list[str] = []
    for name, preferred in PREFERRED.items():
        if base is None and free(preferred):
            chosen[name] = preferred
            continue
        chosen[name] = any_free(set(chosen.values()) | set(PREFERRED.values()), free=free)
        if base is None:
            notes.append(f"Port {preferred} ({name}) is taken by another program; using {chosen[name]}.")
    return chosen, notes


def _row(base: int, free: Callable[[int], bool]) -> dict[str, int]:
    last = base + len(PREFERRED) - 1
    if base < 1024 or last > 65_535:
        raise StackError(
            f"--port-base {base} cannot work: it needs the {len(PREFERRED)} ports from it on, within 1024 to 65535."
        )
    row = {name: base + offset for offset, name in enumerate(PREFERRED)}
    taken = [f"{port} ({name})" for name, port in row.items() if not free(port)]
    if taken:
        raise StackError(
            f"--port-base {base} asks for ports that are taken: {', '.join(taken)}. "
            "Stop what listens there, choose another base, or leave the option out to let free ports be chosen."
        )
    return row
