"""Replicas that come and go, told by what HAProxy and Prometheus would see of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from stack.child import Child, Hook, Phase
from stack.components.install import Installation
from stack.errors import ProcessFailedError, StackError
from stack.fleet import Fleet
from stack.haproxy import HAProxy
from stack.orders import Order, Replicas
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

    meanwhile: Meanwhile = staticmethod(nothing)
    broken = False

    async def start(self) -> None:
        await self.meanwhile()
        if self.broken:
            raise ProcessFailedError("shop-3 exited with status 1 before it was ready.\n  The end of its log: …")
        self.phase = Phase.READY
        await self._on_ready(self)

    async def stop(self) -> None:
        self.phase = Phase.STOPPING
        await self.meanwhile()
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
        self.while_put: Meanwhile = nothing

    async def _ask(self, command: str) -> str:
        if " addr " in command:
            await self.while_put()
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
        self.made: list[Replica] = []
        self.prepare: Callable[[Replica], None] = lambda _: None
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
        replica = Replica(spec, self._path / "log", self._http, on_ready=on_ready, on_death=on_death)
        self.prepare(replica)
        self.made.append(replica)
        return replica


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A fleet without replicas."""
    async with httpx.AsyncClient() as http:
        yield Stage(tmp_path, http)


class Later:
    """Orders another number once, at the given call."""

    def __init__(self, fleet: Fleet, count: int, *, at_call: int = 1) -> None:
        self._fleet = fleet
        self._count = count
        self._left = at_call
        self.order: Order | None = None
        self.seen: Replicas | None = None

    async def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.order = self._fleet.order(self._count)
            self.seen = self._fleet.replicas

    async def settled(self) -> bool:
        assert self.order is not None
        return await self.order.settled()


async def test_a_leaving_replica_that_is_started_again_is_not_taken_back(stage: Stage) -> None:
    """Whenever a draining replica dies and is back, it gets no requests and is no target any more."""
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


async def test_replicas_stay_where_they_cannot_be_drained(stage: Stage) -> None:
    """When HAProxy refuses a drain, those it had begun to drain get requests again, unless they are down."""
    await stage.fleet.scale_to(3)
    await stage.replica(3).die()
    stage.balancer.refused = "shop-3 drain"

    with pytest.raises(StackError, match="refused"):
        await stage.fleet.scale_to(1)

    assert stage.balancer.told["shop-2"] == ["ready", "drain", "ready"]
    assert stage.balancer.told["shop-3"] == ["ready", "maint"]
    assert stage.targets == ["shop-1", "shop-2", "shop-3"]
    assert stage.fleet.replicas == Replicas(
        running=3, target=3, error="HAProxy refused `set server shop/shop-3 state drain`: No."
    )


@pytest.mark.parametrize("what", [KeyError("3"), OSError(28, "No space left on device"), RuntimeError("…")], ids=repr)
async def test_replicas_are_given_back_whatever_fails(stage: Stage, what: Exception) -> None:
    """Nobody is left where no requests come, and whoever ordered hears of it."""
    await stage.fleet.scale_to(3)

    async def fail() -> None:
        raise what

    stage.balancer.meanwhile = fail

    with pytest.raises(StackError, match="The order failed: "):
        await stage.fleet.scale_to(2)

    assert stage.balancer.told["shop-3"][-2:] == ["drain", "ready"]
    assert stage.targets == ["shop-1", "shop-2", "shop-3"]
    assert (stage.fleet.replicas.running, stage.fleet.replicas.target) == (3, 3)
    assert "The order failed: " in stage.fleet.replicas.error
    stage.balancer.meanwhile = nothing
    assert await stage.fleet.scale_to(2)


