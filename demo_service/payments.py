"""
The service that authorises payments: a stand-in for somebody else's.

It runs with `engine="contrib"`, so that every run of the demo shows both ways to make the server span.
"""

import asyncio
import hashlib
from collections import OrderedDict
from typing import Annotated, Final

from fastapi import FastAPI, Path
from pydantic import BaseModel, ConfigDict, Field

import obslib
from demo_service import faults as faults_module
from demo_service import metrics, problems
from demo_service.body_limit import BodyLimitLayer
from demo_service.capacity import DEFAULT, Capacity
from demo_service.config import Config
from demo_service.faults import FaultLayer, Faults
from demo_service.health import Health
from demo_service.problems import Problem

log = obslib.get_logger(__name__)

#: Orders above this are declined, so that the demo has declined payments.
LIMIT_CENTS: Final = 500_000
#: As many as the demo places in hours; the oldest are forgotten.
_REMEMBERED: Final = 100_000


class NewAuthorisation(BaseModel):
    """What is to be paid."""

    model_config = ConfigDict(extra="forbid")

    amount_cents: Annotated[int, Field(ge=1, le=100_000_000)]


class Authorisation(BaseModel):
    """Permission to take the money."""

    authorisation_id: str
    amount_cents: int


class Ledger:
    """What was authorised, in memory: the ids follow from the orders, so a restart changes no answer."""

    def __init__(self) -> None:
        self._amounts: OrderedDict[str, int] = OrderedDict()

    def authorise(self, order_id: str, amount_cents: int) -> str:
        """
        Return the authorisation of an order, the same one however often it is asked for.

        Raises:
            Problem: 402 over the limit, 409 for an order that is known with another amount.
        """
        if self._amounts.get(order_id, amount_cents) != amount_cents:
            raise Problem(409, "This order is authorised with another amount.", kind="amount-differs")
        if amount_cents > LIMIT_CENTS:
            raise Problem(402, "The amount is over the limit.", kind="over-limit")
        self._amounts[order_id] = amount_cents
        if len(self._amounts) > _REMEMBERED:
            self._amounts.popitem(last=False)
        return hashlib.sha256(f"authorisation:{order_id}".encode()).hexdigest()[:24]


def create_app(
    config: Config | None = None,
    *,
    settings: obslib.Settings | None = None,
    capacity: Capacity = DEFAULT,
    health: Health | None = None,
) -> FastAPI:
    """Return the payments service; what is not given is read from the environment."""
    config = config or Config.from_env()
    app = FastAPI(title="payments", docs_url=None, redoc_url=None)
    obs = obslib.instrument(
        app,
        settings
        or obslib.Settings.from_env(service_name="payments", engine="contrib", excluded_paths=("/healthz", "/readyz")),
    )
    app.state.obs = obs
    outcomes = obs.counter(metrics.AUTHORISATIONS, "Authorisations asked for.", labels=("outcome",))
    for outcome in ("authorised", "refused"):
        outcomes.labels(outcome)
    faults = Faults()
    ledger = Ledger()
    problems.install(app)
    app.include_router((health or Health()).router())
    if config.faults_token:
        app.include_router(faults_module.router(faults, config.faults_token))
    app.add_middleware(FaultLayer, faults=faults)
    app.add_middleware(BodyLimitLayer, limit_bytes=capacity.body_limit_bytes)

    @app.put("/v1/authorisations/{order_id}")
    async def authorise(
        order_id: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")], body: NewAuthorisation
    ) -> Authorisation:
        await asyncio.sleep(capacity.payment_seconds)
        try:
            authorisation_id = ledger.authorise(order_id, body.amount_cents)
        except Problem as problem:
            outcomes.labels("refused").inc()
            log.info("payment_refused", order_id=order_id, reason=problem.kind)
            raise
        outcomes.labels("authorised").inc()
        log.info("payment_authorised", order_id=order_id, amount_cents=body.amount_cents)
        return Authorisation(authorisation_id=authorisation_id, amount_cents=body.amount_cents)

    return app
