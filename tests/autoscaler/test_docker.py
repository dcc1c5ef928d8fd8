"""Docker as the actuator: what is asked of an engine on a real socket, and what is said when it does not do it."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import httpx
import pytest

from autoscaler.actuators import ActuatorError, Replicas
from autoscaler.actuators.docker_compose import ComposeActuator
from autoscaler.actuators.docker_engine import Engine
from autoscaler.actuators.docker_swarm import SwarmActuator
from autoscaler.app import create_app
from autoscaler.config import Config
from prometheus.read_policy import parse
from tests.autoscaler.docker import IMAGE, DockerEngine, RefusalError, docker_engine
from tests.autoscaler.surroundings import prometheus
from tests.autoscaler.test_app import OPERATOR, WEBHOOK, eventually
from tests.demo_service.shops import quiet
from tests.prometheus.test_policy import GOOD


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DockerEngine]:
    with docker_engine(tmp_path / "docker.sock") as listening:
        yield listening


@pytest.fixture
async def compose(engine: DockerEngine) -> AsyncIterator[ComposeActuator]:
    actuator = ComposeActuator(Engine(engine.socket), "shelf")
    yield actuator
    engine.may_stop.set()
    await actuator.close()


@pytest.fixture
async def swarm(engine: DockerEngine) -> AsyncIterator[SwarmActuator]:
    actuator = SwarmActuator(Engine(engine.socket))
    yield actuator
    await actuator.close()


async def settled(actuator: ComposeActuator) -> Replicas:
    """What there is when nothing is in progress any more."""

    async def found() -> Replicas | None:
        replicas = await actuator.replicas("shop")
        return replicas if replicas.running == replicas.target else None

    replicas: Replicas = await eventually(found, "settled")
    return replicas


async def until_there_are(engine: DockerEngine, *numbers: int) -> None:
    """These run, and no others are left."""

    async def found() -> bool:
        return engine.numbers("running") == engine.numbers() == list(numbers)

    await eventually(found, f"{numbers}")


# --- a project of Compose --------------------------------------------------------------------------------------------


async def test_one_more_is_like_the_newest_but_for_what_only_one_can_have(
    engine: DockerEngine, compose: ComposeActuator
) -> None:
    """The image by its id, name, number and aliases its own; neither an address nor a host name of another."""
    engine.has(1, Env=["A=old"])
    engine.has(2)

    await compose.scale_to("shop", 3)
    assert await settled(compose) == Replicas(running=3, target=3)

    made = engine.named("shelf-shop-3")
    newest = engine.named("shelf-shop-2")
    assert made["State"] == "running"
    assert made["HostConfig"] == newest["HostConfig"]
    labels = {**newest["Config"]["Labels"], "com.docker.compose.container-number": "3"}
    del labels["com.docker.compose.replace"]
    assert made["Config"] == newest["Config"] | {"Hostname": made["Id"][:12], "Image": IMAGE, "Labels": labels}
    assert made["NetworkSettings"]["Networks"]["shelf_default"]["Aliases"] == ["shelf-shop-3", "shop", made["Id"][:12]]


async def test_what_was_chosen_for_all_of_them_is_kept(engine: DockerEngine, compose: ComposeActuator) -> None:
    """A host name that is not the id, options of a network; no name in a network that knows none."""
    one = engine.has(1, Hostname="shop.example")
    one["NetworkSettings"]["Networks"]["shelf_default"]["DriverOpts"] = {"mtu": "1400"}
    one["NetworkSettings"]["Networks"]["bridge"] = {"Aliases": None}

    await compose.scale_to("shop", 2)
    await settled(compose)

    made = engine.named("shelf-shop-2")
    assert made["Config"]["Hostname"] == "shop.example"
    assert made["NetworkSettings"]["Networks"].keys() == {"shelf_default"}
    assert made["NetworkSettings"]["Networks"]["shelf_default"]["DriverOpts"] == {"mtu": "1400"}


async def test_the_last_ones_leave_first_each_with_its_grace(engine: DockerEngine, compose: ComposeActuator) -> None:
    """Stopped, then removed; while it drains it is there, and the order is in progress."""
    engine.has(1)
    engine.has(2, StopTimeout=None)
    engine.has(10)
    engine.may_stop.clear()

    await compose.scale_to("shop", 1)
    assert await compose.replicas("shop") == Replicas(running=3, target=1)
    engine.may_stop.set()
    await until_there_are(engine, 1)

    second, tenth = f"{2:064x}", f"{3:064x}"
    assert sorted(engine.ordered) == sorted(
        [
            f"POST /containers/{tenth}/stop?t=7",
            f"DELETE /containers/{tenth}?v=1&force=0",
            f"POST /containers/{second}/stop?t=20",
            f"DELETE /containers/{second}?v=1&force=0",
        ]
    )


async def test_the_newest_order_wins_while_an_older_one_drains(engine: DockerEngine, compose: ComposeActuator) -> None:
    """A spike does not wait for the end of a grace period."""
    engine.has(1)
    engine.has(2)
    engine.may_stop.clear()

    await compose.scale_to("shop", 1)
    await eventually(lambda: asyncio.sleep(0, any("stop" in order for order in engine.ordered)), "the stop")
    await compose.scale_to("shop", 3)
    await until_there_are(engine, 1, 2, 3, 4)
    assert await compose.replicas("shop") == Replicas(running=4, target=3)
    engine.may_stop.set()

    await until_there_are(engine, 1, 3, 4)


async def test_what_has_ended_is_no_replica_and_is_started_before_another_is_made(
    engine: DockerEngine, compose: ComposeActuator
) -> None:
    """As Compose does; a command somebody runs once in a service's container is none of its replicas."""
    engine.has(1)
    engine.has(2, state="exited")
    engine.has(3, state="restarting")
    once = engine.has(4)
    once["Config"]["Labels"]["com.docker.compose.oneoff"] = "True"

    assert await compose.replicas("shop") == Replicas(running=2, target=2)
    await compose.scale_to("shop", 3)
    assert await settled(compose) == Replicas(running=3, target=3)

    assert engine.ordered == [f"POST /containers/{2:064x}/start"]


