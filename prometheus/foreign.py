"""Metrics that other programs expose, as they spell them; obslib's own are in `obslib.names`."""

from typing import Final

# Prometheus, about what it scrapes and about itself
UP: Final = "up"
SCRAPE_DURATION: Final = "scrape_duration_seconds"
SCRAPE_SAMPLES: Final = "scrape_samples_post_metric_relabeling"
HEAD_SERIES: Final = "prometheus_tsdb_head_series"
HEAD_SERIES_CREATED: Final = "prometheus_tsdb_head_series_created_total"
EXEMPLARS_STORED: Final = "prometheus_tsdb_exemplar_exemplars_in_storage"
EXEMPLAR_SERIES: Final = "prometheus_tsdb_exemplar_series_with_exemplars_in_storage"
RULE_GROUP_DURATION: Final = "prometheus_rule_group_last_duration_seconds"
RULE_GROUP_INTERVAL: Final = "prometheus_rule_group_interval_seconds"
RULE_FAILURES: Final = "prometheus_rule_evaluation_failures_total"
RULE_ITERATIONS_MISSED: Final = "prometheus_rule_group_iterations_missed_total"
LABEL_RULE_GROUP: Final = "rule_group"
CONFIG_RELOADED: Final = "prometheus_config_last_reload_successful"
CONFIG_LOADED_AT: Final = "prometheus_config_last_reload_success_timestamp_seconds"
ALERTMANAGERS: Final = "prometheus_notifications_alertmanagers_discovered"
NOTIFICATIONS_DROPPED: Final = "prometheus_notifications_dropped_total"
ALERTS: Final = "ALERTS"
LABEL_ALERT: Final = "alertname"
LABEL_SEVERITY: Final = "severity"
FIRING: Final = 'alertstate="firing"'

# Alertmanager
NOTIFICATIONS_SENT: Final = "alertmanager_notifications_total"
NOTIFICATIONS_FAILED: Final = "alertmanager_notifications_failed_total"
ALERTMANAGER_CONFIG_RELOADED: Final = "alertmanager_config_last_reload_successful"
LABEL_INTEGRATION: Final = "integration"

# prometheus_client, about the process it runs in
PROCESS_CPU: Final = "process_cpu_seconds_total"
PROCESS_MEMORY: Final = "process_resident_memory_bytes"
PROCESS_START: Final = "process_start_time_seconds"
PROCESS_OPEN_FDS: Final = "process_open_fds"
PROCESS_MAX_FDS: Final = "process_max_fds"
GC_COLLECTIONS: Final = "python_gc_collections_total"
GC_UNCOLLECTABLE: Final = "python_gc_objects_uncollectable_total"
LABEL_GENERATION: Final = "generation"

# HAProxy's own exporter
HAPROXY_FRONTEND_RESPONSES: Final = "haproxy_frontend_http_responses_total"
HAPROXY_BACKEND_QUEUE: Final = "haproxy_backend_current_queue"
LABEL_PROXY: Final = "proxy"

# Jaeger 2, which is an OpenTelemetry collector
RECEIVED_SPANS: Final = "otelcol_receiver_accepted_spans_total"
REFUSED_SPANS: Final = "otelcol_receiver_refused_spans_total"
SENT_SPANS: Final = "otelcol_exporter_sent_spans_total"
SEND_FAILED_SPANS: Final = "otelcol_exporter_send_failed_spans_total"

#: A probe's result, spelled as blackbox_exporter spells it; its target has the label `PROBED`, the service it asks for.
PROBE_SUCCESS: Final = "probe_success"
LABEL_PROBED: Final = "probed"

# The autoscaler, about each service that it scales, by the label `service`
AUTOSCALER_REPLICAS: Final = "autoscaler_running_replicas"
AUTOSCALER_DESIRED: Final = "autoscaler_desired_replicas"
AUTOSCALER_DECISIONS: Final = "autoscaler_decisions_total"
AUTOSCALER_REACTION: Final = "autoscaler_reaction_duration_seconds"
AUTOSCALER_WAKES: Final = "autoscaler_wakes_total"
AUTOSCALER_ACTUATOR_FAILURES: Final = "autoscaler_actuator_failures_total"
# ... and about itself
AUTOSCALER_REJECTED: Final = "autoscaler_rejected_webhooks_total"
AUTOSCALER_PROMETHEUS_FAILURES: Final = "autoscaler_prometheus_failures_total"
LABEL_DIRECTION: Final = "direction"
LABEL_REASON: Final = "reason"
LABEL_PATH: Final = "path"

# kube-state-metrics, who knows how many replicas there are to be
KUBE_REPLICAS: Final = "kube_deployment_status_replicas"
LABEL_DEPLOYMENT: Final = "deployment"