async def test_a_slot_that_haproxy_does_not_speak_of_is_not_taken_for_empty(stage: Stage) -> None:
    """One that is just exiting answers with nothing at all."""
    await stage.fleet.scale_to(2)
    told, asked = stage.balancer.told, 0

    async def forget() -> None:
        nonlocal asked
        asked += 1
        stage.balancer.told = {} if asked < 3 else told
        assert stage.replica(2).phase is Phase.READY

    stage.balancer.meanwhile = forget

    assert await stage.fleet.scale_to(1)
    assert asked == 3


async def test_a_replica_that_is_told_to_leave_while_it_is_put_in_leaves(stage: Stage) -> None:
    """HAProxy takes two commands for that: the second one must not open a slot that was to be emptied."""
    await stage.fleet.scale_to(2)
    leaving: list[Order] = []

    async def leave() -> None:
        stage.balancer.while_put = nothing
        leaving.append(stage.fleet.order(1))
        await asyncio.sleep(0.05)  # were nobody to wait, it would be told to drain now

    stage.balancer.while_put = leave
    stage.balancer.meanwhile = lambda: asyncio.sleep(0.01)
    await stage.replica(2).die()

    await stage.replica(2).start()

    assert await leaving[0].settled()
    assert stage.balancer.told["shop-2"][-3:] == ["ready", "drain", "maint"]


async def test_a_haproxy_that_goes_away_does_not_undo_an_orderly_end(stage: Stage) -> None:
    """The slot of a replica that has stopped is closed when HAProxy is back, too."""
    await stage.fleet.scale_to(2)
    stage.balancer.refused = "shop-2 maint"

    assert await stage.fleet.scale_to(1)

    assert stage.fleet.replicas == Replicas(running=1, target=1)


async def test_an_order_is_accepted_at_once(stage: Stage) -> None:
    """What is ordered and what there is are told while replicas start, and the first one starts alone."""
    stage.prepare = lambda replica: setattr(replica, "meanwhile", started)
    seen = []

    async def started() -> None:
        seen.append(stage.fleet.replicas)

    order = stage.fleet.order(3)
    assert stage.fleet.replicas == Replicas(running=0, target=3)
    assert await order.settled()

    assert seen[0] == Replicas(running=1, target=3)
    assert stage.fleet.replicas == Replicas(running=3, target=3)


async def test_the_same_order_again_is_the_same(stage: Stage) -> None:
    """Whoever repeats an order does not begin the waits anew."""
    await stage.fleet.scale_to(2)
    first = stage.fleet.order(1)
    again = Later(stage.fleet, 1)
    stage.balancer.meanwhile = again

    assert await first.settled()
    assert again.order is first
    assert stage.balancer.told["shop-2"] == ["ready", "drain", "maint"]


@pytest.mark.parametrize("moment", ["drained", "scraped", "forgotten"])
async def test_an_order_for_more_keeps_replicas_that_were_to_leave(stage: Stage, moment: str) -> None:
    """At any moment before they stop: requests and scrapes come back, nothing stops, and the old order says so."""
    await stage.fleet.scale_to(3)
    later = Later(stage.fleet, 3, at_call=2 if moment == "forgotten" else 1)
    if moment == "drained":
        stage.balancer.meanwhile = later
    else:
        stage.scraper.meanwhile = later

    assert not await stage.fleet.scale_to(1)
    assert await later.settled()

    assert [child.phase for child in stage.fleet.children] == [Phase.READY] * 3
    for slot in ("shop-2", "shop-3"):
        assert stage.balancer.told[slot] == ["ready", "drain", "ready"]
    assert stage.targets == ["shop-1", "shop-2", "shop-3"]
    assert len(stage.made) == 3


async def test_a_kept_replica_that_is_down_is_scraped_again(stage: Stage) -> None:
    """That it does not answer must be seen, and it gets requests when it is back."""
    await stage.fleet.scale_to(2)
    replica = stage.replica(2)
    later = Later(stage.fleet, 2, at_call=2)

    async def dies_and_is_to_stay() -> None:
        await replica.die()
        await later()

    stage.scraper.meanwhile = dies_and_is_to_stay
    await stage.fleet.scale_to(1)
    assert await later.settled()
    assert stage.targets == ["shop-1", "shop-2"]
    assert stage.balancer.told["shop-2"][-1] == "maint"

    await replica.start()
    assert stage.balancer.told["shop-2"][-1] == "ready"


