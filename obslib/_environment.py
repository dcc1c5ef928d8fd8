"""Environment variables → the fields of `Settings`.

`OTEL_*` follow the specification of environment variables and of the OTLP exporter
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/): an empty value counts as unset, a
duration is a whole number of milliseconds, an invalid value is ignored and said so.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import Field
from typing import Any, Final
from urllib.parse import unquote

from obslib.exceptions import ConfigurationError

#: What `OTEL_TRACES_SAMPLER` may name.
SAMPLERS: Final = frozenset(
    {
        "always_on", "always_off", "traceidratio",
        "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
    }
)  # fmt: skip
#: What a number may be, from and to, in the unit of its field.
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "max_label_sets": (1, 100_000),
    "log_buffer_bytes": (64 * 1024, 1 << 30),
    "log_flush_interval_seconds": (0.001, 60),
    "traces_sampler_ratio": (0, 1),
    "traces_keep_slower_than_seconds": (0, 86_400),
    "otlp_timeout_seconds": (0.001, 3600),
    "span_queue_max_spans": (1, 1_000_000),
    "span_queue_max_bytes": (64 * 1024, 1 << 30),
    "span_batch_max_spans": (1, 1_000_000),
    "span_flush_interval_seconds": (0.001, 3600),
    "shutdown_timeout_seconds": (0, 3600),
}
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
#: Fields that only code can give.
_NOT_FROM_ENVIRONMENT: Final = frozenset({"extra_registries", "ignored"})
_QUEUE: Final = "span_queue_max_spans"
_BATCH: Final = "span_batch_max_spans"
_PROTOCOLS: Final = frozenset({"grpc", "http/protobuf", "http/json"})
_MILLISECONDS: Final = 1000
_KNOWN_PROPAGATORS: Final = frozenset({"tracecontext", "baggage", "b3", "b3multi", "jaeger", "xray", "ottrace", "none"})


def read(environ: Mapping[str, str], fields: tuple[Field[Any], ...]) -> dict[str, Any]:
    """
    Return the fields of `Settings` that the environment sets; `OBSLIB_*` win over `OTEL_*`.

    Raises:
        ConfigurationError: An `OBSLIB_*` variable is invalid or unknown, or an `OTEL_*` one asks for what obslib lacks.
    """
    present = {name: value.strip() for name, value in environ.items() if value.strip()}
    ignored: list[str] = []
    theirs, own = _OpenTelemetry(present, ignored).values(), _own(present, fields)
    values = {**theirs, **own}
    # The specification: a batch is never larger than the queue. What our own variables say is not corrected.
    if theirs.keys() & {_QUEUE, _BATCH} and _BATCH not in own:
        used = {**{item.name: item.default for item in fields}, **values}
        values[_BATCH] = min(used[_BATCH], used[_QUEUE])
    if ignored:
        values["ignored"] = tuple(ignored)
    return values


class _OpenTelemetry:
    """Reads `OTEL_*`, noting what it had to ignore."""

    def __init__(self, environ: Mapping[str, str], ignored: list[str]) -> None:
        self._environ = environ
        self._ignored = ignored

    def values(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        self._resource(values)
        self._protocol()
        self._sampler(values)
        self._exporter(values)
        if self._environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            values["traces_enabled"] = False
        if names := self._environ.get("OTEL_PROPAGATORS"):
            values["propagators"] = self._propagators(names)
        self._number(values, _QUEUE, "OTEL_BSP_MAX_QUEUE_SIZE")
        self._number(values, _BATCH, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
        self._number(values, "span_flush_interval_seconds", "OTEL_BSP_SCHEDULE_DELAY", per_unit=_MILLISECONDS)
        return values

    def _resource(self, values: dict[str, Any]) -> None:
        attributes = self._pairs("OTEL_RESOURCE_ATTRIBUTES")
        for key, field in (("service.name", "service_name"), ("service.version", "service_version")):
            if value := attributes.pop(key, "").strip():
                values[field] = value
        if name := self._environ.get("OTEL_SERVICE_NAME"):
            values["service_name"] = name
        if attributes:
            values["resource_attributes"] = attributes

    def _protocol(self) -> None:
        variable, protocol = self._otlp("PROTOCOL", _PROTOCOLS.__contains__, "it is no OTLP protocol")
        if protocol and protocol != "http/protobuf":
            raise ConfigurationError(
                f"{variable}={protocol} is not supported: obslib speaks http/protobuf. Set {variable} to that and "
                "point OTEL_EXPORTER_OTLP_ENDPOINT at the collector's HTTP port (usually 4318)."
            )

    def _sampler(self, values: dict[str, Any]) -> None:
        sampler = self._environ.get("OTEL_TRACES_SAMPLER")
        if sampler is None:
            return
        if sampler not in SAMPLERS:
            self._ignore("OTEL_TRACES_SAMPLER", f"obslib knows {', '.join(sorted(SAMPLERS))}")
            return
        values["traces_sampler"] = sampler
        if sampler.endswith("traceidratio"):
            self._number(values, "traces_sampler_ratio", "OTEL_TRACES_SAMPLER_ARG", parse=float)

    def _exporter(self, values: dict[str, Any]) -> None:
        exporter = self._environ.get("OTEL_TRACES_EXPORTER")
        if exporter in {"otlp", "none"}:
            values["traces_exporter"] = exporter
        elif exporter:
            self._ignore("OTEL_TRACES_EXPORTER", "obslib knows otlp and none; otlp is used")
        variable, endpoint = self._otlp("ENDPOINT", is_url, "it must begin with http:// or https://")
        if endpoint:
            # The specification: the signal's own variable is the whole URL, the common one is a base.
            is_whole = variable == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
            values["otlp_traces_endpoint"] = endpoint if is_whole else f"{endpoint.rstrip('/')}/v1/traces"
        self._connection(values)

    def _connection(self, values: dict[str, Any]) -> None:
        for suffix, name in (
            ("CERTIFICATE", "otlp_certificate_file"),
            ("CLIENT_CERTIFICATE", "otlp_client_certificate_file"),
            ("CLIENT_KEY", "otlp_client_key_file"),
        ):
            if value := self._otlp(suffix)[1]:
                values[name] = value
        if compression := self._otlp("COMPRESSION", {"gzip", "none"}.__contains__, "obslib knows gzip and none")[1]:
            values["otlp_compression"] = compression
        variable, headers = self._otlp("HEADERS")
        if headers:
            values["otlp_headers"] = self._pairs(variable)
        self._number(values, "otlp_timeout_seconds", *_otlp_variables("TIMEOUT"), per_unit=_MILLISECONDS)

    def _otlp(self, suffix: str, is_valid: Callable[[str], bool] = bool, reason: str = "") -> tuple[str, str]:
        """Return the variable that decides and its value; nothing where none does."""
        for variable in filter(self._environ.get, _otlp_variables(suffix)):
            value = self._environ[variable]
            if is_valid(value):
                return variable, value
            self._ignore(variable, reason)
        return "", ""

    def _propagators(self, names: str) -> tuple[str, ...]:
        chosen = _split(names)
        unknown = [name for name in chosen if name not in _KNOWN_PROPAGATORS]
        if unknown:
            self._ignore("OTEL_PROPAGATORS", f"unknown: {', '.join(unknown)}")
        return tuple(name for name in chosen if name not in unknown)

    def _pairs(self, variable: str) -> dict[str, str]:
        pairs = _split_pairs(self._environ.get(variable, ""))
        if pairs.pop("", None) is not None:
            self._ignored.append(f"{variable}: what is no key=value pair is ignored.")
        return pairs

    def _number(
        self,
        values: dict[str, Any],
        name: str,
        *variables: str,
        parse: Callable[[str], float] = int,
        per_unit: int = 1,
    ) -> None:
        """Take the first valid number; so many of the variable's unit are one of the field's."""
        low, high = (bound * per_unit for bound in RANGES[name])
        for variable in filter(self._environ.get, variables):
            try:
                number = parse(self._environ[variable])
            except ValueError:
                number = math.nan
            if low <= number <= high:
                values[name] = number if per_unit == 1 else number / per_unit
                return
            self._ignore(variable, f"it must be a number between {low:.10g} and {high:.10g}")

    def _ignore(self, variable: str, reason: str) -> None:
        self._ignored.append(f"{variable}={self._environ.get(variable, '')!r} is ignored: {reason}.")


def is_url(text: str) -> bool:
    """Whether spans can be sent there."""
    return text.startswith(("http://", "https://"))


def _otlp_variables(suffix: str) -> tuple[str, str]:
    """Name the traces' own variable, and the common one for where that is not set or invalid."""
    return f"OTEL_EXPORTER_OTLP_TRACES_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"