async def test_one_that_nobody_started_is_started(engine: DockerEngine, compose: ComposeActuator) -> None:
    """Whoever made it was killed before it could; until then it is no replica."""
    engine.has(1)
    engine.has(2, state="created")
    assert await compose.replicas("shop") == Replicas(running=1, target=1)

    await compose.scale_to("shop", 2)
    await until_there_are(engine, 1, 2)


async def test_one_that_ends_at_once_is_not_made_again_and_again(
    engine: DockerEngine, compose: ComposeActuator
) -> None:
    """The order ends with a sentence, the next one tries the same container."""
    engine.has(1)
    engine.lives = False

    for _ in range(2):
        await compose.scale_to("shop", 3)
        assert await settled(compose) == Replicas(
            running=1, target=1, error="shelf-shop-2 ended right after its start; its log says why."
        )

    assert engine.numbers() == [1, 2]


async def test_one_that_cannot_start_is_removed_again(engine: DockerEngine, compose: ComposeActuator) -> None:
    """Or it would count as a replica for ever; what was ordered falls back to what runs."""
    engine.has(1)
    engine.refusals = {r"POST /containers/.*/start": RefusalError(500, "driver failed: address already in use")}

    await compose.scale_to("shop", 2)
    assert await settled(compose) == Replicas(
        running=1,
        target=1,
        error="Docker failed to start shelf-shop-2 (500): driver failed: address already in use.",
    )

    assert engine.numbers() == [1]


async def test_why_it_did_not_start_is_said_where_it_cannot_be_removed_either(
    engine: DockerEngine, compose: ComposeActuator
) -> None:
    """The cause, not what came after it."""
    engine.has(1)
    engine.refusals = {r"POST .*/start": RefusalError(500, "no space left"), r"DELETE .*": RefusalError(500, "busy")}

    await compose.scale_to("shop", 2)

    assert (await settled(compose)).error == "Docker failed to start shelf-shop-2 (500): no space left."


