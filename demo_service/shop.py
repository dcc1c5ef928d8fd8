"""What one shop replica works with, created once and handed to every route."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from demo_service.cache import Cache
from demo_service.database import Database
from demo_service.metrics import ShopMetrics
from demo_service.payments_client import PaymentsClient


@dataclass(frozen=True, kw_only=True)
class Shop:
    """The resources of one replica."""

    database: Database
    cache: Cache
    payments: PaymentsClient
    metrics: ShopMetrics
    #: Tells the relay that an order was committed.
    wake_relay: Callable[[], None]


def shop_of(request: Request) -> Shop:
    """Return the resources behind a request."""
    shop = request.app.state.shop
    assert isinstance(shop, Shop)
    return shop
