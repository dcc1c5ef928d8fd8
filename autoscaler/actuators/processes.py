"""Processes on this machine, by the stack's supervisor: it starts, drains and stops them in order, and owns them."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any, Final

from autoscaler.actuators import ActuatorError, Replicas

_ANSWER_SECONDS: Final = 5.0


class ProcessActuator:
    """
    A client of the supervisor's socket.

    Args:
        socket: its path; only the user who runs the supervisor can open it.
        answer_seconds: how long to wait for an answer, which comes before an order is carried out.

    """

    owns_replicas = True

    def __init__(self, socket: Path, *, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._socket = socket
        self._answer_seconds = answer_seconds

    async def replicas(self, service: str) -> Replicas:
        answer = await self._ask({"command": "replicas"})
        try:
            counts = answer["services"][service]
            return Replicas(running=counts["running"], target=counts["target"], error=counts["error"])
        except (KeyError, TypeError):
            raise ActuatorError(f"The supervisor does not know the service {service!r}.") from None

    async def scale_to(self, service: str, count: int) -> None:
        await self._ask({"command": "scale", "service": service, "replicas": count, "wait": False})

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
        try:
            async with asyncio.timeout(self._answer_seconds):
                line = await self._exchange(json.dumps(request).encode() + b"\n")
            answer = json.loads(line)
            accepted = answer["ok"]
        except TimeoutError:
            raise ActuatorError(f"The supervisor did not answer within {self._answer_seconds:g} s.") from None
        except OSError as error:
            raise ActuatorError(f"The supervisor cannot be reached at {self._socket}: {error.strerror}.") from None
        except (ValueError, KeyError, TypeError):
            raise ActuatorError("The supervisor's answer is none.") from None
        if not accepted:
            raise ActuatorError(str(answer.get("error", "The supervisor refused without a reason.")))
        return dict(answer)

    async def _exchange(self, line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            writer.write(line)
            await writer.drain()
            return await reader.readline()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
