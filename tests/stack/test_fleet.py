"""Replicas that come and go, told by what HAProxy and Prometheus would see of them."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from stack.child import Child, Hook, Phase
from stack.components.install import Installation
from stack.errors import StackError
from stack.fleet import Fleet
from stack.haproxy import HAProxy
from stack.plan import Plan
from stack.ports import any_free
from stack.processes import SHOP, ProcessSpec
from stack.prometheus_api import PrometheusApi, ScrapedTarget
from stack.state import StateDirectory
from stack.targets import TargetFile

Meanwhile = Callable[[], Awaitable[None]]


async def nothing() -> None:
    return


class Replica(Child):
    """A child without a process, which dies and is started again when the test says so."""

    async def start(self) -> None:
        self.phase = Phase.READY
        await self._on_ready(self)

    async def stop(self) -> None:
        self.phase = Phase.STOPPED

    async def die(self) -> None:
        self.phase = Phase.RESTARTING
        await self._on_death(self)


class Balancer(HAProxy):
    """Remembers which state each slot was told, and has something happen whenever it is asked for its statistics."""

    def __init__(self) -> None:
        super().__init__(Path("haproxy.sock"))
        self.told: dict[str, list[str]] = {}
        self.refused = ""
        self.meanwhile: Meanwhile = nothing

    async def _ask(self, command: str) -> str:
        if command == "show stat":
            await self.meanwhile()
            rows = [f"shop,{slot},0,0,0,0,UP" for slot in self.told]
            return "\n".join(["# pxname,svname,scur,qcur,wredis,stot,status", *rows])
        slot, word, value, *_ = command.removeprefix("set server shop/").split()
        if self.refused == f"{slot} {value}":
            return "No."
        if word == "state":
            self.told.setdefault(slot, []).append(value)
        return ""


class Scraper(PrometheusApi):
    """Knows no target, and has something happen whenever it is asked for them."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        super().__init__("http://prometheus", http)
        self.meanwhile: Meanwhile = nothing

    async def targets(self) -> dict[str, ScrapedTarget]:
        await self.meanwhile()
        return {}


class Stage:
    """A fleet of the shop's replicas, with its HAProxy and its Prometheus."""

    def __init__(self, path: Path, http: httpx.AsyncClient) -> None:
        state = StateDirectory.at(path)
        state.create()
        ports: dict[str, int] = {}
        for name in ("payments", "shop-1", "shop-2", "shop-3"):
            ports[name] = any_free(set(ports.values()))
        self._http = http
        self._path = path
        self._target_file = state.services_targets
        self.balancer = Balancer()
        self.scraper = Scraper(http)
        plan = Plan(state=state, ports=ports, installation=Installation())
        targets = TargetFile(self._target_file)
        self.fleet = Fleet(SHOP, plan, self._make, targets, self.balancer, self.scraper)

    @property
    def targets(self) -> list[str]:
        """The replicas that Prometheus would scrape."""
        return [group["labels"]["replica"] for group in json.loads(self._target_file.read_text())]

    def replica(self, slot: int) -> Replica:
        """The one in a slot."""
        child = self.fleet.children[slot - 1]
        assert isinstance(child, Replica)
        return child

    def _make(self, spec: ProcessSpec, on_ready: Hook, on_death: Hook) -> Child:
        return Replica(spec, self._path / "log", self._http, on_ready=on_ready, on_death=on_death)


async def test_a_leaving_replica_that_is_started_again_is_not_taken_back(tmp_path: Path) -> None:
    """Whenever a draining replica dies and is back, it gets no requests and is no target any more."""
    async with httpx.AsyncClient() as http:
        stage = Stage(tmp_path, http)
        await stage.fleet.scale_to(2)
        assert stage.targets == ["shop-1", "shop-2"]
        leaving = stage.replica(2)

        async def dies_and_is_back() -> None:
            await leaving.die()
            await leaving.start()

        stage.balancer.meanwhile = stage.scraper.meanwhile = dies_and_is_back
        await stage.fleet.scale_to(1)

        assert leaving.phase is Phase.STOPPED
        assert stage.targets == ["shop-1"]
        _, *later = stage.balancer.told["shop-2"]
        assert later[0] == "drain"
        assert set(later[1:]) == {"maint"}


async def test_replicas_stay_where_they_cannot_be_drained(tmp_path: Path) -> None:
    """When HAProxy refuses a drain, those it had begun to drain get requests again, unless they are down."""
    async with httpx.AsyncClient() as http:
        stage = Stage(tmp_path, http)
        await stage.fleet.scale_to(3)
        await stage.replica(3).die()
        stage.balancer.refused = "shop-3 drain"

        with pytest.raises(StackError, match="refused"):
            await stage.fleet.scale_to(1)

        assert stage.balancer.told["shop-2"] == ["ready", "drain", "ready"]
        assert stage.balancer.told["shop-3"] == ["ready", "maint"]
        assert stage.targets == ["shop-1", "shop-2", "shop-3"]
