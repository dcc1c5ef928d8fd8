"""
From where on a number is red.

What is promised about one service comes from recorded series and is drawn as a line. Here stands what holds for every
service, the same as in the alerts, and what the policy says of Prometheus itself.
"""

from pathlib import Path
from typing import Final

from prometheus.policy import Server
from prometheus.read_policy import read

# The alerts' own numbers
EVENT_LOOP_LAG_SECONDS: Final = 0.1
OPEN_FDS_SHARE: Final = 0.8
CPU_SHARE: Final = 0.9
IN_FLIGHT_TIMES_TARGET: Final = 2
DEPENDENCY_ERROR_SHARE: Final = 0.1
REPLICA_ERROR_SHARE: Final = 0.05
EDGE_DIFFERENCE_SHARE: Final = 0.02
PROBE_SUCCESS_SHARE: Final = 0.5
REPLICA_TURNS: Final = 3
SCRAPE_SHARE: Final = 0.8

# Without an alert of their own
MEMORY_SHARE: Final = 0.8
LOAD_SKEW: Final = 2
PAYMENT_FAILURE_SHARE: Final = 0.1
GC_SHARE: Final = 0.05


def server(path: Path = Path(__file__).parents[1] / "prometheus" / "policy.yml") -> Server:
    """How Prometheus scrapes: its interval is what `$__rate_interval` is made of."""
    return read(path).server
