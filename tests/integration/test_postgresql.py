"""The shop on a real PostgreSQL: two replicas, payments and two workers share one database."""

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, insert

from demo_service import metrics, outbox, tables
from demo_service.database import Database
from demo_service.faults import Faults
from obslib import names
from stack.components.catalogue import POSTGRESQL
from stack.components.install import Installer, cache_directory
from stack.components.progress import Progress
from tests.demo_service.roles import Roles, answers, free_ports
from tests.demo_service.shops import ORDER
from tests.integration.postgresql import PostgreSQL, running
from tests.integration.running import eventually

REPLICAS = ("shop-1", "shop-2")
WORKERS = ("worker-1", "worker-2")


@dataclass
class Shop:
    """The roles on one database."""

    roles: Roles
    database: PostgreSQL
    urls: dict[str, str]
    http: httpx.Client

    def order(self, replica: str, key: str = "", client: str = "") -> httpx.Response:
        headers = {"Idempotency-Key": key or uuid.uuid4().hex, "X-API-Key": client or uuid.uuid4().hex}
        return self.http.post(f"{self.urls[replica]}/v1/orders", json=ORDER, headers=headers)

    def readiness(self, replica: str) -> httpx.Response:
        return self.http.get(f"{self.urls[replica]}/readyz")

    def all_ready(self) -> bool:
        return all(self.readiness(replica).status_code == 200 for replica in REPLICAS)

    def sample(self, replica: str, name: str, **labels: str) -> float:
        text = self.http.get(f"{self.urls[replica]}/metrics", headers={"Accept": "text/plain"}).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        (value,) = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
        return value

    def count(self, table: str) -> int:
        return int(self.database.value(f"SELECT count(*) FROM {table}"))

    def all_done(self) -> bool:
        return self.count("outbox") == 0


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """A fresh database, and everybody starting on it at once."""
    component = Installer(cache_directory(), Progress()).provide(POSTGRESQL)
    with running(component) as database, tempfile.TemporaryDirectory(prefix="obslib-roles-") as folder:
        payments, *ports = free_ports(5)
        roles = Roles(Path(folder), SHOP_DATABASE_URL=database.url(), SHOP_PAYMENTS_URL=f"http://127.0.0.1:{payments}")
        urls = {name: f"http://127.0.0.1:{port}" for name, port in zip((*REPLICAS, *WORKERS), ports, strict=True)}
        try:
            roles.start("payments", "--port", str(payments))
            for name in REPLICAS:
                roles.start("shop", "--port", str(httpx.URL(urls[name]).port), name=name)
            for name in WORKERS:
                roles.start("worker", "--metrics-port", str(httpx.URL(urls[name]).port), name=name)
            for name in REPLICAS:
                eventually(lambda name=name: answers(f"{urls[name]}/readyz"), f"{name} is ready")  # type: ignore[misc] # a default binds the loop's variable
            with httpx.Client(trust_env=False, timeout=30) as http:
                yield Shop(roles, database, urls, http)
        finally:
            roles.end()


def test_replicas_that_start_together_create_one_schema(shop: Shop) -> None:
    """Tables and products are there once, and no replica complained about the other."""
    assert shop.count("products") == len(tables.seed_products())
    for replica in REPLICAS:
        events = [line["event"] for line in shop.roles.lines(replica)]
        assert "database_ready" in events
        assert shop.http.get(f"{shop.urls[replica]}/v1/products/7").json()["id"] == 7


def test_one_key_is_one_order_however_many_requests_race(shop: Shop) -> None:
    """Twenty at once over both replicas: one row, one answer, one payment, one fulfilment."""
    key, client = uuid.uuid4().hex, uuid.uuid4().hex
    with ThreadPoolExecutor(20) as threads:
        raced = list(threads.map(lambda number: shop.order(REPLICAS[number % 2], key, client), range(20)))

    assert {answer.status_code for answer in raced} <= {200, 201}, [answer.text for answer in raced]
    (order_id,) = {answer.json()["id"] for answer in raced}
    assert {answer.json()["status"] for answer in raced} == {"paid"}
    assert shop.database.value(f"SELECT count(*) FROM orders WHERE idempotency_key = '{key}'") == 1
    eventually(shop.all_done, "the order is fulfilled")
    assert shop.database.value(f"SELECT count(*) FROM fulfilments WHERE order_id = '{order_id}'") == 1


def test_every_order_is_published_and_fulfilled_once(shop: Shop) -> None:
    """Two relays and two workers share the jobs: none is left and none is done twice."""
    eventually(shop.all_done, "nothing is left from before")

    def published() -> float:
        return sum(shop.sample(replica, metrics.PUBLISHED, outcome="published") for replica in REPLICAS)

    def jobs(outcome: str) -> float:
        return sum(shop.sample(worker, metrics.JOBS, outcome=outcome) for worker in WORKERS)

    before = published(), jobs("fulfilled"), jobs("duplicate")
    with ThreadPoolExecutor(8) as threads:
        placed = list(threads.map(lambda number: shop.order(REPLICAS[number % 2]), range(40)))
    assert {answer.status_code for answer in placed} == {201}
    eventually(shop.all_done, "all are fulfilled")

    after = published(), jobs("fulfilled"), jobs("duplicate")
    assert [now - then for now, then in zip(after, before, strict=True)] == [40, 40, 0]
    ids = ", ".join(f"'{answer.json()['id']}'" for answer in placed)
    assert shop.database.value(f"SELECT count(*) FROM orders WHERE status = 'fulfilled' AND id IN ({ids})") == 40


