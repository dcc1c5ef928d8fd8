"""The schema, and the products every fresh database begins with."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

#: A row as SQLAlchemy gives it; its keys may be columns, too.
Row: TypeAlias = Mapping[Any, Any]

metadata: Final = MetaData()

products: Final = Table(
    "products",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(100), nullable=False),
    Column("category", String(40), nullable=False),
    Column("price_cents", Integer, nullable=False),
    Column("description", Text, nullable=False),
)

orders: Final = Table(
    "orders",
    metadata,
    Column("id", String(32), primary_key=True),
    #: Whose order it is: a digest of the API key, `""` without one.
    Column("client", String(32), nullable=False),
    Column("idempotency_key", String(255), nullable=False),
    #: Digest of what was ordered, to tell a repetition from another order under the same key.
    Column("fingerprint", String(64), nullable=False),
    Column("items", JSON, nullable=False),
    Column("total_cents", Integer, nullable=False),
    Column("status", String(20), nullable=False),
    #: The status the first answer gave, so that a repetition gives the same answer.
    Column("placed_status", String(20), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("client", "idempotency_key"),
    Index("orders_by_client", "client", "created_us", "id"),
    #: Who has ordered lately, without a look at all orders.
    Index("orders_by_time", "created_us", "client"),
)

outbox: Final = Table(
    "outbox",
    metadata,
    #: A row exists from the order's commit until its fulfilment's commit: the rows are the backlog.
    Column("order_id", String(32), ForeignKey("orders.id"), primary_key=True),
    #: W3C trace context of the request that placed the order.
    Column("trace_context", JSON, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    #: Until then the job counts as published; afterwards it is published again.
    Column("leased_until_us", BigInteger, nullable=False, default=0, index=True),
    Column("attempts", Integer, nullable=False, default=0),
)

fulfilments: Final = Table(
    "fulfilments",
    metadata,
    Column("order_id", String(32), ForeignKey("orders.id"), primary_key=True),
    Column("fulfilled_us", BigInteger, nullable=False),
)

_ADJECTIVES: Final = ("Plain", "Sturdy", "Light", "Quiet", "Bright", "Warm", "Round", "Tall", "Soft", "Swift")
_THINGS: Final = {
    "kitchen": ("kettle", "mug", "pan", "bowl"),
    "office": ("lamp", "chair", "notebook", "pen"),
    "garden": ("spade", "hose", "bench", "planter"),
    "travel": ("backpack", "bottle", "blanket", "torch"),
    "music": ("drum", "flute", "ukulele", "stand"),
}


def seed_products() -> list[dict[str, object]]:
    """Return the 200 products of a fresh shop: always the same."""
    rows: list[dict[str, object]] = []
    for category, things in _THINGS.items():
        for thing in things:
            for adjective in _ADJECTIVES:
                number = len(rows) + 1
                rows.append(
                    {
                        "id": number,
                        "name": f"{adjective} {thing}",
                        "category": category,
                        "price_cents": 490 + (number * 7919) % 9500,
                        "description": f"A {adjective.lower()} {thing} that does what a {thing} should.",
                    }
                )
    return rows