async def test_a_name_that_is_taken_costs_a_number(engine: DockerEngine, compose: ComposeActuator) -> None:
    """Somebody has made one by hand."""
    engine.has(1)
    engine.has(2)["Config"]["Labels"] = {}

    await compose.scale_to("shop", 2)
    assert await settled(compose) == Replicas(running=2, target=2)

    assert engine.numbers("running") == [1, 3]


async def test_a_name_that_is_taken_twice_is_said(engine: DockerEngine, compose: ComposeActuator) -> None:
    """Once more, not for ever."""
    engine.has(1)
    engine.has(2)["Config"]["Labels"] = {}
    engine.has(3)["Config"]["Labels"] = {}

    await compose.scale_to("shop", 2)
    replicas = await settled(compose)

    assert replicas.error.startswith("Docker refused to create shelf-shop-3 (409): Conflict.")
    assert sum("create" in order for order in engine.ordered) == 2


async def test_one_that_does_not_stop_is_said_and_stays(engine: DockerEngine, compose: ComposeActuator) -> None:
    """Another order may try again."""
    engine.has(1)
    engine.has(2)
    engine.refusals = {r"POST .*/stop": RefusalError(500, "cannot kill")}

    await compose.scale_to("shop", 1)
    assert await settled(compose) == Replicas(
        running=2, target=2, error="Docker failed to stop shelf-shop-2 (500): cannot kill."
    )
    engine.refusals = {}
    await compose.scale_to("shop", 1)

    assert await settled(compose) == Replicas(running=1, target=1)


async def test_one_that_is_gone_already_is_gone(engine: DockerEngine, compose: ComposeActuator) -> None:
    """Somebody removed it after it had stopped."""
    engine.has(1)
    engine.has(2)
    engine.refusals = {r"DELETE .*": RefusalError(404, "No such container")}

    await compose.scale_to("shop", 1)

    assert await settled(compose) == Replicas(running=1, target=1)


async def test_a_description_without_what_is_copied_is_an_error(engine: DockerEngine, compose: ComposeActuator) -> None:
    """Nothing half is made of it."""
    del engine.has(1)["HostConfig"]

    await compose.scale_to("shop", 2)

    assert (await settled(compose)).error == "Docker's description of shelf-shop-1 is none."


async def test_an_answer_that_nobody_expected_is_an_error(engine: DockerEngine, compose: ComposeActuator) -> None:
    """A container was made, it says, but not which."""
    engine.has(1)
    engine.refusals = {r"POST /containers/create": RefusalError(201, "Made.")}

    await compose.scale_to("shop", 2)

    assert (await settled(compose)).error == "Docker's answer about shop is not understood: KeyError('Id')"


async def test_without_a_container_there_is_nothing_to_make_others_like(
    engine: DockerEngine, compose: ComposeActuator
) -> None:
    """Neither a project that does not run nor the last container of one that does."""
    with pytest.raises(ActuatorError, match="The project 'shelf' has no container of 'shop' to make others like; let"):
        await compose.replicas("shop")
    engine.has(1)
    with pytest.raises(ActuatorError, match="At least one container of shop stays"):
        await compose.scale_to("shop", 0)

    assert engine.ordered == []


async def test_closing_leaves_none_that_was_made_and_not_started(engine: DockerEngine) -> None:
    """An autoscaler that is stopped in the middle tidies up."""
    engine.has(1)
    actuator = ComposeActuator(Engine(engine.socket), "shelf")
    engine.refusals = {}
    started = asyncio.Event()
    real = engine.answer
    loop = asyncio.get_running_loop()

    def slow(method: str, url: str, body: dict[str, object] | None) -> tuple[int, object]:
        if url.endswith("/start"):
            loop.call_soon_threadsafe(started.set)
            engine.may_stop.wait(20)
            return 204, None
        return real(method, url, body)

    engine.may_stop.clear()
    engine.answer = slow  # type: ignore[method-assign] # one answer comes late
    await actuator.scale_to("shop", 2)
    await asyncio.wait_for(started.wait(), 20)
    assert engine.numbers() == [1, 2]

    await actuator.close()

    assert engine.numbers() == [1]


