"""The contract: every metric, label, log-key and span-attribute name that obslib emits, with its unit and buckets.

Dashboards, rules and tests import these instead of typing them. Names follow OpenTelemetry's semantic conventions
(HTTP, database, resource: version 1.44, https://opentelemetry.io/docs/specs/semconv/) and, for metrics, Prometheus'
spelling of them (https://prometheus.io/docs/practices/naming/): dots become underscores, units are base units.
Only the standard library is imported here.
"""

from typing import Final

# Metrics: requests that a server answers
HTTP_SERVER_REQUEST_DURATION: Final = "http_server_request_duration_seconds"
HTTP_SERVER_ACTIVE_REQUESTS: Final = "http_server_active_requests"
HTTP_SERVER_TIME_TO_FIRST_BYTE: Final = "http_server_time_to_first_byte_seconds"
HTTP_SERVER_REQUEST_BODY_SIZE: Final = "http_server_request_body_size_bytes"
HTTP_SERVER_RESPONSE_BODY_SIZE: Final = "http_server_response_body_size_bytes"

# Metrics: work that is left for after the response
BACKGROUND_TASK_DURATION: Final = "background_task_duration_seconds"

# Metrics: calls that a service makes, and the connections it makes them through
HTTP_CLIENT_REQUEST_DURATION: Final = "http_client_request_duration_seconds"
DB_CLIENT_OPERATION_DURATION: Final = "db_client_operation_duration_seconds"
#: The conventions say db.client.connection.count; to Prometheus a name in _count is part of a histogram.
DB_CLIENT_CONNECTIONS: Final = "db_client_connections"
DB_CLIENT_CONNECTION_MAX: Final = "db_client_connection_max"
DB_CLIENT_CONNECTION_PENDING_REQUESTS: Final = "db_client_connection_pending_requests"
DB_CLIENT_CONNECTION_WAIT_TIME: Final = "db_client_connection_wait_time_seconds"

# Metrics: the process
ASYNCIO_EVENT_LOOP_LAG: Final = "asyncio_event_loop_lag_seconds"
ANYIO_THREAD_LIMITER_BORROWED: Final = "anyio_thread_limiter_borrowed_tokens"
ANYIO_THREAD_LIMITER_MAX: Final = "anyio_thread_limiter_max_tokens"
ANYIO_THREAD_LIMITER_WAITING: Final = "anyio_thread_limiter_waiting_tasks"
CPYTHON_GC_PAUSE_DURATION: Final = "cpython_gc_pause_duration_seconds"
PROCESS_CPU_LIMIT: Final = "process_cpu_limit_cores"
PROCESS_MEMORY_LIMIT: Final = "process_memory_limit_bytes"

# Metrics: WebSockets, for which the semantic conventions have none; the names follow theirs for HTTP
WEBSOCKET_SERVER_ACTIVE_CONNECTIONS: Final = "websocket_server_active_connections"
WEBSOCKET_SERVER_MESSAGES: Final = "websocket_server_messages_total"
WEBSOCKET_SERVER_CONNECTION_DURATION: Final = "websocket_server_connection_duration_seconds"

# Metrics: obslib about itself
BUILD_INFO: Final = "obslib_build_info"
TARGET_INFO: Final = "target_info"
SPANS_DROPPED: Final = "obslib_spans_dropped_total"
SPANS_EXPORTED: Final = "obslib_spans_exported_total"
LOG_LINES_DROPPED: Final = "obslib_log_lines_dropped_total"
INTERNAL_ERRORS: Final = "obslib_internal_errors_total"
LABEL_SETS_OVERFLOWED: Final = "obslib_label_sets_overflowed_total"
# Metrics: obslib about the worker processes of one service
WORKER_ANSWERS_MISSED: Final = "obslib_worker_answers_missed_total"
WORKER_SNAPSHOTS_REJECTED: Final = "obslib_worker_snapshots_rejected_total"