async def test_only_a_window_of_jobs_is_leased_however_many_relays_claim_at_once(shop: Shop) -> None:
    """The bound holds between transactions that do not see each other."""
    await asyncio.to_thread(shop.database.execute, "CREATE DATABASE window_of_jobs")
    url = shop.database.url("window_of_jobs")
    relays = [Database(url, connections=2, faults=Faults()) for _ in range(6)]
    order = {"client": "", "fingerprint": "", "items": [], "total_cents": 1, "status": "paid", "placed_status": "paid"}
    ids = [f"{number:032x}" for number in range(outbox.WINDOW + 50)]
    try:
        await asyncio.gather(*(relay.prepare() for relay in relays))
        async with relays[0].writing() as connection:
            rows = [{**order, "id": each, "idempotency_key": each, "created_us": 1} for each in ids]
            await connection.execute(insert(tables.orders), rows)
        for _ in range(5):
            async with relays[0].writing() as connection:
                await connection.execute(delete(tables.outbox))
                jobs = [{"order_id": each, "trace_context": {}, "created_us": 1} for each in ids]
                await connection.execute(insert(tables.outbox), jobs)
            claimed = await asyncio.gather(*(outbox.claim(relay, 40) for relay in relays))
            leased = [job.order_id for jobs_of_one in claimed for job in jobs_of_one]
            assert (len(leased), len(set(leased))) == (outbox.WINDOW, outbox.WINDOW)
            assert await outbox.backlog(relays[0]) == (len(ids), 50)
    finally:
        for relay in relays:
            await relay.close()


def test_the_backlog_is_what_is_not_fulfilled(shop: Shop) -> None:
    """While a database is there that holds the fulfilments up, the gauge counts them; afterwards it falls to zero."""
    eventually(shop.all_done, "nothing is left from before")
    with shop.database.locked("fulfilments"):
        placed = [shop.order(REPLICAS[number % 2]) for number in range(3)]
        assert {answer.status_code for answer in placed} == {201}
        for replica in REPLICAS:
            eventually(lambda replica=replica: shop.sample(replica, metrics.BACKLOG) == 3, f"{replica} counts three")  # type: ignore[misc] # a default binds the loop's variable
    for replica in REPLICAS:
        eventually(lambda replica=replica: shop.sample(replica, metrics.BACKLOG) == 0, f"{replica} counts none")  # type: ignore[misc] # a default binds the loop's variable


def outage_is_told(shop: Shop, replica: str) -> None:
    eventually(lambda: shop.readiness(replica).status_code == 503, f"{replica} is unready")
    ready = shop.readiness(replica).json()
    assert ready["status"] == "unavailable"
    assert ready["checks"]["database"] not in {"", "ok"}
    answer = shop.order(replica)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.headers["retry-after"] == "2"
    eventually(lambda: shop.sample(replica, metrics.BACKLOG) != shop.sample(replica, metrics.BACKLOG), "a NaN backlog")


def nothing_unexpected_was_logged(shop: Shop) -> None:
    """An outage is foreseen: no stack trace, no task or connection that was lost sight of; a 503 has its access line."""
    for name in (*REPLICAS, *WORKERS):
        told = [line for line in shop.roles.lines(name) if line[names.LOG_LEVEL] in {"error", "critical"}]
        unexpected = [line for line in told if line[names.LOG_EVENT] != names.ACCESS_EVENT]
        assert not unexpected, unexpected[0]


def test_while_it_is_stopped_replicas_are_unready_and_recover_by_themselves(shop: Shop) -> None:
    """503 with a reason and Retry-After; afterwards orders flow as before, in the same processes."""
    shop.database.stop()
    try:
        for replica in REPLICAS:
            outage_is_told(shop, replica)
    finally:
        shop.database.start()
    eventually(shop.all_ready, "both are ready again")

    placed = [shop.order(replica) for replica in REPLICAS]
    assert {answer.status_code for answer in placed} == {201}
    eventually(shop.all_done, "fulfilled as before")
    nothing_unexpected_was_logged(shop)


def test_while_it_is_silent_nobody_waits_for_ever(shop: Shop) -> None:
    """A database that keeps its connections and says nothing: an answer within seconds, and recovery."""
    shop.database.freeze()
    try:
        started = time.monotonic()
        with ThreadPoolExecutor(len(REPLICAS)) as threads:
            list(threads.map(lambda replica: outage_is_told(shop, replica), REPLICAS))
        assert time.monotonic() - started < 30
    finally:
        shop.database.thaw()
    eventually(shop.all_ready, "both are ready again")

    assert {shop.order(replica).status_code for replica in REPLICAS} == {201}
    eventually(shop.all_done, "fulfilled as before")
    nothing_unexpected_was_logged(shop)


def test_a_database_that_does_not_exist_yet_is_waited_for(shop: Shop) -> None:
    """The server's refusal is a reason to wait, named in /readyz without the password, and not an end."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    process = shop.roles.start(
        "shop", "--port", str(port), name="shop-later", SHOP_DATABASE_URL=shop.database.url("later")
    )

    def refused() -> bool:
        try:
            answer = shop.http.get(f"{url}/readyz")
        except httpx.TransportError:
            return False
        return answer.status_code == 503 and "later" in answer.json()["checks"]["database"]

    eventually(refused, "the reason is named")
    assert shop.http.get(f"{url}/healthz").status_code == 200
    shop.database.execute("CREATE DATABASE later")
    eventually(lambda: answers(f"{url}/readyz"), "the replica is ready")

    assert shop.http.get(f"{url}/v1/products/1").status_code == 200
    password = shop.database.url().split(":")[2].partition("@")[0]
    assert password not in shop.roles.said("shop-later")
    process.terminate()
    assert process.wait(30) is not None
