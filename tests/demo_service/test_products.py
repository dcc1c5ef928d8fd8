"""The catalogue over HTTP."""

import base64
from pathlib import Path

import pytest

from demo_service import tables
from tests.demo_service.shops import config_in, running_shop


async def test_following_the_cursors_shows_every_product_once(tmp_path: Path) -> None:
    """The pages of the catalogue hold all products, in order, without repetition."""
    async with running_shop(config_in(tmp_path)) as shop:
        page = (await shop.client.get("/v1/products?limit=70")).json()
        seen = [item["id"] for item in page["items"]]
        while page["next_cursor"]:
            query = {"limit": "70", "cursor": page["next_cursor"]}
            page = (await shop.client.get("/v1/products", params=query)).json()
            seen += [item["id"] for item in page["items"]]
    assert seen == [row["id"] for row in tables.seed_products()]


async def test_one_product_is_shown_as_it_was_seeded(tmp_path: Path) -> None:
    """A product is answered with all its fields."""
    async with running_shop(config_in(tmp_path)) as shop:
        answer = await shop.client.get("/v1/products/7")
    assert answer.json() == tables.seed_products()[6]


async def test_a_repeated_lookup_is_answered_by_the_cache(tmp_path: Path) -> None:
    """The second request for a product does not reach the database."""
    async with running_shop(config_in(tmp_path)) as shop:
        first = await shop.client.get("/v1/products/7")
        await shop.set_fault(failing_dependency="database")
        second = await shop.client.get("/v1/products/7")
        assert shop.sample("shop_cache_lookups_total", result="hit") == 1
    assert second.json() == first.json()


async def test_the_catalogue_works_without_its_cache(tmp_path: Path) -> None:
    """A cache that is away costs nothing but time, and is counted."""
    async with running_shop(config_in(tmp_path, cache_url="redis://127.0.0.1:1")) as shop:
        answers = [await shop.client.get("/v1/products/7") for _ in range(2)]
        ready = await shop.client.get("/readyz")
        assert shop.sample("shop_cache_lookups_total", result="error") == 2
    assert [answer.status_code for answer in answers] == [200, 200]
    assert (ready.status_code, ready.json()["checks"]["cache"]) == (200, "degraded")


@pytest.mark.parametrize(
    "cursor",
    ["", "nonsense!", base64.urlsafe_b64encode(b"o:1").decode(), base64.urlsafe_b64encode(b"p:-1").decode(), "A" * 500],
)
async def test_a_cursor_that_was_not_given_is_refused(tmp_path: Path, cursor: str) -> None:
    """Cursors are checked, not believed."""
    async with running_shop(config_in(tmp_path)) as shop:
        answer = await shop.client.get("/v1/products", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:shop:problem:invalid-cursor")


async def test_a_long_page_is_compressed(tmp_path: Path) -> None:
    """A client that accepts gzip gets a long page in it."""
    async with running_shop(config_in(tmp_path)) as shop:
        answer = await shop.client.get("/v1/products?limit=100", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
