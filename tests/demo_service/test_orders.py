"""Orders over HTTP, from the POST to the fulfilment."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from demo_service import metrics
from tests.demo_service.shops import (
    ORDER,
    RunningShop,
    UnreachablePayments,
    config_in,
    messages,
    payments_app,
    running_shop,
    until,
    worker_on,
)


async def test_an_order_is_placed_published_and_fulfilled(tmp_path: Path) -> None:
    """What a customer orders is paid, reaches the queue, and is fulfilled."""
    config = config_in(tmp_path)
    async with running_shop(config) as shop, worker_on(config, shop) as worker:
        placed = await shop.order("key-1")
        assert (placed.status_code, placed.json()["status"]) == (201, "paid")
        await until(lambda: _published(tmp_path))
        assert await worker.fulfil(placed.json()["id"]) == "fulfilled"
        seen = await shop.client.get(placed.headers["location"])
        assert seen.json()["status"] == "fulfilled"
        await until(lambda: _backlog_is(shop, 0))


async def test_the_total_is_the_price_times_the_quantity(tmp_path: Path) -> None:
    """An order costs what its products cost."""
    async with running_shop(config_in(tmp_path)) as shop:
        price = (await shop.client.get("/v1/products/3")).json()["price_cents"]
        order = (await shop.order("key-1")).json()
        assert shop.sample("shop_revenue_euros_total") == pytest.approx(2 * price / 100)
    assert order["total_cents"] == 2 * price


async def test_a_repetition_gets_the_first_answer(tmp_path: Path) -> None:
    """The same key and body answer the same, also after the order has moved on."""
    config = config_in(tmp_path)
    async with running_shop(config) as shop, worker_on(config, shop) as worker:
        first = await shop.order("key-1")
        await worker.fulfil(first.json()["id"])
        second = await shop.order("key-1")
        assert shop.sample("shop_orders_total", status="paid") == 1
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


async def test_a_key_cannot_be_used_for_another_order(tmp_path: Path) -> None:
    """The same key with another body is refused."""
    async with running_shop(config_in(tmp_path)) as shop:
        await shop.order("key-1")
        other = await shop.order("key-1", json={"items": [{"product_id": 4, "quantity": 1}]})
    assert (other.status_code, other.json()["type"]) == (422, "urn:shop:problem:idempotency-key-reused")


async def test_concurrent_repetitions_at_two_replicas_place_one_order(tmp_path: Path) -> None:
    """However many replicas get the same request at once, one order and one job come of it."""
    config = config_in(tmp_path)
    async with running_shop(config) as one, running_shop(config) as two:
        answers = await asyncio.gather(*(shop.order("key-1") for shop in (one, two) * 5))
        listed = (await one.client.get("/v1/orders")).json()["items"]
        placed = [shop.sample("shop_orders_total", status="paid") for shop in (one, two)]
    assert {(answer.status_code, answer.json()["id"]) for answer in answers} == {(201, listed[0]["id"])}
    assert (len(listed), sum(number or 0 for number in placed)) == (1, 1)


async def test_two_clients_may_use_the_same_key(tmp_path: Path) -> None:
    """An Idempotency-Key belongs to the API key it came with, and so does the order."""
    async with running_shop(config_in(tmp_path)) as shop:
        mine = (await shop.order("key-1", **{"X-API-Key": "mine"})).json()
        yours = (await shop.order("key-1", **{"X-API-Key": "yours"})).json()
        foreign = await shop.client.get(f"/v1/orders/{mine['id']}", headers={"X-API-Key": "yours"})
    assert mine["id"] != yours["id"]
    assert foreign.status_code == 404


async def test_orders_are_listed_page_by_page_newest_first(tmp_path: Path) -> None:
    """The pages hold every order of the client once."""
    async with running_shop(config_in(tmp_path)) as shop:
        ids = [(await shop.order(f"key-{number}")).json()["id"] for number in range(5)]
        first = (await shop.client.get("/v1/orders?limit=3")).json()
        rest = (await shop.client.get("/v1/orders", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
    assert rest["next_cursor"] is None


async def test_an_order_is_accepted_while_payments_is_away_and_settled_later(tmp_path: Path) -> None:
    """Payments' outage delays an order and loses none."""
    config = config_in(tmp_path)
    transport = UnreachablePayments(payments_app(config))
    async with running_shop(config, transport=transport) as shop, worker_on(config, shop, transport) as worker:
        placed = await shop.order("key-1")
        assert (placed.status_code, placed.json()["status"]) == (202, "payment_pending")
        assert await worker.fulfil(placed.json()["id"]) == "postponed"
        transport.reachable = True
        assert await worker.fulfil(placed.json()["id"]) == "fulfilled"
        assert (await shop.client.get(placed.headers["location"])).json()["status"] == "fulfilled"


async def test_payments_is_left_alone_while_it_fails(tmp_path: Path) -> None:
    """After some failures the circuit breaker answers, and payments is not asked."""
    config = config_in(tmp_path)
    transport = UnreachablePayments(payments_app(config))
    async with running_shop(config, transport=transport) as shop:
        for number in range(4):
            await shop.order(f"key-{number}")
        asked = transport.asked
        late = await shop.order("key-late")
        assert shop.sample("shop_payment_failures_total", reason="circuit_open")
    assert late.status_code == 202
    assert transport.asked == asked