def _own(environ: Mapping[str, str], fields: tuple[Field[Any], ...]) -> dict[str, Any]:
    by_variable = {f"OBSLIB_{item.name.upper()}": item for item in fields if item.name not in _NOT_FROM_ENVIRONMENT}
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith("OBSLIB_"):
            continue
        item = by_variable.get(variable)
        if item is None:
            import difflib  # noqa: PLC0415 -- every import would pay for the one that ends here

            close = difflib.get_close_matches(variable, by_variable, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigurationError(f"{variable} is not a variable obslib knows.{hint} Unset or rename it.")
        values[item.name] = _parse(variable, text, item)
    return values


def _parse(variable: str, text: str, item: Field[Any]) -> object:
    """Read a text as the type of the field it is for."""
    kind = str(getattr(item.type, "__name__", item.type))
    try:
        if kind == "bool":
            return _boolean(text)
        if kind.startswith("int") or item.type == int | None:
            return int(text)
        if kind.startswith("float"):
            return float(text)
    except ValueError:
        expected = {"bool": "true or false", "floa": "a number"}.get(kind[:4], "a whole number")
        raise ConfigurationError(f"{variable} must be {expected}, not {text!r}.") from None
    if kind.startswith("tuple"):
        return _split(text)
    if kind.startswith("frozenset"):
        return frozenset(_split(text))
    if kind.startswith("Mapping"):
        return _mapping(variable, text)
    return text.upper() if item.name == "log_level" else text


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError


def _mapping(variable: str, text: str) -> dict[str, str]:
    pairs = _split_pairs(text)
    if "" in pairs:
        raise ConfigurationError(f"{variable} must be key=value pairs with commas between them.")
    return pairs


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _split_pairs(text: str) -> dict[str, str]:
    """Split `key=value,key=value`, the values percent-encoded as in W3C baggage; the key "" has what is no pair."""
    parts = (part.partition("=") for part in _split(text))
    return {key.strip() if equals else "": unquote(value.strip()) for key, equals, value in parts}
