"""Placing and reading orders over HTTP."""

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select, tuple_
from starlette.responses import Response

from demo_service import cursors
from demo_service.clients import client_of
from demo_service.placing import Line, OrderRequest, place
from demo_service.problems import Problem
from demo_service.shop import shop_of
from demo_service.tables import Row, orders

_JSON: Final = "application/json"
_CURSOR: Final = re.compile(r"o:([0-9]{1,17}):([0-9a-f]{32})")
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


class OrderLine(BaseModel):
    """A product and how many of it."""

    model_config = ConfigDict(extra="forbid")

    product_id: Annotated[int, Field(ge=1, le=999_999_999)]
    quantity: Annotated[int, Field(ge=1, le=99)]


class NewOrder(BaseModel):
    """What is ordered."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[OrderLine], Field(min_length=1, max_length=20)]


class Order(BaseModel):
    """An order as its customer sees it."""

    id: str
    #: `payment_pending`, `paid`, `declined` or `fulfilled`.
    status: str
    items: list[OrderLine]
    total_cents: int
    currency: str
    created_at: datetime


class OrderPage(BaseModel):
    """Some orders, the newest first."""

    items: list[Order]
    next_cursor: str | None


async def _only_json(content_type: Annotated[str, Header()] = "") -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if kind != _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(415, "Send the order as application/json.", headers={"Accept": _JSON})


async def _idempotency_key(idempotency_key: Annotated[str | None, Header()] = None) -> str:
    if idempotency_key is None:
        raise Problem(
            400, "Send an Idempotency-Key, so that a repetition cannot order twice.", kind="idempotency-key-missing"
        )
    # The IETF's draft writes the key as a quoted string; both spellings name the same key.
    key = idempotency_key.strip('"')
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Problem(400, "Idempotency-Key must be 1 to 255 visible ASCII characters.", kind="idempotency-key-invalid")
    return key


router: Final = APIRouter(prefix="/v1/orders", tags=["orders"])


@router.post(
    "",
    status_code=201,
    response_model=Order,
    responses={202: {"model": Order, "description": "Accepted; the payment is still pending."}},
    dependencies=[Depends(_only_json)],
)
async def create_order(request: Request, body: NewOrder, key: Annotated[str, Depends(_idempotency_key)]) -> Response:
    """Place an order, once for each Idempotency-Key."""
    lines = tuple(Line(item.product_id, item.quantity) for item in body.items)
    canonical = orjson.dumps([(line.product_id, line.quantity) for line in lines])
    placed = await place(
        shop_of(request),
        OrderRequest(
            client=client_of(request.scope),
            idempotency_key=key,
            fingerprint=hashlib.sha256(canonical).hexdigest(),
            lines=lines,
        ),
    )
    status = placed.order["placed_status"]
    headers = {"Location": f"/v1/orders/{placed.order['id']}"}
    if placed.replayed:
        headers["Idempotency-Replayed"] = "true"
    content = orjson.dumps(_shown(placed.order, status))
    return Response(content, 202 if status == "payment_pending" else 201, headers, _JSON)


@router.get("", response_model=OrderPage)
async def list_orders(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query()] = None,
) -> Response:
    """List the caller's own orders, the newest first."""
    query = select(orders).where(orders.c.client == client_of(request.scope))
    if cursor is not None:
        created_us, order_id = cursors.decode(cursor, _CURSOR)
        query = query.where(tuple_(orders.c.created_us, orders.c.id) < (int(created_us), order_id))
    query = query.order_by(orders.c.created_us.desc(), orders.c.id.desc()).limit(limit + 1)
    async with shop_of(request).database.reading() as connection:
        rows = (await connection.execute(query)).mappings().all()
    last = rows[limit - 1] if len(rows) > limit else None
    page = {
        "items": [_shown(row, row["status"]) for row in rows[:limit]],
        "next_cursor": cursors.encode("o", last["created_us"], last["id"]) if last else None,
    }
    return Response(orjson.dumps(page), media_type=_JSON)


@router.get("/{order_id}", response_model=Order)
async def get_order(request: Request, order_id: Annotated[str, Path(max_length=64)]) -> Response:
    """Show one of the caller's orders."""
    query = select(orders).where(orders.c.id == order_id, orders.c.client == client_of(request.scope))
    async with shop_of(request).database.reading() as connection:
        row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise Problem(404, "You have no such order.", kind="order-not-found")
    return Response(orjson.dumps(_shown(row, row["status"])), media_type=_JSON)


def _shown(order: Row, status: str) -> dict[str, object]:
    return {
        "id": order["id"],
        "status": status,
        "items": order["items"],
        "total_cents": order["total_cents"],
        "currency": "EUR",
        "created_at": datetime.fromtimestamp(order["created_us"] / 1e6, UTC),
    }
