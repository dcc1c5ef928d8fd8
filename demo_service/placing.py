"""
Placing an order: authorise the payment, then commit order and outbox row in one transaction.

The order's id follows from the client and its Idempotency-Key. So a repetition, also at another replica, also after a
crash between authorisation and commit, asks payments about the same order and cannot be charged twice.
"""

import hashlib
import time
from dataclasses import dataclass
from typing import Any, Final

import orjson
from opentelemetry import propagate
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

import obslib
from demo_service.payments_client import PaymentConflictError, PaymentDeclinedError, PaymentUnavailableError
from demo_service.problems import Problem
from demo_service.products import product_json
from demo_service.shop import Shop
from demo_service.tables import Row, orders, outbox

log = obslib.get_logger(__name__)

_ID_CHARACTERS: Final = 32


@dataclass(frozen=True, slots=True)
class Line:
    """A product and how many of it."""

    product_id: int
    quantity: int


@dataclass(frozen=True, kw_only=True)
class OrderRequest:
    """One POST: who, under which key, what."""

    client: str
    idempotency_key: str
    fingerprint: str
    lines: tuple[Line, ...]

    @property
    def order_id(self) -> str:
        """The id that every repetition of this request gets, too."""
        seed = f"{self.client}\n{self.idempotency_key}".encode()
        return hashlib.sha256(seed).hexdigest()[:_ID_CHARACTERS]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The order's row, and whether an earlier request had placed it."""

    order: Row
    replayed: bool


async def place(shop: Shop, request: OrderRequest) -> Placed:
    """
    Place the order, or return what the same request placed before.

    Raises:
        Problem: The key was used for another order, a product does not exist, or the payment is declined.
    """
    order_id = request.order_id
    obslib.bind(order_id=order_id)
    earlier = await _earlier(shop, request)
    if earlier is not None:
        return earlier
    total_cents = await _total_cents(shop, request.lines)
    status = await _authorise(shop, order_id, total_cents)
    order = {
        "id": order_id,
        "client": request.client,
        "idempotency_key": request.idempotency_key,
        "fingerprint": request.fingerprint,
        "items": [{"product_id": line.product_id, "quantity": line.quantity} for line in request.lines],
        "total_cents": total_cents,
        "status": status,
        "placed_status": status,
        "created_us": time.time_ns() // 1000,
    }
    try:
        await _commit(shop, order)
    except IntegrityError:
        # The same request won the race, here or at another replica.
        earlier = await _earlier(shop, request)
        if earlier is None:
            raise
        return earlier
    shop.wake_relay()
    shop.metrics.orders.labels(status).inc()
    if status == "paid":
        shop.metrics.payment.revenue.inc(total_cents / 100)
    log.info("order_placed", status=status, total_cents=total_cents)
    return Placed(order=order, replayed=False)


async def _earlier(shop: Shop, request: OrderRequest) -> Placed | None:
    async with shop.database.reading() as connection:
        row = (await connection.execute(select(orders).where(orders.c.id == request.order_id))).mappings().one_or_none()
    if row is None:
        return None
    if row["fingerprint"] != request.fingerprint:
        raise _key_reused()
    return Placed(order=row, replayed=True)


async def _total_cents(shop: Shop, lines: tuple[Line, ...]) -> int:
    total_cents = 0
    for line in lines:
        product = await product_json(shop, line.product_id)
        if product is None:
            raise Problem(422, "The order names a product that does not exist.", kind="unknown-product")
        total_cents += int(orjson.loads(product)["price_cents"]) * line.quantity
    return total_cents


async def _authorise(shop: Shop, order_id: str, total_cents: int) -> str:
    try:
        await shop.payments.authorise(order_id, total_cents)
    except PaymentUnavailableError as error:
        log.warning("payment_unavailable", reason=str(error))
        return "payment_pending"
    except PaymentDeclinedError:
        log.info("payment_declined", total_cents=total_cents)
        raise Problem(402, "The payment was declined.", kind="payment-declined") from None
    except PaymentConflictError:
        raise _key_reused() from None
    return "paid"


async def _commit(shop: Shop, order: dict[str, Any]) -> None:
    trace_context: dict[str, str] = {}
    propagate.inject(trace_context)
    async with shop.database.writing() as connection:
        await connection.execute(insert(orders).values(order))
        await connection.execute(
            insert(outbox).values(
                order_id=order["id"], trace_context=trace_context, created_us=order["created_us"], leased_until_us=0
            )
        )


def _key_reused() -> Problem:
    return Problem(
        422, "This Idempotency-Key was used for another order; take a new one.", kind="idempotency-key-reused"
    )
