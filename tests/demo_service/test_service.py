"""What every route shares: problems, health, limits, faults and capacity."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from demo_service.faults import Fault, Faults
from tests.demo_service.shops import (
    QUICK,
    TOKEN,
    RunningShop,
    SlowPayments,
    config_in,
    payments_app,
    running_shop,
    until,
)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/products/99999", 404),
        ("DELETE", "/v1/products", 405),
        ("GET", "/v1/products/x", 422),
    ],
)
async def test_every_error_is_a_problem_with_the_request_id(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    """Errors of the framework look like those of the shop."""
    async with running_shop(config_in(tmp_path)) as shop:
        answer = await shop.client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert answer.json()["request_id"] == answer.headers["x-request-id"] != ""


async def test_405_names_the_methods_that_are_allowed(tmp_path: Path) -> None:
    """The Allow header survives the translation into a problem."""
    async with running_shop(config_in(tmp_path)) as shop:
        answer = await shop.client.delete("/v1/products")
    assert answer.headers["allow"] == "GET"


async def test_an_unexpected_error_tells_nothing_but_the_request_id(tmp_path: Path) -> None:
    """A 500 is a problem, too, without the exception's text."""
    async with running_shop(config_in(tmp_path)) as shop:
        await shop.set_fault(error_rate=1)
        answer = await shop.client.get("/v1/products")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "told to fail" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_a_database_that_is_away_at_start_makes_the_replica_unready_until_it_comes(tmp_path: Path) -> None:
    """The process starts, says what is missing, answers 503, and recovers by itself."""
    folder = tmp_path / "later"
    config = config_in(tmp_path, database_url=f"sqlite+aiosqlite:///{folder}/shop.sqlite3")
    async with running_shop(config, ready=False) as shop:
        await until(lambda: _says(shop, "unable to open database file"))
        ready = await shop.client.get("/readyz")
        answer = await shop.client.get("/v1/products/1")
        alive = await shop.client.get("/healthz")
        folder.mkdir()
        await until(lambda: _is_ready(shop))
        recovered = await shop.client.get("/v1/products/1")
    assert (ready.status_code, alive.status_code, recovered.status_code) == (503, 200, 200)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "retry-after" in answer.headers


async def test_a_draining_replica_is_not_ready_and_still_serves(tmp_path: Path) -> None:
    """Draining asks load balancers to go, and lets no request down."""
    async with running_shop(config_in(tmp_path)) as shop:
        shop.health.draining = True
        ready = await shop.client.get("/readyz")
        answer = await shop.client.get("/v1/products/1")
    assert (ready.status_code, ready.json()["status"], answer.status_code) == (503, "draining", 200)


async def test_a_client_over_its_rate_is_told_when_to_come_back(tmp_path: Path) -> None:
    """The limit is each API key's own; health and metrics have none."""
    async with running_shop(config_in(tmp_path), capacity=replace(QUICK, requests_per_key=2)) as shop:
        mine = [await shop.client.get("/v1/products/1", headers={"X-API-Key": "mine"}) for _ in range(3)]
        yours = await shop.client.get("/v1/products/1", headers={"X-API-Key": "yours"})
        others = [(await shop.client.get(path)).status_code for path in ("/healthz", "/readyz", "/metrics") * 2]
        assert shop.sample("shop_rate_limited_requests_total") == 1
    assert [answer.status_code for answer in mine] == [200, 200, 429]
    assert 1 <= int(mine[2].headers["retry-after"]) <= 120
    assert mine[2].headers["content-type"] == "application/problem+json"
    assert (yours.status_code, set(others)) == (200, {200})


@pytest.mark.parametrize(("trusted", "status"), [((), 429), (("192.0.2.0/24",), 200)])
async def test_the_forwarded_address_counts_only_from_a_trusted_proxy(
    tmp_path: Path, trusted: tuple[str, ...], status: int
) -> None:
    """Without an API key the address is limited; a stranger cannot make addresses up."""
    config = config_in(tmp_path, trusted_proxies=trusted)
    async with running_shop(config, capacity=replace(QUICK, requests_per_key=1)) as shop:
        await shop.client.get("/v1/products/1", headers={"X-Forwarded-For": "198.51.100.1"})
        answer = await shop.client.get("/v1/products/1", headers={"X-Forwarded-For": "198.51.100.2"})
    assert answer.status_code == status


async def test_everybody_passes_while_the_rate_limits_store_is_away(tmp_path: Path) -> None:
    """The limit fails open, counted and reported."""
    config = config_in(tmp_path, rate_limit_url="redis://127.0.0.1:1")
    async with running_shop(config, capacity=replace(QUICK, requests_per_key=1)) as shop:
        answers = [(await shop.client.get("/v1/products/1")).status_code for _ in range(3)]
        ready = await shop.client.get("/readyz")
        assert shop.sample("shop_rate_limit_store_errors_total") == 3
    assert answers == [200, 200, 200]
    assert (ready.status_code, ready.json()["checks"]["rate_limit"]) == (200, "degraded")


