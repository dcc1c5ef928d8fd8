"""The way to payments: a timeout, retries with jitter, and a circuit breaker around each attempt."""

from collections.abc import Callable
from typing import Final

import httpx
import stamina
from cashews import Cache
from cashews.exceptions import CircuitBreakerOpen

import obslib
from demo_service.faults import Faults

log = obslib.get_logger(__name__)

_TIMEOUT: Final = httpx.Timeout(1.0, connect=0.5)
_LIMITS: Final = httpx.Limits(max_connections=20, max_keepalive_connections=20)
_ATTEMPTS: Final = 3
#: For all attempts together: an order keeps its slot that long, at most.
_ALL_ATTEMPTS_SECONDS: Final = 2.0

# The breaker opens when half of at least five attempts in ten seconds failed, and lets every second call try after
# five seconds.
_BREAKER_ERRORS_PERCENT: Final = 50
_BREAKER_PERIOD_SECONDS: Final = 10
_BREAKER_MIN_CALLS: Final = 5
_BREAKER_OPEN_SECONDS: Final = 5


class PaymentUnavailableError(Exception):
    """Payments gave no answer; asking again later is safe."""


class PaymentDeclinedError(Exception):
    """Payments said no; asking again gives the same answer."""


class PaymentConflictError(Exception):
    """Payments already authorised another amount for this order."""


class _AttemptFailedError(Exception):
    """One attempt failed in a way that may pass."""


class PaymentsClient:
    """
    Asks payments to authorise orders; one for each event loop.

    Args:
        url: Where payments listens.
        failed: Told the reason of each call without an authorisation.
        faults: May tell it to fail.
        transport: Another way to payments than the network, e.g. the application itself.
    """

    def __init__(
        self,
        url: str,
        *,
        failed: Callable[[str], None],
        faults: Faults,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT, limits=_LIMITS, transport=transport)
        self._failed = failed
        self._faults = faults
        # In this process' memory: a breaker that needs Redis would be one more thing that can fail.
        self._breaker = Cache()
        self._breaker.setup("mem://")
        self._attempt = self._breaker.circuit_breaker(
            errors_rate=_BREAKER_ERRORS_PERCENT,
            period=_BREAKER_PERIOD_SECONDS,
            ttl=_BREAKER_OPEN_SECONDS,
            half_open_ttl=_BREAKER_OPEN_SECONDS,
            min_calls=_BREAKER_MIN_CALLS,
            exceptions=_AttemptFailedError,
            key="payments",
        )(self._request)

    async def authorise(self, order_id: str, amount_cents: int) -> str:
        """
        Return the authorisation of an order; asking twice gives the same one.

        Raises:
            PaymentUnavailableError: No answer, or the breaker is open.
            PaymentDeclinedError: The answer is no.
            PaymentConflictError: The order is known with another amount.
        """
        try:
            return await self._with_retries(order_id, amount_cents)
        except CircuitBreakerOpen:
            self._failed("circuit_open")
            raise PaymentUnavailableError("the circuit breaker is open") from None
        except _AttemptFailedError as error:
            self._failed("unavailable")
            raise PaymentUnavailableError(str(error)) from error
        except PaymentDeclinedError:
            self._failed("declined")
            raise
        except PaymentConflictError:
            self._failed("conflict")
            raise

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        await self._breaker.close()

    async def _with_retries(self, order_id: str, amount_cents: int) -> str:
        async for attempt in stamina.retry_context(
            on=_AttemptFailedError,
            attempts=_ATTEMPTS,
            timeout=_ALL_ATTEMPTS_SECONDS,
            wait_initial=0.05,
            wait_max=0.4,
            wait_jitter=0.1,
        ):
            with attempt:
                authorisation: str = await self._attempt(order_id, amount_cents)
                return authorisation
        raise AssertionError("stamina either returns or raises")

    async def _request(self, order_id: str, amount_cents: int) -> str:
        try:
            self._faults.check("payments")
            response = await self._http.put(f"/v1/authorisations/{order_id}", json={"amount_cents": amount_cents})
        except (httpx.TransportError, OSError) as error:
            raise _AttemptFailedError(repr(error)) from error
        if response.status_code == 200:
            return str(response.json()["authorisation_id"])
        if response.status_code == 402:
            raise PaymentDeclinedError
        if response.status_code == 409:
            raise PaymentConflictError
        raise _AttemptFailedError(f"payments answered {response.status_code}")
