"""The autoscaler as a whole: real HTTP from Alertmanager's side and to Prometheus, the supervisor's real socket."""

import asyncio
import json
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from autoscaler.actuators import ActuatorError
from autoscaler.actuators.processes import ProcessActuator
from autoscaler.app import create_app
from autoscaler.config import Config
from autoscaler.prometheus_api import OVERRIDE_REPLICAS, OVERRIDE_SET, OVERRIDE_UNTIL
from prometheus import recorded
from prometheus.read_policy import parse
from tests.autoscaler.surroundings import Prometheus, Supervisor, prometheus
from tests.demo_service.shops import quiet
from tests.prometheus.test_policy import GOOD

WEBHOOK, OPERATOR = "webhook-token-0123456789", "operator-token-0123456789"
ALERTS = {"Authorization": f"Bearer {WEBHOOK}"}
ORDERS = {"Authorization": f"Bearer {OPERATOR}"}


def notification(*services: str, status: str = "firing", **changes: object) -> dict[str, Any]:
    """What Alertmanager 0.28 sends, recorded from one; tests/integration has the real one."""
    return {
        "receiver": "scale",
        "status": status,
        "alerts": [
            {
                "status": status,
                "labels": {"alertname": "ServiceScaleOutNeeded", "service": service, "severity": "scale"},
                "annotations": {"summary": f"{service} needs more replicas"},
                "startsAt": "2026-11-22T15:17:01.360105331Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://127.0.0.1:9090/graph",
                "fingerprint": "5ef77f1f8a3ecf8d",
            }
            for service in services
        ],
        "groupLabels": {"alertname": "ServiceScaleOutNeeded"},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://127.0.0.1:9093",
        "version": "4",
        "groupKey": '{}/{severity="scale"}:{alertname="ServiceScaleOutNeeded"}',
        "truncatedAlerts": 0,
        **changes,
    }


class Running:
    """An autoscaler that runs, and everything around it."""

    def __init__(self, http: httpx.AsyncClient, spans: InMemorySpanExporter) -> None:
        self.http = http
        self.spans = spans

    async def alert(self, *services: str, **changes: Any) -> httpx.Response:
        return await self.http.post("/alerts", json=notification(*services, **changes), headers=ALERTS)

    async def newest(self, service: str = "shop") -> dict[str, Any]:
        found = (await self.http.get("/v1/decisions", params={"service": service, "limit": 1})).json()
        newest: dict[str, Any] = found[0] if found else {"cause": ""}
        return newest

    async def has_looked(self) -> bool:
        return all([(await self.newest(service))["cause"] for service in ("shop", "worker")])

    async def until(self, cause: str, service: str = "shop") -> dict[str, Any]:
        """The newest decision about a service, once it is of this kind."""

        async def found() -> dict[str, Any] | None:
            newest = await self.newest(service)
            return newest if newest["cause"] == cause else None

        decision: dict[str, Any] = await eventually(found, cause)
        return decision

    async def metric(self, line: str) -> float:
        """The value in a line of /metrics that begins like this."""
        text = (await self.http.get("/metrics")).text
        values = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(line)]
        assert len(values) == 1, (line, values)
        return float(values[0])

    async def until_metric(self, line: str, value: float) -> None:
        async def found() -> bool:
            return await self.metric(line) == value

        await eventually(found, line)


async def eventually(probe: Callable[[], Awaitable[Any]], what: str) -> Any:
    end = time.monotonic() + 20
    while not (found := await probe()):
        assert time.monotonic() < end, what
        await asyncio.sleep(0.01)
    return found


async def ordered(supervisor: Supervisor, *orders: tuple[str, int]) -> None:
    """The supervisor has been given these orders, and no others: a decision is listed before it is carried out."""

    async def found() -> bool:
        return len(supervisor.orders) >= len(orders)

    await eventually(found, f"{orders}")
    assert supervisor.orders == list(orders)


@pytest.fixture
def world() -> Iterator[Prometheus]:
    with prometheus() as told:
        told.says(2, 2)
        yield told


