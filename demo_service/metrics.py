"""
What the business wants to know, as metrics. Every label has a small, known set of values.

Each value has its series from the start: one that is born with its first event reads as an increase of 0.
"""

from typing import Final

import obslib

ORDERS: Final = "shop_orders_total"
REVENUE: Final = "shop_revenue_euros_total"
PAYMENT_FAILURES: Final = "shop_payment_failures_total"
RATE_LIMITED: Final = "shop_rate_limited_requests_total"
RATE_LIMIT_ERRORS: Final = "shop_rate_limit_store_errors_total"
CACHE_LOOKUPS: Final = "shop_cache_lookups_total"
OVERLOADED: Final = "shop_overloaded_requests_total"
BACKLOG: Final = "shop_outbox_backlog_jobs"
ACTIVE_CUSTOMERS: Final = "shop_active_customers"
PUBLISHED: Final = "shop_outbox_published_jobs_total"
JOBS: Final = "shop_jobs_total"
JOB_DURATION: Final = "shop_job_duration_seconds"
AUTHORISATIONS: Final = "payments_authorisations_total"
SLOTS: Final = "shop_slots"
SLOTS_BUSY: Final = "shop_slots_busy"


class PaymentMetrics:
    """What came of asking payments: the shop asks, and where it got no answer the worker does."""

    def __init__(self, obs: obslib.Observability) -> None:
        self.revenue = obs.counter(REVENUE, "Euros of orders whose payment was authorised.")
        self._failures = obs.counter(
            PAYMENT_FAILURES, "Calls to payments that gave no authorisation.", labels=("reason",)
        )
        for reason in ("unavailable", "circuit_open", "declined", "conflict"):
            self._failures.labels(reason)

    def failed(self, reason: str) -> None:
        """Count a call that gave no authorisation."""
        self._failures.labels(reason).inc()


class ShopMetrics:
    """The shop's own series, one set for each instrumented application."""

    def __init__(self, obs: obslib.Observability) -> None:
        self.orders = obs.counter(ORDERS, "Orders accepted, by the status they were accepted with.", labels=("status",))
        self.payment = PaymentMetrics(obs)
        self.rate_limited = obs.counter(RATE_LIMITED, "Requests answered 429.")
        self.rate_limit_errors = obs.counter(
            RATE_LIMIT_ERRORS, "Requests let through because the rate limit's store was away."
        )
        self.cache_lookups = obs.counter(CACHE_LOOKUPS, "Lookups in the cache.", labels=("result",))
        self.overloaded = obs.counter(OVERLOADED, "Requests answered 503 because too many were waiting already.")
        self.backlog = obs.gauge(BACKLOG, "Orders accepted and not yet fulfilled; NaN while the database is away.")
        self.active_customers = obs.gauge(
            ACTIVE_CUSTOMERS, "Customers who have ordered in the last five minutes; NaN while the database is away."
        )
        self.published = obs.counter(PUBLISHED, "Fulfilment jobs handed to the broker.", labels=("outcome",))
        self.slots = obs.gauge(SLOTS, "Requests this replica works on at once.")
        self.slots_busy = obs.gauge(SLOTS_BUSY, "Requests this replica is working on.")
        for status in ("paid", "payment_pending"):
            self.orders.labels(status)
        for result in ("hit", "miss", "error"):
            self.cache_lookups.labels(result)
        for outcome in ("published", "failed"):
            self.published.labels(outcome)


class WorkerMetrics:
    """The worker's own series."""

    def __init__(self, obs: obslib.Observability) -> None:
        self.jobs = obs.counter(JOBS, "Fulfilment jobs finished, by outcome.", labels=("outcome",))
        self.job_duration = obs.histogram(JOB_DURATION, "Seconds a fulfilment job took.")
        self.payment = PaymentMetrics(obs)
        for outcome in ("fulfilled", "duplicate", "declined", "postponed", "unknown", "failed"):
            self.jobs.labels(outcome)
