"""The catalogue: read often, changed never, hence cached."""

import re
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel
from sqlalchemy import select
from starlette.responses import Response

from demo_service import cursors
from demo_service.problems import Problem
from demo_service.shop import Shop, shop_of
from demo_service.tables import Row, products

router: Final = APIRouter(prefix="/v1/products", tags=["products"])

#: Short, so that a change of price is soon seen; long against the milliseconds between two requests.
_CACHE_SECONDS: Final = 10.0
_CURSOR: Final = re.compile(r"p:([0-9]{1,9})")
_JSON: Final = "application/json"


class Product(BaseModel):
    """Something the shop sells."""

    id: int
    name: str
    category: str
    price_cents: int
    description: str


class ProductPage(BaseModel):
    """Some products, in the order of their ids."""

    items: list[Product]
    #: Where the next page begins; null on the last one.
    next_cursor: str | None


@router.get("", response_model=ProductPage)
async def list_products(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query()] = None,
) -> Response:
    """List products page by page."""
    after = int(cursors.decode(cursor, _CURSOR)[0]) if cursor is not None else 0
    shop = shop_of(request)
    key = f"products:{limit}:{after}"
    body = await shop.cache.get(key)
    if body is None:
        body = await _page(shop, limit, after)
        await shop.cache.set(key, body, expire_seconds=_CACHE_SECONDS)
    return Response(body, media_type=_JSON)


@router.get("/{product_id}", response_model=Product)
async def get_product(request: Request, product_id: Annotated[int, Path(ge=1, le=999_999_999)]) -> Response:
    """Show one product."""
    body = await product_json(shop_of(request), product_id)
    if body is None:
        raise Problem(404, "There is no such product.", kind="product-not-found")
    return Response(body, media_type=_JSON)


async def product_json(shop: Shop, product_id: int) -> str | None:
    """Return one product as JSON, from the cache if it can."""
    key = f"product:{product_id}"
    body = await shop.cache.get(key)
    if body is not None:
        return body
    async with shop.database.reading() as connection:
        query = select(products).where(products.c.id == product_id)
        row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        # Not cached: a caller could fill the cache with numbers that do not exist.
        return None
    body = orjson.dumps(_shown(row)).decode()
    await shop.cache.set(key, body, expire_seconds=_CACHE_SECONDS)
    return body


async def _page(shop: Shop, limit: int, after: int) -> str:
    query = select(products).where(products.c.id > after).order_by(products.c.id).limit(limit + 1)
    async with shop.database.reading() as connection:
        rows = (await connection.execute(query)).mappings().all()
    items = [_shown(row) for row in rows[:limit]]
    following = cursors.encode("p", items[-1]["id"]) if len(rows) > limit else None
    return orjson.dumps({"items": items, "next_cursor": following}).decode()


def _shown(row: Row) -> dict[str, Any]:
    # SQLAlchemy's keys are a subclass of str, which orjson refuses.
    return {name: row[name] for name in Product.model_fields}