@asynccontextmanager
async def autoscaler(
    world: Prometheus, supervisor: Supervisor, tick_seconds: float = 0, *, waits: bool = True
) -> AsyncIterator[Running]:
    """
    An autoscaler on a clock eight times as fast; without ticks it is woken by alerts only.

    Its newest number is stale after almost two seconds, so a machine that stands still for one does not change what is decided.
    """
    config = Config(
        policy=parse(GOOD),
        webhook_token=WEBHOOK,
        operator_token=OPERATOR,
        prometheus_url=world.url,
        supervisor_socket=supervisor.socket,
        tick_seconds=tick_seconds,
        time_scale=Fraction(1, 8),
    )
    app = create_app(config, settings=quiet("autoscaler"))
    spans = InMemorySpanExporter()
    app.state.obs.tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    transport = httpx.ASGITransport(app=app)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://autoscaler") as http,
        ):
            running = Running(http, spans)
            if waits:
                await eventually(running.has_looked, "the first look at each")
            yield running
    finally:
        app.state.obs.shutdown()


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    async with Supervisor(tmp_path / "s") as listening:
        yield listening


@pytest.fixture
async def running(world: Prometheus, supervisor: Supervisor) -> AsyncIterator[Running]:
    async with autoscaler(world, supervisor) as it:
        yield it


# --- the loop --------------------------------------------------------------------------------------------------------


async def test_an_alert_wakes_and_the_recorded_number_decides(
    running: Running, world: Prometheus, supervisor: Supervisor
) -> None:
    """The alert's own value is not even read."""
    await running.until("steady")
    world.says(4, 4)

    answer = await running.alert("shop")

    assert (answer.status_code, answer.json()) == (202, {"woken": ["shop"]})
    decision = await running.until("demand")
    await ordered(supervisor, ("shop", 4))
    assert (decision["direction"], decision["target"], decision["running"], decision["desired"]) == ("out", 4, 2, 4)
    assert decision["reason"] == "4 are needed and there are 2: in_flight asks for 3.75, cpu asks for 0.5."
    assert decision["inputs"]["demand"] == {"in_flight": 3.75, "cpu": 0.5}
    assert decision["woken_by"] == ["alert 5ef77f1f8a3ecf8d"]
    assert await running.metric('autoscaler_decisions_total{service="shop",direction="out",reason="demand"') == 1
    await running.until_metric('autoscaler_reaction_duration_seconds_count{service="shop",path="alert"', 1)
    assert await running.metric('autoscaler_desired_replicas{service="shop"') == 4


async def test_a_tick_decides_the_same_without_any_alert(world: Prometheus, supervisor: Supervisor) -> None:
    """A webhook can be lost."""
    world.says(4, 4)

    async with autoscaler(world, supervisor, tick_seconds=0.05) as running:
        await ordered(supervisor, ("shop", 4))
        await running.until_metric('autoscaler_reaction_duration_seconds_count{service="shop",path="tick"', 1)

    await ordered(supervisor, ("shop", 4))


async def test_a_decision_is_a_trace_of_its_own_linked_to_the_alert(running: Running, world: Prometheus) -> None:
    """From the list of decisions to the trace, and from the trace to the webhook that woke."""
    world.says(4, 4)
    await running.alert("shop")

    decision = await running.until("demand")

    def spans() -> dict[str, Any]:
        return {f"{span.context.trace_id:032x}": span for span in running.spans.get_finished_spans()}

    async def finished() -> Any:
        return spans().get(decision["trace_id"])

    span = await eventually(finished, "the decision's span")
    assert span.name == "decide shop"
    assert span.parent is None
    (link,) = span.links
    assert spans()[f"{link.context.trace_id:032x}"].name == "POST /alerts"
    assert span.attributes["autoscaler.direction"] == "out"
    assert span.attributes["autoscaler.alert_fingerprints"] == ("5ef77f1f8a3ecf8d",)


async def test_an_alert_that_had_to_wait_is_still_the_reason(running: Running, world: Prometheus) -> None:
    """One sample is no need; the decision that the second one brings is linked to the webhook that came before it."""
    await running.until("steady")
    world.says(2, 4)
    await running.alert("shop")
    await running.until("debounce")

    world.says(4, 4)

    decision = await running.until("demand")
    assert decision["woken_by"] == ["again", "alert 5ef77f1f8a3ecf8d"]
    await running.until_metric('autoscaler_reaction_duration_seconds_count{service="shop",path="again"', 1)