@pytest.mark.parametrize(
    ("answer", "reason", "status_code"),
    [(402, "declined", 402), (409, "conflict", 422), (500, "unavailable", 202)],
)
async def test_a_call_without_an_authorisation_is_counted(
    tmp_path: Path, answer: int, reason: str, status_code: int
) -> None:
    """Each has one of the known reasons, whose series are there, at zero, before the first."""
    transport = httpx.MockTransport(lambda _request: httpx.Response(answer))
    async with running_shop(config_in(tmp_path), transport=transport) as shop:
        assert shop.sample("shop_payment_failures_total", reason=reason) == 0
        assert (await shop.order("key-1")).status_code == status_code
        assert shop.sample("shop_payment_failures_total", reason=reason) == 1
        assert shop.sample("shop_revenue_euros_total") == 0


async def test_a_declined_payment_is_no_order(tmp_path: Path) -> None:
    """Over payments' limit the answer is 402, and nothing is kept."""
    async with running_shop(config_in(tmp_path)) as shop:
        refused = await shop.order("key-1", json={"items": [{"product_id": 3, "quantity": 99}]})
        listed = (await shop.client.get("/v1/orders")).json()["items"]
    assert (refused.status_code, listed) == (402, [])


async def test_a_job_is_done_once_however_often_it_is_published(tmp_path: Path) -> None:
    """Two runs of the same job at once fulfil the order once."""
    config = config_in(tmp_path)
    async with running_shop(config) as shop, worker_on(config, shop) as worker:
        order_id = (await shop.order("key-1")).json()["id"]
        outcomes = await asyncio.gather(worker.fulfil(order_id), worker.fulfil(order_id))
    assert sorted(outcomes) == ["duplicate", "fulfilled"]


async def test_an_order_outlives_the_outage_of_the_queue(tmp_path: Path) -> None:
    """While the queue is away orders are accepted and counted as backlog; afterwards they are published."""
    async with running_shop(config_in(tmp_path)) as shop:
        await shop.set_fault(failing_dependency="queue")
        placed = await shop.order("key-1")
        await until(lambda: _backlog_is(shop, 1))
        await until(lambda: _is_degraded(shop, "queue"))
        assert (await shop.client.get("/readyz")).status_code == 200
        assert messages(tmp_path) == []
        await shop.clear_fault()
        await until(lambda: _published(tmp_path))
    assert placed.status_code == 201


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b'{"items": [', {}, 400),
        (b'{"items": []}', {}, 422),
        (b'{"items": [{"product_id": 3, "quantity": 0}]}', {}, 422),
        (b'{"items": [{"product_id": 3, "quantity": 1}], "coupon": 1}', {}, 422),
        (b'{"items": [{"product_id": 99999, "quantity": 1}]}', {}, 422),
        (b"items=3", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b'{"items": [{"product_id": 3, "quantity": 1}]}', {"Idempotency-Key": "two words"}, 400),
        (b"x" * 70_000, {}, 413),
    ],
)
async def test_a_bad_order_is_refused_with_a_problem(
    tmp_path: Path, content: bytes, headers: dict[str, str], status: int
) -> None:
    """Whatever is wrong with an order is told as problem+json with the request's id."""
    async with running_shop(config_in(tmp_path)) as shop:
        sent = {"Content-Type": "application/json", "Idempotency-Key": "key-1", "X-Request-Id": "mine-1", **headers}
        answer = await shop.client.post("/v1/orders", content=content, headers=sent)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["request_id"] == "mine-1"


async def test_the_key_is_needed(tmp_path: Path) -> None:
    """An order without Idempotency-Key is refused."""
    async with running_shop(config_in(tmp_path)) as shop:
        answer = await shop.client.post("/v1/orders", json=ORDER)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:shop:problem:idempotency-key-missing")


async def test_a_body_is_counted_as_it_arrives(tmp_path: Path) -> None:
    """A body without Content-Length is cut off at the limit, too."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    async with running_shop(config_in(tmp_path)) as shop:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "key-1"}
        answer = await shop.client.post("/v1/orders", content=endless(), headers=headers)
    assert answer.status_code == 413


async def test_customers_count_once_however_much_they_order(tmp_path: Path) -> None:
    """Three orders of two customers are two active customers, and none before the first."""
    async with running_shop(config_in(tmp_path)) as shop:
        await until(lambda: _active_customers_are(shop, 0))
    async with running_shop(config_in(tmp_path)) as shop:
        for key, customer in (("key-1", "ada"), ("key-2", "ada"), ("key-3", "grace")):
            assert (await shop.order(key, **{"X-API-Key": customer})).status_code == 201
        await until(lambda: _active_customers_are(shop, 2))


async def test_nobody_knows_who_buys_while_the_database_is_away(tmp_path: Path) -> None:
    """No number is better than an old one."""
    async with running_shop(config_in(tmp_path)) as shop:
        await until(lambda: _active_customers_are(shop, 0))
        await shop.set_fault(failing_dependency="database")
        await until(lambda: _active_customers_are(shop, math.nan))


async def _active_customers_are(shop: RunningShop, number: float) -> bool:
    known = shop.sample(metrics.ACTIVE_CUSTOMERS)
    return known == number or (known is not None and math.isnan(known) and math.isnan(number))


async def _published(folder: Path) -> bool:
    return len(messages(folder)) == 1


async def _backlog_is(shop: RunningShop, number: int) -> bool:
    return shop.sample("shop_outbox_backlog_jobs") == number


async def _is_degraded(shop: RunningShop, name: str) -> bool:
    answer = await shop.client.get("/readyz")
    return bool(answer.json()["checks"][name] == "degraded")