async def test_those_who_are_still_to_leave_go_on_leaving(stage: Stage) -> None:
    """An order in between keeps some and lets the others go, without one request to them."""
    await stage.fleet.scale_to(3)
    later = Later(stage.fleet, 2)
    stage.balancer.meanwhile = later

    assert not await stage.fleet.scale_to(1)
    assert await later.settled()

    assert stage.balancer.told["shop-2"] == ["ready", "drain", "ready"]
    assert stage.balancer.told["shop-3"] == ["ready", "drain", "drain", "maint"]
    assert stage.targets == ["shop-1", "shop-2"]


async def test_what_has_begun_to_stop_is_not_called_back(stage: Stage) -> None:
    """The process ends, and another takes its place."""
    await stage.fleet.scale_to(2)
    leaving = stage.replica(2)
    leaving.meanwhile = later = Later(stage.fleet, 2)

    await stage.fleet.scale_to(1)
    assert await later.settled()

    assert later.seen == Replicas(running=2, target=2)
    assert leaving.phase is Phase.STOPPED
    assert stage.replica(2) is not leaving
    assert stage.targets == ["shop-1", "shop-2"]


async def test_an_order_for_fewer_waits_for_what_starts(stage: Stage) -> None:
    """The one that is starting comes up and leaves in order; those that were to follow are never started."""
    await stage.fleet.scale_to(1)
    later = Later(stage.fleet, 1)
    stage.prepare = lambda replica: setattr(replica, "meanwhile", later)

    assert not await stage.fleet.scale_to(3)
    assert await later.settled()

    assert [replica.spec.name for replica in stage.made] == ["shop-1", "shop-2"]
    assert stage.balancer.told["shop-2"] == ["ready", "drain", "maint"]


async def test_a_failed_start_ends_its_order(stage: Stage) -> None:
    """The target is what runs, the sentence stays until an order succeeds, and those that run go on."""
    await stage.fleet.scale_to(2)
    stage.prepare = lambda replica: setattr(replica, "broken", True)
    with pytest.raises(StackError, match="The end of its log"):
        await stage.fleet.scale_to(3)

    assert stage.fleet.replicas == Replicas(
        running=2, target=2, error="shop-3 exited with status 1 before it was ready."
    )
    assert stage.targets == ["shop-1", "shop-2"]

    stage.prepare = lambda _: None
    assert await stage.fleet.scale_to(3)
    assert stage.fleet.replicas == Replicas(running=3, target=3)


async def test_a_newer_order_survives_the_failure_of_an_older(stage: Stage) -> None:
    """What failed was no longer wanted."""
    await stage.fleet.scale_to(2)
    later = Later(stage.fleet, 1)

    def fails_later(replica: Replica) -> None:
        replica.meanwhile, replica.broken = later, True

    stage.prepare = fails_later
    assert not await stage.fleet.scale_to(3)

    assert await later.settled()
    assert stage.fleet.replicas == Replicas(running=1, target=1)


async def test_no_order_outlives_the_fleet(stage: Stage) -> None:
    """One in progress is given up with a sentence, all processes are stopped, and no other order is taken."""
    await stage.fleet.scale_to(2)
    stopping = asyncio.Event()

    async def never() -> None:
        stopping.set()
        await asyncio.Event().wait()

    stage.balancer.meanwhile = never
    order = stage.fleet.order(1)
    await stopping.wait()
    await stage.fleet.stop()

    with pytest.raises(StackError, match="the stack is stopping"):
        await order.settled()
    with pytest.raises(StackError, match="takes no orders"):
        stage.fleet.order(3)
    assert [replica.phase for replica in stage.made] == [Phase.STOPPED] * 2