async def test_duplicates_replays_and_disorder_change_nothing(
    running: Running, world: Prometheus, supervisor: Supervisor
) -> None:
    """Two Alertmanagers, a retry, an alert that is over already: one order."""
    world.says(4, 4)

    await asyncio.gather(*(running.alert("shop", status=status) for status in ("firing", "resolved") * 10))
    await running.until("demand")
    world.says(4, 4, scraped=4)
    await asyncio.gather(*(running.alert("shop") for _ in range(10)))
    await running.until("steady")

    await ordered(supervisor, ("shop", 4))


async def test_an_alert_that_is_over_wakes_nobody(running: Running, supervisor: Supervisor) -> None:
    """Least of all for a scale-in."""
    before = await running.metric('autoscaler_wakes_total{service="shop",path="alert"')

    answer = await running.alert("shop", status="resolved")

    assert answer.json() == {"woken": []}
    assert await running.metric('autoscaler_wakes_total{service="shop",path="alert"') == before
    assert supervisor.orders == []


async def test_it_scales_in_by_one_when_a_window_has_shown_that_fewer_are_enough(
    running: Running, world: Prometheus, supervisor: Supervisor
) -> None:
    """And says what it was sure of."""
    supervisor.counts["shop"] = 3
    world.says(*[1] * 70, scraped=3, running=[3] * 70)

    await running.alert("shop")

    decision = await running.until("demand")
    assert (decision["direction"], decision["target"]) == ("in", 2)
    assert "At no moment of the last 37.5 s were more than 1 needed" in decision["reason"]
    await ordered(supervisor, ("shop", 2))


async def test_a_restart_forgets_nothing_that_matters(world: Prometheus, supervisor: Supervisor) -> None:
    """Not the cool-down after a step out that it did not make itself: the number of replicas has risen a moment ago."""
    world.says(4, 4, running=[1, 2])

    async with autoscaler(world, supervisor) as running:
        decision = await running.until("cooldown")

        assert "the last step out was 0 s ago" in decision["reason"]
        # It looks again by itself when the rest is over.
        world.says(4, 4, running=[2] * 20)
        await running.until("demand")


async def test_a_step_out_that_somebody_else_made_is_waited_for_like_its_own(
    running: Running, world: Prometheus, supervisor: Supervisor
) -> None:
    """A person, or a second autoscaler: what Prometheus saw after our own last step counts."""
    world.says(4, 4)
    await running.alert("shop")
    await ordered(supervisor, ("shop", 4))
    ordered_at = time.monotonic()
    # Our own cool-down is over then: 15 s, an eighth of it on this clock.
    await eventually(lambda: asyncio.sleep(0, time.monotonic() - ordered_at > 2), "two seconds")
    supervisor.counts["shop"] = 6

    world.says(8, 8, running=[4] * 20 + [6], scraped=6)
    await running.alert("shop")

    assert "the last step out was 0 s ago" in (await running.until("cooldown"))["reason"]
    assert supervisor.orders == [("shop", 4)]


@pytest.mark.parametrize("alert", ["SLOErrorBudgetBurn", "ScaleIneffective"])
async def test_what_fires_already_is_heeded(
    running: Running, world: Prometheus, supervisor: Supervisor, alert: str
) -> None:
    """No step in while a budget burns, no step out when the last one did not help."""
    burning = alert == "SLOErrorBudgetBurn"
    world.says(*[1 if burning else 4] * 70)
    world.firing = [alert]

    await running.alert("shop")

    await running.until("burning" if burning else "ineffective")
    assert supervisor.orders == []


# --- what comes in that is wrong -------------------------------------------------------------------------------------