# Labels
LABEL_METHOD: Final = "http_request_method"
LABEL_ROUTE: Final = "http_route"
LABEL_STATUS_CODE: Final = "http_response_status_code"
LABEL_SCHEME: Final = "url_scheme"
LABEL_ERROR_TYPE: Final = "error_type"
LABEL_SERVER_ADDRESS: Final = "server_address"
LABEL_DB_SYSTEM: Final = "db_system_name"
LABEL_DB_OPERATION: Final = "db_operation_name"
LABEL_POOL: Final = "db_client_connection_pool_name"
LABEL_CONNECTION_STATE: Final = "db_client_connection_state"
LABEL_GC_GENERATION: Final = "cpython_gc_generation"
LABEL_CLOSE_CODE: Final = "websocket_close_code"
#: The semantic conventions' `network.io.direction`.
LABEL_DIRECTION: Final = "network_io_direction"
LABEL_WORKER: Final = "worker"
LABEL_REASON: Final = "reason"
LABEL_SIGNAL: Final = "signal"
LABEL_METRIC: Final = "metric"
#: The name of a function; log lines about a task spell it like this, too.
LABEL_FUNCTION: Final = "code_function_name"
#: Attached by Prometheus' relabelling, never by the library.
LABEL_SERVICE: Final = "service"
LABEL_INSTANCE: Final = "instance"
#: Of Kubernetes; absent elsewhere. Together with `service` it tells a service from every other one.
LABEL_NAMESPACE: Final = "namespace"

#: The value a bounded label takes when the observed one is not known or the budget is spent.
OTHER: Final = "_OTHER"

#: The request methods that become label values (RFC 9110, RFC 5789 and QUERY); any other one is `OTHER`.
KNOWN_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)

#: Values of `error_type` beside the 5xx codes.
ERROR_CLIENT_DISCONNECT: Final = "client_disconnect"
ERROR_INCOMPLETE_RESPONSE: Final = "incomplete_response"
#: Values of `error_type` of background tasks and WebSockets: what was raised stands on the span and in the log.
ERROR_EXCEPTION: Final = "exception"
ERROR_CANCELLED: Final = "cancelled"

#: Values of `db_client_connection_state`.
CONNECTION_USED: Final = "used"
CONNECTION_IDLE: Final = "idle"

#: Upper bounds in seconds. The semantic conventions' advice for HTTP durations, which is prometheus_client's default.
DURATION_BUCKETS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
#: Upper bounds in seconds for work that nobody waits for.
BACKGROUND_BUCKETS_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
#: Upper bounds in seconds of calls to databases, as the semantic conventions advise.
DB_DURATION_BUCKETS_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
#: Upper bounds in seconds of how late an event loop is: a loop without trouble is in the first.
LAG_BUCKETS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Upper bounds in seconds of garbage collections: the youngest generation's take microseconds.
GC_BUCKETS_SECONDS: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
#: Upper bounds in bytes: powers of four from 64 B to 16 MiB.
BODY_SIZE_BUCKETS_BYTES: Final = tuple(float(4**power) for power in range(3, 13))

#: Upper bounds in seconds for connections, which live for an instant or for a day.
CONNECTION_BUCKETS_SECONDS: Final = (
    0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0
)  # fmt: skip

#: What stands where the methods of requests stand: the beginning of a span's name.
METHOD_WEBSOCKET: Final = "WS"
#: Values of `LABEL_DIRECTION`, as the service sees it.
DIRECTION_RECEIVE: Final = "receive"
DIRECTION_TRANSMIT: Final = "transmit"
#: The close codes that become label values whoever sends them (RFC 6455 and what IANA has registered since).
#: Any other one does if the application sends it; of a client's it is `OTHER`.
KNOWN_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1005, 1016), 3000, 3003, 3008})
#: Those with which an application says that it has failed, as it would by a 5xx: internal error, try again later,
#: bad gateway. As an `error_type` they are spelled as they are.
FAILURE_CLOSE_CODES: Final = frozenset({1011, 1013, 1014})

# Exemplar labels: together below OpenMetrics' limit of 128 characters
EXEMPLAR_TRACE_ID: Final = "trace_id"
EXEMPLAR_SPAN_ID: Final = "span_id"

