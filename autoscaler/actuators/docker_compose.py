"""Services of a Docker Compose project: one more container like the newest, or the last one stopped and removed."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any, Final, Self

import obslib
from autoscaler.actuators import ActuatorError, Replicas
from autoscaler.actuators.docker_engine import Engine, EngineError
from autoscaler.actuators.docker_replica import NUMBER, ONE_OFF, PROJECT, SERVICE, alike

log = obslib.get_logger(__name__)

# Not "created": what is made and never started would count for ever, and an order that fails at the start look done.
_LIVING: Final = frozenset({"running", "restarting", "paused"})
_STARTABLE: Final = frozenset({"created", "exited"})
_DESCRIBED: Final = frozenset({"Id", "Image", "Name", "Config", "HostConfig", "NetworkSettings"})
_GRACE_SECONDS: Final = 20
# On top of the answer's: an engine that is busy unpacks an image's layers for so long.
_START_SECONDS: Final = 55.0
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Container:
    id: str
    name: str
    number: int
    created: int
    state: str

    @classmethod
    def of(cls, listed: dict[str, Any]) -> Self:  # Any: JSON
        return cls(
            id=listed["Id"],
            name=listed["Names"][0].lstrip("/"),
            number=int(listed["Labels"][NUMBER]),
            created=listed["Created"],
            state=listed["State"],
        )


@dataclass(slots=True)
class _Order:
    """What is being done about a service."""

    target: int = 0
    work: asyncio.Task[None] | None = None
    #: By id: those that drain, each as long as its grace lasts.
    leaving: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    error: str = ""

    @property
    def in_progress(self) -> bool:
        return bool(self.leaving) or (self.work is not None and not self.work.done())


class ComposeActuator:
    """
    Starts and stops containers of a project as Docker Compose would, by its labels.

    Args:
        engine: where they run.
        project: its name.

    """

    owns_replicas = True

    def __init__(self, engine: Engine, project: str) -> None:
        self._engine = engine
        self._project = project
        self._orders: dict[str, _Order] = {}

    async def replicas(self, service: str) -> Replicas:
        running = len(_living(await self._containers(service)))
        order = self._orders.get(service, _Order())
        return Replicas(running=running, target=order.target if order.in_progress else running, error=order.error)

    async def scale_to(self, service: str, count: int) -> None:
        if count < 1:
            raise ActuatorError(f"At least one container of {service} stays: others are made like it.")
        await self._containers(service)
        order = self._orders.setdefault(service, _Order())
        order.target, order.error = count, ""
        if order.work is None or order.work.done():
            order.work = asyncio.create_task(self._work(service, order), name=f"scale {service}")

    async def close(self) -> None:
        """Stop working; a container that drains is stopped by the engine, and stays to be started again."""
        tasks = [task for order in self._orders.values() for task in (order.work, *order.leaving.values()) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._engine.close()

    async def _containers(self, service: str) -> list[_Container]:
        listed = await self._engine.ask(
            f"list the containers of {service}",
            "GET",
            "/containers/json",
            parameters={"all": "1", "filters": {"label": [f"{PROJECT}={self._project}", f"{SERVICE}={service}"]}},
        )
        try:
            found = [_Container.of(each) for each in listed if each["Labels"].get(ONE_OFF) != "True"]
        except (KeyError, TypeError, ValueError, IndexError):
            raise ActuatorError(f"Docker's list of the containers of {service} is none.") from None
        if not found:
            raise ActuatorError(
                f"The project {self._project!r} has no container of {service!r} to make others like;"
                " let Compose start one."
            )
        return found

    async def _work(self, service: str, order: _Order) -> None:
        """Come nearer to the newest target, step by step, until it is reached or a step fails."""
        started: set[str] = set()
        try:
            while not order.error:
                containers = await self._containers(service)
                ended = [each.name for each in containers if each.id in started and each.state not in _LIVING]
                if ended:
                    order.error = f"{ended[0]} ended right after its start; its log says why."
                    return
                staying = [each for each in _living(containers) if each.id not in order.leaving]
                if len(staying) < order.target:
                    started.add(await self._add(service, containers, order))
                elif len(staying) > order.target:
                    self._take_away(max(staying, key=lambda each: each.number), order)
                else:
                    return
        except Exception as error:  # noqa: BLE001 - whoever ordered must hear of it, whatever it was
            order.error = _said(error, service)

    async def _add(self, service: str, containers: list[_Container], order: _Order) -> str:
        """Start one that does not run, as Compose does, so that one that ends at once is not made again and again."""
        idle = [each for each in containers if each.state in _STARTABLE and each.id not in order.leaving]
        if idle:
            return await self._start(min(idle, key=lambda each: each.number))
        try:
            return await self._create(service, containers)
        except EngineError as error:
            if error.status != 409:
                raise
            # Somebody else made it at the same time.
            return await self._create(service, await self._containers(service), beyond=1)

    async def _create(self, service: str, containers: list[_Container], *, beyond: int = 0) -> str:
        newest = max(containers, key=lambda each: (each.created, each.number))
        number = max(each.number for each in containers) + 1 + beyond
        name = f"{self._project}-{service}-{number}"
        made = await self._engine.ask(
            f"create {name}",
            "POST",
            "/containers/create",
            parameters={"name": name},
            body=alike(await self._described(newest), name=name, number=number),
            takes_seconds=_START_SECONDS,
        )
        container = _Container(id=str(made["Id"]), name=name, number=number, created=0, state="created")
        try:
            return await self._start(container)
        except BaseException:
            # Neither a failure nor the end of this process leaves anything behind. What cannot be removed either is
            # started by the next order, and why it did not start is what to say.
            with contextlib.suppress(EngineError):
                await self._remove(container, force=True)
            raise

    async def _start(self, container: _Container) -> str:
        await self._engine.ask(
            f"start {container.name}", "POST", f"/containers/{container.id}/start", takes_seconds=_START_SECONDS
        )
        return container.id

    async def _described(self, container: _Container) -> dict[str, Any]:  # Any: JSON
        described: dict[str, Any] = await self._engine.ask(
            f"describe {container.name}", "GET", f"/containers/{container.id}/json"
        )
        if not described.keys() >= _DESCRIBED:
            raise ActuatorError(f"Docker's description of {container.name} is none.")
        return described

    def _take_away(self, container: _Container, order: _Order) -> None:
        task = asyncio.create_task(self._stop(container, order), name=f"stop {container.name}")
        order.leaving[container.id] = task

    async def _stop(self, container: _Container, order: _Order) -> None:
        try:
            described = await self._described(container)
            grace = described["Config"].get("StopTimeout")
            grace = _GRACE_SECONDS if grace is None else grace
            await self._engine.ask(
                f"stop {container.name}",
                "POST",
                f"/containers/{container.id}/stop",
                parameters={"t": grace},
                takes_seconds=grace + _STOP_SECONDS,
            )
            await self._remove(container)
        except Exception as error:  # noqa: BLE001 - as above
            order.error = _said(error, container.name)
        finally:
            del order.leaving[container.id]

    async def _remove(self, container: _Container, *, force: bool = False) -> None:
        try:
            await self._engine.ask(
                f"remove {container.name}",
                "DELETE",
                f"/containers/{container.id}",
                # With the volumes that only it had.
                parameters={"v": "1", "force": "1" if force else "0"},
                takes_seconds=_STOP_SECONDS,
            )
        except EngineError as error:
            # Somebody else did, or it removes itself.
            if error.status != 404:
                raise


def _living(containers: list[_Container]) -> list[_Container]:
    return [each for each in containers if each.state in _LIVING]


def _said(error: Exception, about: str) -> str:
    if isinstance(error, ActuatorError):
        return str(error)
    log.error("docker_not_understood", about=about, exc_info=error)
    return f"Docker's answer about {about} is not understood: {error!r}"
