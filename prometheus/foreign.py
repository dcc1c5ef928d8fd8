"""Metrics that other programs expose, as they spell them; obslib's own are in `obslib.names`."""

from typing import Final

# Prometheus, about what it scrapes and about itself
UP: Final = "up"
SCRAPE_DURATION: Final = "scrape_duration_seconds"
SCRAPE_SAMPLES: Final = "scrape_samples_post_metric_relabeling"
HEAD_SERIES: Final = "prometheus_tsdb_head_series"
RULE_FAILURES: Final = "prometheus_rule_evaluation_failures_total"
RULE_ITERATIONS_MISSED: Final = "prometheus_rule_group_iterations_missed_total"
CONFIG_RELOADED: Final = "prometheus_config_last_reload_successful"
ALERTMANAGERS: Final = "prometheus_notifications_alertmanagers_discovered"
NOTIFICATIONS_DROPPED: Final = "prometheus_notifications_dropped_total"
ALERTS: Final = "ALERTS"

# Alertmanager
NOTIFICATIONS_FAILED: Final = "alertmanager_notifications_failed_total"

# prometheus_client, about the process it runs in
PROCESS_CPU: Final = "process_cpu_seconds_total"
PROCESS_MEMORY: Final = "process_resident_memory_bytes"
PROCESS_START: Final = "process_start_time_seconds"
PROCESS_OPEN_FDS: Final = "process_open_fds"
PROCESS_MAX_FDS: Final = "process_max_fds"

# HAProxy's own exporter
HAPROXY_FRONTEND_RESPONSES: Final = "haproxy_frontend_http_responses_total"
HAPROXY_BACKEND_QUEUE: Final = "haproxy_backend_current_queue"

#: A probe's result, spelled as blackbox_exporter spells it; its target has the label `PROBED`, the service it asks for.
PROBE_SUCCESS: Final = "probe_success"
LABEL_PROBED: Final = "probed"

# Who knows how many replicas there are to be: our autoscaler, by the label `service`, and kube-state-metrics
AUTOSCALER_REPLICAS: Final = "autoscaler_running_replicas"
KUBE_REPLICAS: Final = "kube_deployment_status_replicas"
LABEL_DEPLOYMENT: Final = "deployment"