# --- a swarm ---------------------------------------------------------------------------------------------------------


async def test_a_service_of_a_swarm_gets_its_number_and_keeps_the_rest(
    engine: DockerEngine, swarm: SwarmActuator
) -> None:
    """What is left out of a specification is taken away."""
    engine.serves("shop", {"Replicated": {"Replicas": 2}})
    before = engine.services["shop"]["Spec"]

    assert await swarm.replicas("shop") == Replicas(running=2, target=2)
    await swarm.scale_to("shop", 5)
    assert await swarm.replicas("shop") == Replicas(running=5, target=5)

    assert engine.services["shop"]["Spec"] == before | {"Mode": {"Replicated": {"Replicas": 5}}}
    await swarm.scale_to("shop", 5)
    assert len(engine.ordered) == 1


async def test_what_no_node_takes_does_not_run(engine: DockerEngine, swarm: SwarmActuator) -> None:
    """And the swarm's reason is told."""
    engine.serves("shop", {"Replicated": {"Replicas": 2}})
    engine.tasks[0]["Status"] = {"State": "pending", "Err": "no suitable node (insufficient resources on 1 node)"}

    assert await swarm.replicas("shop") == Replicas(
        running=1,
        target=2,
        error="Swarm cannot place 1 of shop: no suitable node (insufficient resources on 1 node).",
    )


async def test_a_change_in_between_is_kept(engine: DockerEngine, swarm: SwarmActuator) -> None:
    """The specification is read again, once."""
    service = engine.serves("shop", {"Replicated": {"Replicas": 2}})
    real = engine.answer

    def changed(method: str, url: str, body: dict[str, object] | None) -> tuple[int, object]:
        if method == "POST" and not engine.ordered:
            service["Version"]["Index"] += 1
            service["Spec"]["TaskTemplate"] = {"ContainerSpec": {"Image": "shop:2"}}
        return real(method, url, body)

    engine.answer = changed  # type: ignore[method-assign] # somebody deploys in between

    await swarm.scale_to("shop", 3)

    assert service["Spec"]["TaskTemplate"] == {"ContainerSpec": {"Image": "shop:2"}}
    assert service["Spec"]["Mode"] == {"Replicated": {"Replicas": 3}}


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (
            RefusalError(500, "rpc error: code = Unknown desc = update out of sequence"),
            "Docker failed to scale shop to 3 (500): rpc error: code = Unknown desc = update out of sequence.",
        ),
        (RefusalError(400, "invalid spec"), "Docker refused to scale shop to 3 (400): invalid spec."),
    ],
)
async def test_an_order_that_a_swarm_refuses_is_not_taken(
    engine: DockerEngine, swarm: SwarmActuator, refusal: RefusalError, sentence: str
) -> None:
    """Tried twice at most."""
    engine.serves("shop", {"Replicated": {"Replicas": 2}})
    engine.refusals = {r"POST .*": refusal}

    with pytest.raises(ActuatorError) as refused:
        await swarm.scale_to("shop", 3)

    assert str(refused.value) == sentence
    assert len(engine.ordered) == (2 if refusal.status == 500 else 1)


async def test_a_service_that_cannot_be_scaled_is_named(engine: DockerEngine, swarm: SwarmActuator) -> None:
    """One on every node, one that is not there, and an engine without a swarm."""
    engine.serves("agent", {"Global": {}})

    with pytest.raises(ActuatorError, match="agent is no replicated service; a global one has one task a node"):
        await swarm.replicas("agent")
    with pytest.raises(ActuatorError, match="The swarm has no service 'shop'"):
        await swarm.scale_to("shop", 3)
    engine.refusals = {".*": RefusalError(503, "This node is not a swarm manager.")}
    with pytest.raises(ActuatorError, match=r"describe the service shop \(503\): This node is not a swarm manager\.$"):
        await swarm.replicas("shop")