BAD_WEBHOOKS = [
    pytest.param({}, json.dumps(notification("shop")).encode(), 401, "unauthenticated", id="no token"),
    pytest.param({"Authorization": "Bearer guess"}, b"{}", 401, "unauthenticated", id="a guess"),
    pytest.param({"Authorization": b"Bearer \xff"}, b"{}", 401, "unauthenticated", id="no text"),
    pytest.param({"Authorization": f"Basic {WEBHOOK}"}, b"{}", 401, "unauthenticated", id="another scheme"),
    pytest.param(ORDERS, b"{}", 401, "unauthenticated", id="the other door's token"),
    pytest.param(ALERTS, b"", 422, "malformed", id="nothing"),
    pytest.param(ALERTS, b"\xff\xfe", 422, "malformed", id="no UTF-8"),
    pytest.param(ALERTS, b"<html>", 422, "malformed", id="HTML"),
    pytest.param(ALERTS, b"[]", 422, "malformed", id="a list"),
    pytest.param(ALERTS, b"{}", 422, "malformed", id="an empty object"),
    pytest.param(ALERTS, b"[" * 100_000, 422, "malformed", id="deep"),
    pytest.param(
        ALERTS, json.dumps(notification("shop", version="3")).encode(), 422, "malformed", id="another version"
    ),
    pytest.param(
        ALERTS, json.dumps(notification("shop", alerts=[{"status": "firing"}])).encode(), 422, "malformed", id="half"
    ),
    pytest.param(
        ALERTS, json.dumps(notification(*["shop"] * 1001)).encode(), 422, "malformed", id="a thousand and one alerts"
    ),
    pytest.param(ALERTS, b" " * (1024 * 1024 + 1), 413, "too_large", id="a megabyte"),
    pytest.param(ALERTS, json.dumps(notification("shpo")).encode(), 202, "unknown_service", id="an unknown service"),
]


@pytest.mark.parametrize(("headers", "body", "status", "reason"), BAD_WEBHOOKS)
async def test_a_bad_webhook_is_refused_counted_and_does_nothing(
    running: Running,
    world: Prometheus,
    supervisor: Supervisor,
    headers: dict[Any, Any],  # Any: text or bytes
    body: bytes,
    status: int,
    reason: str,
) -> None:
    """Whoever sent it is told what is wrong; the shop would need replicas."""
    world.says(4, 4)

    answer = await running.http.post("/alerts", content=body, headers=headers)

    assert answer.status_code == status, answer.text
    assert WEBHOOK not in answer.text
    assert await running.metric(f'autoscaler_rejected_webhooks_total{{reason="{reason}"') == 1
    assert await running.metric('autoscaler_wakes_total{service="shop",path="alert"') == 0
    assert supervisor.orders == []


DOCUMENT = {"status": "success", "data": {"resultType": "matrix", "result": []}}
BAD_PROMETHEUS = [
    pytest.param((503, b"Service Unavailable"), "status", "Prometheus answers 503: 'Service Unavailable'", id="503"),
    pytest.param((200, b"<html>Sign in</html>"), "malformed", "This is no answer of Prometheus: '<html>", id="HTML"),
    pytest.param((200, b'{"status":"error"}'), "malformed", "no answer of Prometheus", id="an error with 200"),
    pytest.param((200, b"[]"), "malformed", "no answer of Prometheus", id="a list"),
    pytest.param((200, b"\xff"), "malformed", "no answer of Prometheus", id="no UTF-8"),
    pytest.param((200, b" " * 10_000_000), "too_large", "more than 4194304 bytes", id="10 MB"),
    pytest.param(
        (200, b'{"status":"success","data":{"result":[{"metric":{},"values":[["soon","2"]]}]}}'),
        "malformed",
        "no answer of Prometheus",
        id="no time",
    ),
    pytest.param(
        (200, b'{"status":"success","data":{"result":[{"metric":null,"values":[[1,"2"]]}]}}'),
        "malformed",
        "no answer of Prometheus",
        id="no labels",
    ),
    pytest.param(
        (200, b'{"status":"success","data":{"result":[{"metric":{},"values":[]}]}}'),
        "malformed",
        "no answer of Prometheus",
        id="no samples",
    ),
    pytest.param(
        (200, b'{"status":"success","data":{"result":[{"metric":{},"values":[[1e300,"2"]]}]}}'),
        "malformed",
        "no answer of Prometheus",
        id="after the end of time",
    ),
    pytest.param((200, b"[" * 1_000_000), "malformed", "no answer of Prometheus", id="deep"),
    pytest.param(
        (
            200,
            json.dumps(
                {
                    "status": "success",
                    "data": {"result": [{"metric": {"__name__": recorded.UP}, "values": [[1, "2"]]}] * 2},
                }
            ).encode(),
        ),
        "malformed",
        "twice",
        id="a series twice",
    ),
]


