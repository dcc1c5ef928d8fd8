"""What an operator can set, and the numbers of the demo."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import insert

from demo_service import outbox, tables
from demo_service.capacity import DEFAULT
from demo_service.config import Config, SetupError
from demo_service.database import Database
from demo_service.faults import Faults
from demo_service.load_shapes import target_rps


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [
        ("SHOP_DATABASE_URL", "mysql://shop", "sqlite\\+aiosqlite"),
        ("SHOP_DATABASE_URL", "nonsense", "sqlite\\+aiosqlite:///"),
        ("SHOP_DATABASE_URL", "sqlite+aiosqlite:///:memory:", "must name a file"),
        ("SHOP_CACHE_URL", "memcached://x", "mem:// or redis://"),
        ("SHOP_BROKER_URL", "filesystem://relative", "absolute directory"),
        ("SHOP_RATE_LIMIT_URL", "mem://", "memory:// or redis://"),
        ("SHOP_PAYMENTS_URL", "payments:8001", "http://"),
        ("SHOP_TRUSTED_PROXY", "haproxy", "127.0.0.1"),
        ("SHOP_FAULTS_TOKEN_FILE", "/does/not/exist", "cannot be read"),
        ("SHOP_DRAIN_SECONDS", "soon", "number from 0 to 60"),
        ("SHOP_GRACEFUL_SECONDS", "0.5", "whole number from 1 to 300"),
        ("SHOP_GRACEFUL_SECONDS", "301", "whole number from 1 to 300"),
        ("SHOP_DATABSE_URL", "x", "Did you mean SHOP_DATABASE_URL"),
    ],
)
def test_a_broken_setting_is_named_with_its_fix(variable: str, value: str, fix: str) -> None:
    """The sentence says which variable is wrong and what to write."""
    with pytest.raises(SetupError, match=variable) as raised:
        Config.from_env({variable: value})
    assert raised.match(fix)


def test_passwords_stay_out_of_the_repr() -> None:
    """A configuration can be logged."""
    config = Config.from_env({"SHOP_DATABASE_URL": "postgresql+asyncpg://shop:s3cret@db/shop"})
    assert "s3cret" not in repr(config)


def test_the_token_is_read_from_its_file(tmp_path: Path) -> None:
    """The token itself is in no environment."""
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    assert Config.from_env({"SHOP_FAULTS_TOKEN_FILE": str(file)}).faults_token == "0123456789abcdef"


def test_the_spike_saturates_two_replicas_and_not_four() -> None:
    """The numbers of the demo are those its docstring derives."""
    busy_slots = DEFAULT.spike_rps * DEFAULT.io_seconds
    assert 2 * DEFAULT.slots < busy_slots < 4 * DEFAULT.slots * 0.75
    assert DEFAULT.steady_rps * DEFAULT.io_seconds < DEFAULT.slots
    assert DEFAULT.queue_limit > 4 * DEFAULT.spike_rps / DEFAULT.user_rps
    assert DEFAULT.requests_per_key > 2 * DEFAULT.user_rps * DEFAULT.rate_window_seconds


def test_the_spike_comes_first_and_alternates_with_rest() -> None:
    """Who asks for a spike does not wait for it."""
    rates = [target_rps("spike", second, capacity=DEFAULT) for second in (0, 89, 90, 149, 150)]
    assert rates == [120, 120, 25, 25, 120]


def test_the_wave_goes_from_low_to_high_and_back() -> None:
    """A wave begins low and is highest in the middle of its period."""
    rates = [target_rps("wave", second, capacity=DEFAULT) for second in (0, 120, 240)]
    assert rates == pytest.approx([10, 90, 10])


def test_a_rate_replaces_the_highest_one() -> None:
    """--rate-rps means the rate, or the peak."""
    assert target_rps("steady", 5, capacity=DEFAULT, rate_rps=7) == 7
    assert target_rps("spike", 5, capacity=DEFAULT, rate_rps=70) == 70
    assert target_rps("wave", 120, capacity=DEFAULT, rate_rps=70) == pytest.approx(70)


async def test_a_leased_job_is_nobody_elses_until_the_lease_ends(tmp_path: Path) -> None:
    """Replicas that claim at once share the jobs; what is released is claimed again."""
    async with _database_with_jobs(tmp_path, 30) as (one, two):
        claimed = await asyncio.gather(outbox.claim(one, 20), outbox.claim(two, 20))
        ids = [job.order_id for jobs in claimed for job in jobs]
        assert (len(ids), len(set(ids))) == (30, 30)
        assert await outbox.claim(one, 20) == []
        await outbox.release(two, ids[:3], delay_seconds=0)
        again = await outbox.claim(one, 20)
        assert sorted(job.order_id for job in again) == sorted(ids[:3])
        assert {job.attempts for job in again} == {1}


async def test_only_a_window_of_jobs_is_with_the_broker(tmp_path: Path) -> None:
    """A slow worker's jobs wait in the outbox, where they are counted, and not twice in the queue."""
    async with _database_with_jobs(tmp_path, outbox.WINDOW + 30) as (one, _):
        claimed = [len(await outbox.claim(one, 60)) for _ in range(3)]
        assert claimed == [60, outbox.WINDOW - 60, 0]
        assert await outbox.backlog(one) == (outbox.WINDOW + 30, 30)


def test_a_lease_grows_with_each_attempt_and_has_an_end() -> None:
    """A worker that is away for long does not find its jobs hundreds of times."""
    leases = [outbox.lease_seconds(attempts) for attempts in (0, 1, 2, 100)]
    assert leases == [15, 30, 60, 300]


@asynccontextmanager
async def _database_with_jobs(folder: Path, number: int) -> AsyncIterator[tuple[Database, Database]]:
    url = f"sqlite+aiosqlite:///{folder}/shop.sqlite3"
    one, two = (Database(url, connections=2, faults=Faults()) for _ in range(2))
    await asyncio.gather(one.prepare(), two.prepare())
    order = {
        "client": "", "fingerprint": "", "items": [], "total_cents": 1, "status": "paid", "placed_status": "paid",
        "created_us": 1,
    }  # fmt: skip
    ids = [f"{item:032x}" for item in range(number)]
    async with one.writing() as connection:
        await connection.execute(
            insert(tables.orders), [{**order, "id": item, "idempotency_key": item} for item in ids]
        )
        jobs = [{"order_id": item, "trace_context": {}, "created_us": 1} for item in ids]
        await connection.execute(insert(tables.outbox), jobs)
    try:
        yield one, two
    finally:
        await one.close()
        await two.close()


def test_a_url_with_a_password_can_stand_in_a_file(tmp_path: Path) -> None:
    """As containers get their secrets; the value is judged as it would be in the environment."""
    file = tmp_path / "url"
    file.write_text("redis://:s3cret@redis/1\n")

    assert Config.from_env({"SHOP_BROKER_URL_FILE": str(file)}).broker_url == "redis://:s3cret@redis/1"
    with pytest.raises(SetupError, match="SHOP_DATABASE_URL") as raised:
        Config.from_env({"SHOP_DATABASE_URL_FILE": str(file)})
    assert "s3cret" not in str(raised.value)


def test_a_url_has_one_place(tmp_path: Path) -> None:
    """Which of two would win nobody should have to know."""
    file = tmp_path / "url"
    file.write_text("redis://redis/1")

    with pytest.raises(SetupError, match="SHOP_CACHE_URL and SHOP_CACHE_URL_FILE are both set"):
        Config.from_env({"SHOP_CACHE_URL": "mem://", "SHOP_CACHE_URL_FILE": str(file)})
