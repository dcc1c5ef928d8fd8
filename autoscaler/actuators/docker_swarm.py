"""Services of a Docker Swarm: the engine starts, drains and stops their tasks, and is told how many."""

from typing import Any, Final

from autoscaler.actuators import ActuatorError, Replicas
from autoscaler.actuators.docker_engine import Engine, EngineError

# Before a node has taken them there is nothing that runs.
_UNPLACED: Final = frozenset({"new", "pending", "allocated"})


class SwarmActuator:
    """
    Sets the replicas of Swarm services; each has the name it has in the policy.

    A task that is to end no longer counts, though it may still drain: on a node that is lost it would do so for a day.

    Args:
        engine: of a manager of the swarm.

    """

    owns_replicas = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def replicas(self, service: str) -> Replicas:
        found = await self._service(service)
        tasks = await self._engine.ask(
            f"list the tasks of {service}",
            "GET",
            "/tasks",
            parameters={"filters": {"service": [found["ID"]], "desired-state": ["running"]}},
        )
        try:
            placed = [task for task in tasks if task["Status"]["State"] not in _UNPLACED]
            reasons = [task["Status"]["Err"] for task in tasks if task not in placed and task["Status"].get("Err")]
        except (KeyError, TypeError):
            raise ActuatorError(f"Docker's list of the tasks of {service} is none.") from None
        error = f"Swarm cannot place {len(reasons)} of {service}: {reasons[0]}." if reasons else ""
        return Replicas(running=len(placed), target=_count(found, service), error=error)

    async def scale_to(self, service: str, count: int) -> None:
        try:
            await self._update(service, count)
        except EngineError as error:
            if not _is_outdated(error):
                raise
            # Somebody else changed the service in between: read it again, so that their change stays.
            await self._update(service, count)

    async def close(self) -> None:
        await self._engine.close()

    async def _update(self, service: str, count: int) -> None:
        found = await self._service(service)
        if _count(found, service) == count:
            return
        spec = found["Spec"]
        replicated = {**spec["Mode"]["Replicated"], "Replicas": count}
        await self._engine.ask(
            f"scale {service} to {count}",
            "POST",
            f"/services/{found['ID']}/update",
            parameters={"version": found["Version"]["Index"]},
            # Whatever is left out of a specification is taken away.
            body={**spec, "Mode": {"Replicated": replicated}},
        )

    async def _service(self, service: str) -> dict[str, Any]:  # Any: JSON
        try:
            found: Any = await self._engine.ask(f"describe the service {service}", "GET", f"/services/{service}")
        except EngineError as error:
            if error.status == 404:
                raise ActuatorError(f"The swarm has no service {service!r}.") from None
            raise
        if not isinstance(found, dict) or not found.keys() >= {"ID", "Version", "Spec"}:
            raise ActuatorError(f"Docker's description of the service {service} is none.")
        return dict(found)


def _count(found: dict[str, Any], service: str) -> int:  # Any: JSON
    try:
        return int(found["Spec"]["Mode"]["Replicated"]["Replicas"])
    except (KeyError, TypeError):
        raise ActuatorError(f"{service} is no replicated service; a global one has one task a node.") from None


def _is_outdated(error: EngineError) -> bool:
    # The engine says so with 500.
    return error.status == 409 or "out of sequence" in str(error)