# --- the engine ------------------------------------------------------------------------------------------------------


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root may open everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_an_engine_that_cannot_be_reached_is_said_with_the_way_out(engine: DockerEngine, tmp_path: Path) -> None:
    """No socket, one of somebody else's, one where nobody listens."""
    nowhere = tmp_path / "nowhere.sock"
    for socket, sentence in (
        (nowhere, f"There is no socket of Docker at {nowhere}; AUTOSCALER_DOCKER_SOCKET names another."),
        (tmp_path, f"Docker cannot be reached at {tmp_path}: [Errno 111] Connection refused."),
    ):
        client = Engine(socket)
        with pytest.raises(ActuatorError) as refusal:
            await client.ask("list", "GET", "/version")
        await client.close()
        assert str(refusal.value) == sentence

    engine.socket.chmod(0)
    client = Engine(engine.socket)
    with somebody_else(), pytest.raises(ActuatorError, match="may not be opened; give the autoscaler the group"):
        await client.ask("list", "GET", "/version")
    await client.close()


async def test_an_engine_that_hangs_is_an_error(engine: DockerEngine) -> None:
    """Within a bounded time."""
    engine.may_answer.clear()
    client = Engine(engine.socket, answer_seconds=0.05)

    with pytest.raises(ActuatorError, match=r"Docker took more than 0\.05 s to list\."):
        await client.ask("list", "GET", "/version")

    engine.may_answer.set()
    await client.close()


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", "Docker broke off when asked to list: RemoteProtocolError."),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops", "Docker's answer is no JSON when asked to list."),
        (b"HTTP/1.1 502 X\r\nContent-Length: 4\r\n\r\noops", "Docker failed to list (502): oops."),
        (b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n", "Docker refused to list (403): it gave no reason."),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 8388609\r\n\r\n" + b" " * 8388609,
            "Docker answered more than 8388608 bytes when asked to list.",
        ),
    ],
)
async def test_an_engine_that_babbles_is_an_error(engine: DockerEngine, raw: bytes, sentence: str) -> None:
    """Whatever it is, in one sentence."""
    engine.raw = raw
    client = Engine(engine.socket)

    with pytest.raises(ActuatorError) as refusal:
        await client.ask("list", "GET", "/version")

    assert str(refusal.value) == sentence
    await client.close()


@pytest.mark.parametrize("listed", [b"{}", b'[{"Id": 1}]', b"null"])
async def test_a_list_that_is_none_is_an_error(
    engine: DockerEngine, compose: ComposeActuator, swarm: SwarmActuator, listed: bytes
) -> None:
    """JSON, of another shape."""
    engine.raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(listed), listed)

    with pytest.raises(ActuatorError):
        await compose.replicas("shop")
    with pytest.raises(ActuatorError):
        await swarm.replicas("shop")


# --- as the autoscaler's ---------------------------------------------------------------------------------------------


async def test_the_autoscaler_scales_what_docker_runs(engine: DockerEngine) -> None:
    """To the recorded number."""
    engine.has(1)
    engine.has(2)
    engine.has(1, service="worker")
    with prometheus() as world:
        world.says(4, 4)
        config = Config(
            policy=parse(GOOD),
            webhook_token=WEBHOOK,
            operator_token=OPERATOR,
            prometheus_url=world.url,
            actuator="docker",
            docker_socket=engine.socket,
            compose_project="shelf",
            tick_seconds=0.1,
            time_scale=Fraction(1, 8),
        )
        app = create_app(config, settings=quiet("autoscaler"))
        try:
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://autoscaler") as http,
            ):

                async def counted() -> bool:
                    shop, _ = (await http.get("/v1/services")).json()
                    return bool(shop["running"] == shop["target"] == 4)

                await eventually(counted, "four")
        finally:
            app.state.obs.shutdown()


def test_without_a_project_it_is_a_swarms(engine: DockerEngine) -> None:
    """Named in the environment or not."""
    config = Config(policy=parse(GOOD), webhook_token=WEBHOOK, operator_token=OPERATOR, actuator="docker")
    app = create_app(config, settings=quiet("autoscaler"))

    assert isinstance(app.state.actuator, SwarmActuator)
    app.state.obs.shutdown()