# Log keys: what every line has
LOG_TIMESTAMP: Final = "timestamp"
LOG_LEVEL: Final = "level"
LOG_EVENT: Final = "event"
LOG_LOGGER: Final = "logger"
LOG_SERVICE: Final = "service"
LOG_TRACE_ID: Final = "trace_id"
LOG_SPAN_ID: Final = "span_id"
LOG_REQUEST_ID: Final = "request_id"
# Log keys: what a line about an exception has
LOG_EXCEPTION_TYPE: Final = "exception_type"
LOG_EXCEPTION_MESSAGE: Final = "exception_message"
LOG_EXCEPTION_STACKTRACE: Final = "exception_stacktrace"
# Log keys: what the access line has; method, route, status, scheme and error type are spelled as the labels are
LOG_URL_PATH: Final = "url_path"
LOG_CLIENT_ADDRESS: Final = "client_address"
LOG_USER_AGENT: Final = "user_agent_original"
LOG_DURATION: Final = "duration_seconds"
LOG_TIME_TO_FIRST_BYTE: Final = "time_to_first_byte_seconds"
LOG_REQUEST_BODY_SIZE: Final = "http_request_body_size_bytes"
LOG_RESPONSE_BODY_SIZE: Final = "http_response_body_size_bytes"
# Log keys: what the access line of a WebSocket has instead of method and body sizes
LOG_CLOSE_CODE: Final = LABEL_CLOSE_CODE
LOG_MESSAGES_RECEIVED: Final = "websocket_messages_received"
LOG_MESSAGES_SENT: Final = "websocket_messages_sent"
LOG_RECEIVED_BYTES: Final = "websocket_received_bytes"
LOG_SENT_BYTES: Final = "websocket_sent_bytes"
#: `event` of the access lines, and the logger they name.
ACCESS_EVENT: Final = "http_request"
WEBSOCKET_ACCESS_EVENT: Final = "websocket_connection"
ACCESS_LOGGER: Final = "obslib.access"
#: `event` of the line about a background task that has raised, and the logger it names.
BACKGROUND_FAILED_EVENT: Final = "background_task_failed"
BACKGROUND_LOGGER: Final = "obslib.background"

# Span attributes
ATTR_METHOD: Final = "http.request.method"
ATTR_METHOD_ORIGINAL: Final = "http.request.method_original"
ATTR_ROUTE: Final = "http.route"
ATTR_STATUS_CODE: Final = "http.response.status_code"
ATTR_REQUEST_BODY_SIZE: Final = "http.request.body.size"
ATTR_RESPONSE_BODY_SIZE: Final = "http.response.body.size"
ATTR_ERROR_TYPE: Final = "error.type"
ATTR_URL_PATH: Final = "url.path"
ATTR_URL_QUERY: Final = "url.query"
ATTR_URL_SCHEME: Final = "url.scheme"
ATTR_SERVER_ADDRESS: Final = "server.address"
ATTR_SERVER_PORT: Final = "server.port"
ATTR_CLIENT_ADDRESS: Final = "client.address"
ATTR_USER_AGENT: Final = "user_agent.original"
ATTR_PROTOCOL_NAME: Final = "network.protocol.name"
#: The value of `ATTR_PROTOCOL_NAME` of a connection's span.
PROTOCOL_WEBSOCKET: Final = "websocket"
ATTR_CLOSE_CODE: Final = "obslib.websocket.close_code"
ATTR_MESSAGES_RECEIVED: Final = "obslib.websocket.messages_received"
ATTR_MESSAGES_SENT: Final = "obslib.websocket.messages_sent"
ATTR_RECEIVED_BYTES: Final = "obslib.websocket.received_bytes"
ATTR_SENT_BYTES: Final = "obslib.websocket.sent_bytes"
ATTR_PROTOCOL_VERSION: Final = "network.protocol.version"
#: Of a response that is sent in several pieces, in seconds.
ATTR_TIME_TO_FIRST_BYTE: Final = "obslib.time_to_first_byte"
#: Whether the span was kept at its end, because the request failed or was slow.
ATTR_KEPT_LATE: Final = "obslib.kept_late"
ATTR_CODE_FUNCTION_NAME: Final = "code.function.name"
#: Followed by the lower-case name of the request-id header; the value is a list with one element.
ATTR_RESPONSE_HEADER_PREFIX: Final = "http.response.header."

# Resource attributes
RESOURCE_SERVICE_NAME: Final = "service.name"
RESOURCE_SERVICE_VERSION: Final = "service.version"
RESOURCE_SERVICE_NAMESPACE: Final = "service.namespace"
RESOURCE_SERVICE_INSTANCE_ID: Final = "service.instance.id"
RESOURCE_DEPLOYMENT_ENVIRONMENT: Final = "deployment.environment.name"
RESOURCE_SDK_LANGUAGE: Final = "telemetry.sdk.language"
RESOURCE_SDK_NAME: Final = "telemetry.sdk.name"
RESOURCE_SDK_VERSION: Final = "telemetry.sdk.version"

#: Reasons on `SPANS_DROPPED`.
DROPPED_QUEUE_FULL: Final = "queue_full"
DROPPED_EXPORT_FAILED: Final = "export_failed"
DROPPED_REJECTED: Final = "rejected"
DROPPED_TOO_LARGE: Final = "too_large"
DROPPED_SHUTDOWN: Final = "shutdown"
DROPPED_ENCODING_FAILED: Final = "encoding_failed"
#: Reasons on `LOG_LINES_DROPPED`.
DROPPED_BUFFER_FULL: Final = "buffer_full"
DROPPED_WRITE_FAILED: Final = "write_failed"
