"""What a service can choose. Nothing here reads the environment but `Settings.from_env`, once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from obslib._environment import RANGES, SAMPLERS, is_url, read
from obslib.exceptions import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

#: Keys whose values never leave the process, in lines, headers, query strings and URLs. Neither case matters, nor what
#: stands between words: `X-API-Key`, `apiKey`, `user.api_key` are `api_key`, as is what ends in `_` and one of these.
REDACTED_KEYS: Final = frozenset(
    {
        "access_key", "access_key_id", "access_token", "api_key", "authorization", "client_secret", "cookie", "cookies",
        "credential", "credentials", "csrf_token", "encryption_key", "id_token", "jwt", "passphrase", "passwd",
        "password", "passwords", "private_key", "proxy_authorization", "pwd", "refresh_token", "secret", "secret_key",
        "secrets", "session", "session_id", "set_cookie", "sig", "signature", "signing_key", "token",
    }
)  # fmt: skip

LEVELS: Final = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
UNKNOWN_SERVICE: Final = "unknown_service"
#: What a text may be, where it is one of few.
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "engine": ("obslib", "contrib"),
    "log_format": ("json", "console", "auto"),
    "logs_overflow": ("drop", "block"),
    "otlp_compression": ("gzip", "none"),
    "traces_exporter": ("otlp", "none"),
    "log_level": tuple(LEVELS),
    "traces_sampler": tuple(sorted(SAMPLERS)),
}


def _default_registries() -> "tuple[CollectorRegistry, ...]":
    from prometheus_client import REGISTRY  # noqa: PLC0415 -- not before somebody makes settings

    return (REGISTRY,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    The choices of one service. Frozen, keyword-only; equal settings are interchangeable.

    `Settings(...)` uses what it is given and nothing else; `Settings.from_env()` reads `OTEL_*` and `OBSLIB_*`, too.

    Raises:
        ConfigurationError: A value, or a combination of values, cannot work; the sentence says what to write instead.
    """

    #: Who emits the telemetry: `service.name`, `service.version` and whatever else describes the process.
    service_name: str = UNKNOWN_SERVICE
    service_version: str = ""
    #: Further resource attributes, e.g. `{"deployment.environment.name": "production"}`.
    resource_attributes: Mapping[str, str] = field(default_factory=dict)

    metrics_enabled: bool = True
    logs_enabled: bool = True
    traces_enabled: bool = True
    #: Who makes the server span: obslib, in one pass with the other signals, or opentelemetry-instrumentation-fastapi.
    engine: Literal["obslib", "contrib"] = "obslib"
    #: Paths that leave no trace in any signal: exact ones, or prefixes that end in `/*`.
    excluded_paths: tuple[str, ...] = ()
    #: Libraries whose calls are counted, and traced where their opentelemetry-instrumentation package is installed.
    instrumentations: tuple[str, ...] = ("httpx", "sqlalchemy", "redis", "celery")

    #: The event loop's lag, threads, garbage collections, and the limits of processor and memory.
    runtime_metrics_enabled: bool = True
    #: Where the service's own port answers Prometheus; `""` to answer nowhere.
    metrics_path: str = "/metrics"
    #: Serve the metrics on a port of their own (1–65535), and no longer on the service's.
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    #: When set, `/metrics` demands `Authorization: Bearer <token>`.
    metrics_token: str | None = field(default=None, repr=False)
    #: Registries of prometheus_client that `/metrics` serves beside obslib's own.
    extra_registries: "tuple[CollectorRegistry, ...]" = field(default_factory=_default_registries)
    #: Label sets a metric may have (1–100,000); further ones are counted together with every label `_OTHER`.
    max_label_sets: int = 2000

    #: Makes the children of one parent the workers of one service; uvicorn's and gunicorn's are without it.
    worker_group: str = ""
    #: Where workers meet, and no other user can write (`None`: a private directory among the temporary files).
    worker_directory: str | None = None

    log_level: str = "INFO"
    #: One JSON object a line, lines for people, or people's only where stdout is a terminal.
    log_format: Literal["json", "console", "auto"] = "auto"
    access_log: bool = True
    #: Bytes of rendered lines that may wait for stdout (64 KiB–1 GiB).
    log_buffer_bytes: int = 8 * 1024 * 1024
    #: What happens beyond that: lines are dropped and counted, or the caller waits.
    logs_overflow: Literal["drop", "block"] = "drop"
    log_flush_interval_seconds: float = 0.2
    redacted_keys: frozenset[str] = REDACTED_KEYS

    #: The request id is read from this header, if valid, and set on every response that has none.
    request_id_header: str = "x-request-id"
    #: Continue the caller's trace (`True`), or start one of our own that links to it.
    trust_incoming_context: bool = True
    #: W3C and other propagators by their `OTEL_PROPAGATORS` names.
    propagators: tuple[str, ...] = ("tracecontext", "baggage")
    #: As `OTEL_TRACES_SAMPLER`; the ratio (0–1) is for the samplers that take one.
    traces_sampler: str = "parentbased_always_on"
    traces_sampler_ratio: float = 1.0
    #: Send the server span of a request that failed, though its trace was not drawn.
    traces_keep_errors: bool = False
    #: The same of a request that took longer than this many seconds; None for none.
    traces_keep_slower_than_seconds: float | None = None
    #: Make obslib's tracer provider the global one where none is set.
    global_tracer_provider: bool = True
    #: `otlp`, or `none` to keep ids and exemplars but send nothing.
    traces_exporter: Literal["otlp", "none"] = "otlp"
    #: The full URL that takes `ExportTraceServiceRequest`s.
    otlp_traces_endpoint: str = "http://localhost:4318/v1/traces"
    otlp_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: For a batch, with all its retries.
    otlp_timeout_seconds: float = 10.0
    otlp_compression: Literal["gzip", "none"] = "none"
    otlp_certificate_file: str | None = None
    otlp_client_certificate_file: str | None = None
    otlp_client_key_file: str | None = None
    span_queue_max_spans: int = 2048
    span_queue_max_bytes: int = 8 * 1024 * 1024
    span_batch_max_spans: int = 512
    span_flush_interval_seconds: float = 1.0

    #: What `shutdown` may take in all, collector dead or not.
    shutdown_timeout_seconds: float = 3.0
    #: What `from_env` ignored, a sentence each; logged as warnings when telemetry is set up.
    ignored: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        _validate(self)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, /, **overrides: Any) -> Self:
        """
        Read the settings from environment variables.

        `OTEL_*` mean what OpenTelemetry's specification says: an invalid value is ignored with a warning, durations are
        milliseconds. `OBSLIB_<FIELD>` sets any field of the same name; an invalid value or an unknown name raises.

        Args:
            environ: Where to look; the process' environment if not given.
            **overrides: Fields that win over the environment.

        Raises:
            ConfigurationError: A variable cannot be honoured; the sentence names it and the way out.
        """
        reading = read(os.environ if environ is None else environ, fields(cls))
        for sentence in reading.refused.values():
            raise ConfigurationError(sentence)
        known = {item.name for item in fields(cls)}
        for name in overrides:
            if name not in known:
                raise ConfigurationError(f"Settings has no field {name!r}; its fields are {', '.join(sorted(known))}.")
        return cls(**{**reading.values, "ignored": reading.ignored, **overrides})

    @property
    def log_level_number(self) -> int:
        """`log_level` as the standard library's `logging` counts it."""
        return LEVELS[self.log_level]


