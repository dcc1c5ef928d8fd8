"""The names of recorded series, `level:metric:operations`; dashboards and the autoscaler read them by these."""

from typing import Final

# What a service does
REQUESTS: Final = "service:http_server_requests:rate5m"
ERRORS: Final = "service:http_server_request_errors:rate5m"
ERROR_RATIO: Final = "service:http_server_request_errors_per_http_server_requests:ratio_rate5m"
BUCKETS: Final = "service:http_server_request_duration_seconds_bucket:rate5m"
P50: Final = "service:http_server_request_duration_seconds:p50_5m"
P95: Final = "service:http_server_request_duration_seconds:p95_5m"
P99: Final = "service:http_server_request_duration_seconds:p99_5m"
UP: Final = "service:up:count"
IN_FLIGHT: Final = "service:http_server_active_requests:sum"
IN_FLIGHT_AVERAGE: Final = "service:http_server_active_requests:avg30s"
CPU: Final = "service:process_cpu:ratio_rate5m"
INSTANCE_REQUESTS: Final = "instance:http_server_requests:rate5m"
INSTANCE_ERRORS: Final = "instance:http_server_request_errors:rate5m"
INSTANCE_CPU: Final = "instance:process_cpu:cores_rate5m"
INSTANCE_CPU_USABLE: Final = "instance:process_cpu_usable:cores"
INSTANCE_MEMORY: Final = "instance:process_resident_memory_bytes:sum"
ROUTE_REQUESTS: Final = "route:http_server_requests:rate5m"
ROUTE_ERRORS: Final = "route:http_server_request_errors:rate5m"
ROUTE_BUCKETS: Final = "route:http_server_request_duration_seconds_bucket:rate5m"
OPERATION_BUCKETS: Final = "operation:db_client_operation_duration_seconds_bucket:rate5m"
PROBE_SUCCESS: Final = "service:probe_success:avg2m"

# What is promised
POLICY: Final = "service:policy:info"
OBJECTIVE: Final = "service:slo_objective:ratio"
ERROR_BUDGET: Final = "service:slo_error_budget:ratio"
BURN_LIMIT: Final = "service:slo_burn_limit:ratio"
PERIOD: Final = "service:slo_period:seconds"
LATENCY_BOUND: Final = "service:slo_latency_bound:seconds"
BUDGET_REMAINING: Final = "service:slo_error_budget_remaining:ratio"
PERIOD_EVENTS: Final = "service:slo_events:increase_period"


def slo_events(window: str) -> str:
    """Requests that count towards an objective."""
    return f"service:slo_events:increase{window}"


def slo_bad_events(window: str) -> str:
    """Those of them that break it."""
    return f"service:slo_bad_events:increase{window}"


def slo_bad_ratio(window: str) -> str:
    """The share that breaks it; no sample without events."""
    return f"service:slo_bad_events_per_slo_events:ratio{window}"


#: Which objective, and over which of the windows that alert.
LABEL_SLO: Final = "slo"
LABEL_WINDOW: Final = "window"

# How far to scale
SCALE_MIN: Final = "service:scale_min:replicas"
SCALE_MAX: Final = "service:scale_max:replicas"
SCALE_TARGET: Final = "service:scale_target:ratio"
SCALE_RUNNING: Final = "service:scale_running:replicas"
SCALE_DEMAND: Final = "service:scale_demand:replicas"
SCALE_REPORTING: Final = "service:scale_reporting:count"
SCALE_DEMAND_EXPECTED: Final = "service:scale_demand_expected:count"
SCALE_DEMAND_COMPLETE: Final = "service:scale_demand_complete:count"
SCALE_CPU_NEEDED: Final = "service:scale_cpu_needed:replicas"
SCALE_WANTED: Final = "service:scale_wanted:replicas"
SCALE_CHOSEN: Final = "service:scale_chosen:replicas"
SCALE_DESIRED: Final = "service:scale_desired:replicas"