async def test_faults_do_not_exist_without_a_token(tmp_path: Path) -> None:
    """An operator who sets no token has no such endpoint."""
    async with running_shop(config_in(tmp_path, faults_token=None)) as shop:
        answer = await shop.client.get("/faults", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 404


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", f"Basic {TOKEN}", "Bearer tök"])
async def test_faults_need_the_token(tmp_path: Path, authorization: str) -> None:
    """Nobody else may break the shop."""
    async with running_shop(config_in(tmp_path)) as shop:
        answer = await shop.client.get("/faults", headers={b"Authorization": authorization.encode()})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    "fault",
    [
        {"latency_seconds": 11},
        {"error_rate": 1.1},
        {"cpu_cores": 2},
        {"duration_seconds": 1e9},
        {"failing_dependency": "moon"},
        {"typo": 1},
    ],
)
async def test_a_fault_has_bounds(tmp_path: Path, fault: dict[str, object]) -> None:
    """What nobody could want is refused, and nothing changes."""
    async with running_shop(config_in(tmp_path)) as shop:
        answer = await shop.set_fault(**fault)
        shown = await shop.client.get("/faults", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, shown.json()["fault"]) == (422, None)


async def test_a_failing_database_is_seen_by_requests_and_readiness(tmp_path: Path) -> None:
    """A dependency that is told to fail fails as the real one would, until the fault is taken back."""
    async with running_shop(config_in(tmp_path)) as shop:
        await shop.set_fault(failing_dependency="database")
        during = [(await shop.client.get(path)).status_code for path in ("/v1/products/1", "/readyz", "/healthz")]
        await shop.clear_fault()
        after = (await shop.client.get("/v1/products/1")).status_code
    assert (during, after) == ([503, 503, 200], 200)


def test_a_fault_ends_by_itself() -> None:
    """Nobody has to remember to switch a fault off."""
    now = [100.0]
    faults = Faults(clock=lambda: now[0])
    faults.set(Fault(duration_seconds=5, error_rate=1))
    now[0] += 4.9
    assert faults.active() is not None
    now[0] += 0.1
    assert faults.active() is None


async def test_requests_over_capacity_wait_and_are_in_flight(tmp_path: Path) -> None:
    """A full replica rejects nobody, counts who waits, and still answers about itself."""
    config = config_in(tmp_path)
    payments = SlowPayments(payments_app(config))
    async with running_shop(config, capacity=replace(QUICK, slots=1), transport=payments) as shop:
        order = asyncio.create_task(shop.order("key-1"))
        await payments.asked.wait()
        requests = [asyncio.create_task(shop.client.get("/v1/products/1")) for _ in range(9)]
        await until(lambda: _in_flight(shop, 9))
        alive = await shop.client.get("/healthz")
        payments.may_answer.set()
        answers = await asyncio.gather(order, *requests)
    assert [answer.status_code for answer in answers] == [201] + [200] * 9
    assert alive.status_code == 200


async def test_a_queue_beyond_reason_is_cut(tmp_path: Path) -> None:
    """Waiting is bounded, so that an attack cannot fill the memory."""
    config = config_in(tmp_path)
    payments = SlowPayments(payments_app(config))
    capacity = replace(QUICK, slots=1, queue_limit=2)
    async with running_shop(config, capacity=capacity, transport=payments) as shop:
        order = asyncio.create_task(shop.order("key-1"))
        await payments.asked.wait()
        requests = [asyncio.create_task(shop.client.get("/v1/products/1")) for _ in range(2)]
        await until(lambda: _in_flight(shop, 2))
        refused = await shop.client.get("/v1/products/1")
        payments.may_answer.set()
        waited = await asyncio.gather(order, *requests)
        assert shop.sample("shop_overloaded_requests_total") == 1
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert [answer.status_code for answer in waited] == [201, 200, 200]


async def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    """A wrong file is named in /readyz and not overwritten."""
    wrong = tmp_path / "shop.sqlite3"
    wrong.write_bytes(b"this is a letter, not a database" * 50)
    async with running_shop(config_in(tmp_path), ready=False) as shop:
        await until(lambda: _says(shop, "not a database"))
    assert wrong.read_bytes().startswith(b"this is a letter")


async def _says(shop: RunningShop, text: str) -> bool:
    answer = await shop.client.get("/readyz")
    return text in answer.json()["checks"]["database"]


async def _is_ready(shop: RunningShop) -> bool:
    answer = await shop.client.get("/readyz")
    return bool(answer.status_code == 200)


async def _in_flight(shop: RunningShop, number: int) -> bool:
    text: str = (await shop.client.get("/metrics")).text
    return any(
        line.startswith('http_server_active_requests{http_request_method="GET"') and float(line.split()[-1]) >= number
        for line in text.splitlines()
    )