def _validate(settings: Settings) -> None:
    """Raise for the first value that cannot work."""
    for sentence in violations(settings).values():
        raise ConfigurationError(sentence)


def violations(settings: Any) -> dict[str, str]:
    """Return each field whose value cannot work, and a sentence that says what to write instead."""
    found: dict[str, str] = {}

    def demand(valid: bool, name: str, expected: str) -> None:
        if not valid:
            value = getattr(settings, name)
            sentence = f"Settings.{name} (OBSLIB_{name.upper()}) must be {expected}, not {value!r}."
            found.setdefault(name, sentence)

    for name, allowed in CHOICES.items():
        demand(getattr(settings, name) in allowed, name, f"one of {', '.join(allowed)}")
    for name, (low, high) in RANGES.items():
        value = getattr(settings, name)
        demand(value is None or low <= value <= high, name, f"between {low:.10g} and {high:.10g}")
    queue_spans = settings.span_queue_max_spans
    fits = settings.span_batch_max_spans <= queue_spans
    demand(fits, "span_batch_max_spans", f"no larger than span_queue_max_spans, {queue_spans}")
    port = settings.metrics_port
    demand(port is None or 1 <= port <= 65_535, "metrics_port", "a port between 1 and 65535, or None")
    demand(bool(settings.service_name.strip()), "service_name", "a name that is not empty")
    path = settings.metrics_path
    demand(not path or path.startswith("/"), "metrics_path", "a path that begins with /, or empty")
    for path in settings.excluded_paths:
        valid = path.startswith("/") and "*" not in path.removesuffix("/*")
        demand(valid, "excluded_paths", "paths that begin with /, with nothing but a final /* as a wildcard")
    keeps = settings.traces_keep_errors or settings.traces_keep_slower_than_seconds is not None
    demand(not keeps or settings.engine == "obslib", "engine", "obslib where traces_keep_… is set")
    is_endpoint = is_url(settings.otlp_traces_endpoint)
    demand(is_endpoint, "otlp_traces_endpoint", "a URL that begins with http:// or https://")
    return found