@pytest.mark.parametrize(("raw", "reason", "sentence"), BAD_PROMETHEUS)
async def test_a_prometheus_that_answers_nonsense_changes_nothing(
    running: Running, world: Prometheus, supervisor: Supervisor, raw: tuple[int, bytes], reason: str, sentence: str
) -> None:
    """It is said, counted, and over as soon as it answers again."""
    world.says(4, 4)
    world.raw = raw

    await running.alert("shop")

    decision = await running.until("signal_unreadable")
    assert sentence in decision["reason"]
    assert await running.metric(f'autoscaler_prometheus_failures_total{{reason="{reason}"') == 1
    assert supervisor.orders == []
    world.raw = None
    await running.alert("shop")
    await running.until("demand")


async def test_no_prometheus_at_all_changes_nothing(world: Prometheus, supervisor: Supervisor) -> None:
    """A connection refused is one more way not to know."""
    world.url = "http://127.0.0.1:9"

    async with autoscaler(world, supervisor) as running:
        decision = await running.until("signal_unreadable")

        assert "Prometheus gives no answer" in decision["reason"]
        assert await running.metric('autoscaler_prometheus_failures_total{reason="unreachable"') >= 1
    assert supervisor.orders == []


async def test_an_answer_that_drips_is_none(
    running: Running, world: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then keeps a connection busy; the service's loop does not wait for all of them."""
    monkeypatch.setattr("autoscaler.prometheus_api._ANSWER_SECONDS", 0.3)
    world.drips_seconds = 0.1

    await running.alert("shop")

    assert "no whole answer within 0.3 s" in (await running.until("signal_unreadable"))["reason"]


async def test_not_a_number_can_be_read_and_shown(running: Running, world: Prometheus) -> None:
    """JSON has no NaN; the list of decisions is still one."""
    world.says(2, math.nan, complete=math.inf)

    await running.alert("shop")

    decision = await running.until("signal_not_finite")
    assert decision["inputs"]["desired"][-1][1] == "nan"
    assert decision["inputs"]["signals_complete"] == "inf"


# --- the actuator ----------------------------------------------------------------------------------------------------


async def test_a_refused_order_is_given_again_after_a_while(
    running: Running, world: Prometheus, supervisor: Supervisor
) -> None:
    """Not at once: what refuses is in trouble already."""
    supervisor.refusal = "There is no memory left."
    world.says(4, 4)

    await running.alert("shop")

    decision = await running.until("actuator_backoff")
    assert re.match(r"The last order failed; the next attempt is in [12] s\. 4 are needed", decision["reason"])
    await ordered(supervisor, ("shop", 4))
    assert await running.metric('autoscaler_actuator_failures_total{service="shop"') == 1
    failed = (await running.http.get("/v1/decisions", params={"service": "shop", "limit": 2})).json()[1]
    assert failed["failure"] == "There is no memory left."
    supervisor.refusal = ""
    await running.until("demand")
    await ordered(supervisor, ("shop", 4), ("shop", 4))


async def test_an_order_that_was_taken_and_came_to_nothing_counts_as_failed(
    running: Running, world: Prometheus, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that did not become ready: the supervisor says so when it is asked how many there are."""
    # Long after the cooldown, which is all that is said while it lasts.
    monkeypatch.setattr("autoscaler.scaler._SHORTEST_RETRY_SECONDS", 60)
    supervisor.diligent = False
    world.says(4, 4)
    await running.alert("shop")
    await ordered(supervisor, ("shop", 4))

    supervisor.targets, supervisor.error = {}, "shop-3 exited with status 1 before it was ready."
    await running.alert("shop")

    assert "The last order failed; the next attempt" in (await running.until("actuator_backoff"))["reason"]
    assert await running.metric('autoscaler_actuator_failures_total{service="shop"') == 1


async def test_what_was_counted_before_an_order_says_nothing_about_it(
    running: Running, world: Prometheus, supervisor: Supervisor
) -> None:
    """An old count, and the error of an old order, that arrive when the new one is accepted already."""
    supervisor.error = "shop-3 exited with status 1 before it was ready."
    arrives = asyncio.Event()
    counts = [asyncio.Event(), asyncio.Event()]  # one for each service; the looks that come then are not held up
    supervisor.held_up = [(counted, arrives) for counted in counts]
    await asyncio.gather(*(counted.wait() for counted in counts))
    world.says(4, 4)
    await running.alert("shop")
    await ordered(supervisor, ("shop", 4))
    await running.until_metric('autoscaler_reaction_duration_seconds_count{service="shop",path="alert"', 1)

    arrives.set()

    await running.until_metric('autoscaler_running_replicas{service="shop"', 4)
    assert await running.metric('autoscaler_actuator_failures_total{service="shop"') == 0


async def test_an_order_that_leads_to_nothing_is_given_again(
    world: Prometheus, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever took it may have forgotten it; but not once somebody else has ordered, or everything is to stay."""
    monkeypatch.setattr("autoscaler.scaler._FORGOTTEN_SECONDS", 0.2)
    supervisor.diligent = False
    world.says(4, 4)
    async with autoscaler(world, supervisor, tick_seconds=0.05) as running:
        await eventually(lambda: asyncio.sleep(0, len(supervisor.orders) > 1), "the order, again")
        assert set(supervisor.orders) == {("shop", 4)}

        await running.http.put("/v1/services/shop/override", json={"seconds": 600}, headers=ORDERS)
        await running.until("paused")
        given = len(supervisor.orders)
        ticks = await running.metric('autoscaler_wakes_total{service="shop",path="tick"')
        await eventually(lambda: more_than(running, ticks + 10), "ten ticks")
        assert len(supervisor.orders) == given

        asked, may_answer = threading.Event(), threading.Event()
        world.held_up = ("scale_desired", asked, may_answer)
        await asyncio.to_thread(asked.wait, 20)  # a look has counted the replicas, and goes on
        supervisor.targets["shop"] = 3
        world.says(3, 3)
        await running.http.delete("/v1/services/shop/override", headers=ORDERS)
        may_answer.set()
        await running.until("in_progress")
        ticks = await running.metric('autoscaler_wakes_total{service="shop",path="tick"')
        await eventually(lambda: more_than(running, ticks + 10), "ten ticks")
        assert len(supervisor.orders) == given


async def more_than(running: Running, ticks: float) -> bool:
    return await running.metric('autoscaler_wakes_total{service="shop",path="tick"') > ticks


async def test_without_the_supervisor_the_number_is_unknown_and_nothing_is_ordered(
    world: Prometheus, supervisor: Supervisor, tmp_path: Path
) -> None:
    """The rules then count the replicas that discovery knows."""
    supervisor.socket = tmp_path / "nobody"

    async with autoscaler(world, supervisor) as running:
        decision = await running.until("actuator_unknown")

        assert "The supervisor cannot be reached at" in decision["reason"]
        assert math.isnan(await running.metric('autoscaler_running_replicas{service="shop"'))


async def test_the_number_of_replicas_is_told_as_it_changes_without_any_look(
    running: Running, supervisor: Supervisor
) -> None:
    """The rules divide by it at each evaluation; with alerts alone, and no tick, nobody would say that it has changed."""
    wakes = await running.metric('autoscaler_wakes_total{service="shop",path="tick"')
    supervisor.counts["shop"] = 5

    await running.until_metric('autoscaler_running_replicas{service="shop"', 5)

    assert await running.metric('autoscaler_wakes_total{service="shop",path="tick"') == wakes


async def test_a_supervisor_that_hangs_or_babbles_is_an_error(tmp_path: Path) -> None:
    """Each with its sentence."""
    said = b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        if said:
            writer.write(said)
        else:
            await reader.read()  # nothing comes but the end
        writer.close()

    server = await asyncio.start_unix_server(answer, str(tmp_path / "s"))
    actuator = ProcessActuator(tmp_path / "s", answer_seconds=0.05)
    async with server:
        with pytest.raises(ActuatorError, match=r"did not answer within 0.05 s"):
            await actuator.replicas("shop")
        for babble in (b"?\n", b"[]\n", b"{}\n", b"\n"):
            said = babble
            with pytest.raises(ActuatorError, match=r"answer is none"):
                await actuator.replicas("shop")
        said = b'{"ok": true, "services": {}}\n'
        with pytest.raises(ActuatorError, match=r"does not know the service 'shop'"):
            await actuator.replicas("shop")


# --- a person's orders -----------------------------------------------------------------------------------------------


async def test_a_person_can_pin_a_service_until_the_order_expires(
    running: Running, world: Prometheus, supervisor: Supervisor
) -> None:
    """Whatever the signals say; afterwards they decide again, without a hand."""
    world.says(4, 4)

    answer = await running.http.put(
        "/v1/services/shop/override", json={"replicas": 3, "seconds": 1, "why": "a sale"}, headers=ORDERS
    )

    assert answer.json()["override"]["replicas"] == 3
    assert "Pinned by hand to 3 for another" in (await running.until("pinned"))["reason"]
    await ordered(supervisor, ("shop", 3))
    world.says(4, 4, scraped=3)
    await running.until("demand")
    await ordered(supervisor, ("shop", 3), ("shop", 4))


async def test_a_person_can_pause_a_service_and_go_on(
    running: Running, world: Prometheus, supervisor: Supervisor
) -> None:
    """A pause leaves everything as it is."""
    await running.http.put("/v1/services/shop/override", json={"seconds": 600}, headers=ORDERS)
    world.says(4, 4)
    await running.alert("shop")
    await running.until("paused")
    assert supervisor.orders == []

    answer = await running.http.delete("/v1/services/shop/override", headers=ORDERS)

    assert answer.status_code == 204
    await running.until("demand")
    listed = (await running.http.get("/v1/services")).json()
    assert [(service["service"], service["override"]) for service in listed] == [("shop", None), ("worker", None)]


async def test_an_order_outlives_a_restart(world: Prometheus, supervisor: Supervisor) -> None:
    """It is read back from what Prometheus has scraped; one that was withdrawn is not."""
    now = time.time()
    world.says(4, 4)
    world.values |= {OVERRIDE_UNTIL: [now + 600], OVERRIDE_SET: [now - 5], OVERRIDE_REPLICAS: [2]}
    async with autoscaler(world, supervisor) as running:
        assert "set before the autoscaler was restarted" in (await running.until("pinned"))["reason"]
        assert await running.metric('autoscaler_override_until_timestamp_seconds{service="shop"') == pytest.approx(
            now + 600
        )

    world.values |= {OVERRIDE_UNTIL: [0], OVERRIDE_SET: [now - 1], OVERRIDE_REPLICAS: [math.nan]}
    async with autoscaler(world, supervisor) as running:
        await running.until("demand")


async def test_an_order_outlives_a_restart_while_prometheus_is_away(world: Prometheus, supervisor: Supervisor) -> None:
    """Nothing is said of orders before they are known: what is scraped meanwhile would be what is found later."""
    world.values |= {OVERRIDE_UNTIL: [time.time() + 600], OVERRIDE_SET: [time.time()], OVERRIDE_REPLICAS: [2]}
    world.raw = (503, b"Service Unavailable")
    async with autoscaler(world, supervisor) as running:
        assert "autoscaler_override_until_timestamp_seconds{" not in (await running.http.get("/metrics")).text
        world.raw = None
        await running.alert("shop")
        await running.until("pinned")
        assert await running.metric('autoscaler_override_replicas{service="shop"') == 2


async def test_an_order_that_never_ends_is_none(world: Prometheus, supervisor: Supervisor) -> None:
    """Whatever Prometheus says that somebody ordered."""
    for until, replicas in ((math.nan, 2), (math.inf, 2), (time.time() + 600, math.inf), (time.time() + 1e6, 2)):
        world.says(2, 2)
        world.values |= {OVERRIDE_UNTIL: [until], OVERRIDE_SET: [time.time()], OVERRIDE_REPLICAS: [replicas]}
        async with autoscaler(world, supervisor) as running:
            assert (await running.newest())["cause"] == "steady"


async def test_a_new_order_is_not_replaced_by_an_old_one(world: Prometheus, supervisor: Supervisor) -> None:
    """A person is faster than Prometheus, which is just being asked for what was ordered before the restart."""
    world.values |= {OVERRIDE_UNTIL: [time.time() + 600], OVERRIDE_SET: [time.time()], OVERRIDE_REPLICAS: [2]}
    asked, may_answer = threading.Event(), threading.Event()
    world.held_up = (OVERRIDE_REPLICAS, asked, may_answer)
    async with autoscaler(world, supervisor, waits=False) as running:
        await asyncio.to_thread(asked.wait, 20)
        await running.http.put("/v1/services/shop/override", json={"replicas": 3, "seconds": 600}, headers=ORDERS)
        may_answer.set()

        await ordered(supervisor, ("shop", 3))
        assert (await running.http.get("/v1/services")).json()[0]["override"]["replicas"] == 3


async def test_nobody_reads_what_comes_without_a_token(running: Running) -> None:
    """A body without an end would fill the memory."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 100:
            read += 1
            yield b" " * 1024

    answer = await running.http.put("/v1/services/shop/override", content=endless())
    assert (answer.status_code, read) == (401, 0)

    answer = await running.http.put("/v1/services/shop/override", content=endless(), headers=ORDERS)
    assert (answer.status_code, read) == (413, 5)


@pytest.mark.parametrize(
    ("service", "body", "headers", "status", "sentence"),
    [
        ("shop", {"replicas": 3, "seconds": 60}, ALERTS, 401, "Show the token"),
        ("shop", {"replicas": 3, "seconds": 60}, {}, 401, "Show the token"),
        ("shpo", {"replicas": 3, "seconds": 60}, ORDERS, 404, "Only shop, worker scale."),
        ("shop", {"replicas": 9, "seconds": 60}, ORDERS, 422, "shop can have 1 to 8 replicas, not 9."),
        ("shop", {"replicas": 0, "seconds": 60}, ORDERS, 422, "shop can have 1 to 8 replicas, not 0."),
        ("shop", {"replicas": 2.5, "seconds": 60}, ORDERS, 422, "valid integer"),
        ("shop", {"replicas": 3}, ORDERS, 422, "Field required"),
        ("shop", {"replicas": 3, "seconds": 0}, ORDERS, 422, "greater than or equal to 1"),
        ("shop", {"replicas": 3, "seconds": 1e9}, ORDERS, 422, "less than or equal to 86400"),
        ("shop", {"replica": 3, "seconds": 60}, ORDERS, 422, "Extra inputs"),
    ],
)
async def test_a_bad_order_is_refused_with_the_way_out(
    running: Running,
    supervisor: Supervisor,
    service: str,
    body: dict[str, object],
    headers: dict[str, str],
    status: int,
    sentence: str,
) -> None:
    """And nothing is ordered."""
    answer = await running.http.put(f"/v1/services/{service}/override", json=body, headers=headers)

    assert answer.status_code == status
    assert sentence in answer.text
    assert supervisor.orders == []


async def test_whoever_asks_about_an_unknown_service_is_told_the_known_ones(running: Running) -> None:
    """Instead of an empty list."""
    answer = await running.http.get("/v1/decisions", params={"service": "shpo"})

    assert (answer.status_code, answer.json()["detail"]) == (404, "Only shop, worker scale.")


async def test_each_series_is_there_from_the_start(running: Running) -> None:
    """One that is born with its first event reads as an increase of 0."""
    text = (await running.http.get("/metrics")).text

    for series in (
        'autoscaler_decisions_total{service="worker",direction="in",reason="demand"',
        'autoscaler_rejected_webhooks_total{reason="too_large"',
        'autoscaler_actuator_failures_total{service="worker"',
        'autoscaler_prometheus_failures_total{reason="malformed"',
    ):
        assert series in text
