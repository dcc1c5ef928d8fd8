"""
Every number about how much the demo can carry, and why.

The machine has two cores, shared by everything the demo starts. What decides is therefore the CPU a request costs and
the waiting it does not pay for:

- A replica has `slots` and each request holds one for `io_seconds` of pretended I/O, so a replica carries
  slots / io_seconds = 4 / 0.08 = 50 requests a second, whatever the machine. Requests beyond it wait inside the
  replica and count as in flight; nothing rejects them below `queue_limit`, because a rejected or hidden request is
  demand that no rule can see.
- The spike of 120 rps keeps 120 x 0.08 = 9.6 slots busy. One replica (4 slots) and two (8) saturate: their queue grows
  until the load generator's users all wait. Four (16 slots, 60 % busy) do not. With a target of 3 requests in flight
  a replica, ceil(9.6 / 3) = 4 is also what the scaling rule asks for, and stays: three would run at 80 %.
- Steady load, 25 rps, keeps 2 slots busy: two replicas at 25 %, and one is enough by the same rule.
- CPU, measured under the load's own mix (one order in ten, Redis for queue, cache and limits, no collector): a request
  costs a replica 4.2 ms with everything that follows from it, its relay included; an authorisation costs payments 2 ms,
  a job the worker 7.5 ms, a request Redis 0.2 ms. At the spike that is 0.5 core for all shop replicas together and 0.15
  for the others; the load generator, HAProxy, Prometheus and Jaeger fit in the rest of two cores, so that the slots
  saturate and the CPU does not. One replica under 80 rps carried 46.6, with 65 requests in flight.
- The worker's job takes `job_seconds` of pretended I/O: 1 / 0.05 = 20 jobs a second, above the spike's 12 orders.
- A load user sends `user_rps` and has an API key of its own, so the number of keys is the number of users; a key may
  send `requests_per_key` in `rate_window_seconds`, three times what a user sends.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What one replica carries and what the load generator sends; `DEFAULT` is the demo's."""

    #: Requests a replica works on at once; further ones wait inside it.
    slots: int = 4
    #: Pretended I/O of a request, while it holds its slot (+/- 25 %, evenly spread).
    io_seconds: float = 0.08
    #: Requests that may wait in a replica before it answers 503: far above what the spike's users can send at once.
    queue_limit: int = 2000
    #: What the scaling rule aims at: 75 % of the slots.
    in_flight_target: float = 3.0

    steady_rps: float = 25.0
    spike_rps: float = 120.0
    #: Steady load before a spike, and the spike itself; they alternate.
    spike_rest_seconds: float = 60.0
    spike_seconds: float = 90.0
    wave_low_rps: float = 10.0
    wave_high_rps: float = 90.0
    wave_period_seconds: float = 240.0
    #: What one load user sends; the number of users, and of API keys, follows from the rate.
    user_rps: float = 1.0

    requests_per_key: int = 180
    rate_window_seconds: int = 60

    #: Pretended I/O of one fulfilment job, and of one authorisation in payments.
    job_seconds: float = 0.05
    payment_seconds: float = 0.02

    body_limit_bytes: int = 64 * 1024
    #: Database connections a replica may open; requests hold one only for their statements.
    database_connections: int = 5


DEFAULT: Final = Capacity()
