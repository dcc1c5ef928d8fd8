"""Environment variables → the fields of `Settings`.

`OTEL_*` follow the specification of environment variables and of the OTLP exporter
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/): an empty value counts as unset, a
duration is a whole number of milliseconds, an invalid value is ignored and said so.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import Field
from typing import Any, Final, NamedTuple
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
#: The `OTEL_*` variables obslib reads, and the fields they set.
OTEL_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "OTEL_SERVICE_NAME": ("service_name",),
    "OTEL_RESOURCE_ATTRIBUTES": ("resource_attributes", "service_name", "service_version"),
    "OTEL_SDK_DISABLED": ("traces_enabled",),
    "OTEL_PROPAGATORS": ("propagators",),
    "OTEL_TRACES_SAMPLER": ("traces_sampler",),
    "OTEL_TRACES_SAMPLER_ARG": ("traces_sampler_ratio",),
    "OTEL_TRACES_EXPORTER": ("traces_exporter",),
    "OTEL_BSP_MAX_QUEUE_SIZE": ("span_queue_max_spans",),
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": ("span_batch_max_spans",),
    "OTEL_BSP_SCHEDULE_DELAY": ("span_flush_interval_seconds",),
    **{
        f"OTEL_EXPORTER_OTLP_{signal}{suffix}": fields
        for suffix, fields in {
            "ENDPOINT": ("otlp_traces_endpoint",),
            "HEADERS": ("otlp_headers",),
            "TIMEOUT": ("otlp_timeout_seconds",),
            "COMPRESSION": ("otlp_compression",),
            "CERTIFICATE": ("otlp_certificate_file",),
            "CLIENT_CERTIFICATE": ("otlp_client_certificate_file",),
            "CLIENT_KEY": ("otlp_client_key_file",),
            "PROTOCOL": (),
        }.items()
        for signal in ("TRACES_", "")
    },
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


class Reading(NamedTuple):
    """What an environment says."""

    #: Fields of `Settings`, but for `ignored`.
    values: dict[str, Any]
    #: Which variables decided each of them.
    variables: dict[str, tuple[str, ...]]
    #: A sentence for each variable that is invalid and has no effect.
    ignored: tuple[str, ...]
    #: By variable: why it cannot be honoured, and the way out.
    refused: dict[str, str]


def read(environ: Mapping[str, str], fields: tuple[Field[Any], ...]) -> Reading:
    """Return what the environment sets; `OBSLIB_*` win over `OTEL_*`. Does not raise."""
    present = {name: value.strip() for name, value in environ.items() if value.strip()}
    theirs, own = _OpenTelemetry(present), _Own(present, fields)
    values = {**theirs.values, **own.values}
    variables = {**theirs.variables, **own.variables}
    # The specification: a batch is never larger than the queue. What our own variables say is not corrected.
    if theirs.values.keys() & {_QUEUE, _BATCH} and _BATCH not in own.values:
        used = {**{item.name: item.default for item in fields}, **values}
        values[_BATCH] = min(used[_BATCH], used[_QUEUE])
        if values[_BATCH] < used[_BATCH]:
            variables[_BATCH] = variables.get(_BATCH, ()) + variables.get(_QUEUE, ())
    return Reading(values, variables, tuple(theirs.ignored), {**theirs.refused, **own.refused})


class _OpenTelemetry:
    """Reads `OTEL_*`, noting what decided, and what had to be ignored."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.values: dict[str, Any] = {}
        self.variables: dict[str, tuple[str, ...]] = {}
        self.ignored: list[str] = []
        self.refused: dict[str, str] = {}
        self._resource()
        self._protocol()
        self._sampler()
        self._exporter()
        if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            self._take("traces_enabled", value=False, variable="OTEL_SDK_DISABLED")
        if names := environ.get("OTEL_PROPAGATORS"):
            self._take("propagators", self._propagators(names), "OTEL_PROPAGATORS")
        self._number(_QUEUE, "OTEL_BSP_MAX_QUEUE_SIZE")
        self._number(_BATCH, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
        self._number("span_flush_interval_seconds", "OTEL_BSP_SCHEDULE_DELAY", per_unit=_MILLISECONDS)

    def _take(self, name: str, value: object, variable: str) -> None:
        self.values[name] = value
        self.variables[name] = (variable,)

    def _resource(self) -> None:
        variable = "OTEL_RESOURCE_ATTRIBUTES"
        attributes = self._pairs(variable)
        for key, field in (("service.name", "service_name"), ("service.version", "service_version")):
            if value := attributes.pop(key, "").strip():
                self._take(field, value, variable)
        if name := self._environ.get("OTEL_SERVICE_NAME"):
            self._take("service_name", name, "OTEL_SERVICE_NAME")
        if attributes:
            self._take("resource_attributes", attributes, variable)

    def _protocol(self) -> None:
        variable, protocol = self._otlp("PROTOCOL", _PROTOCOLS.__contains__, "it is no OTLP protocol")
        if protocol and protocol != "http/protobuf":
            self.refused[variable] = (
                f"{variable}={protocol} is not supported: obslib speaks http/protobuf. Set {variable} to that and "
                "point OTEL_EXPORTER_OTLP_ENDPOINT at the collector's HTTP port (usually 4318)."
            )

    def _sampler(self) -> None:
        sampler = self._environ.get("OTEL_TRACES_SAMPLER")
        if sampler is None:
            return
        if sampler not in SAMPLERS:
            self._ignore("OTEL_TRACES_SAMPLER", f"obslib knows {', '.join(sorted(SAMPLERS))}")
            return
        self._take("traces_sampler", sampler, "OTEL_TRACES_SAMPLER")
        if sampler.endswith("traceidratio"):
            self._number("traces_sampler_ratio", "OTEL_TRACES_SAMPLER_ARG", parse=float)

    def _exporter(self) -> None:
        exporter = self._environ.get("OTEL_TRACES_EXPORTER")
        if exporter in {"otlp", "none"}:
            self._take("traces_exporter", exporter, "OTEL_TRACES_EXPORTER")
        elif exporter:
            self._ignore("OTEL_TRACES_EXPORTER", "obslib knows otlp and none; otlp is used")
        variable, endpoint = self._otlp("ENDPOINT", is_url, "it must begin with http:// or https://")
        if endpoint:
            # The specification: the signal's own variable is the whole URL, the common one is a base.
            is_whole = variable == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
            url = endpoint if is_whole else f"{endpoint.rstrip('/')}/v1/traces"
            self._take("otlp_traces_endpoint", url, variable)
        self._connection()

    def _connection(self) -> None:
        for suffix, name in (
            ("CERTIFICATE", "otlp_certificate_file"),
            ("CLIENT_CERTIFICATE", "otlp_client_certificate_file"),
            ("CLIENT_KEY", "otlp_client_key_file"),
        ):
            variable, value = self._otlp(suffix)
            if value:
                self._take(name, value, variable)
        is_known = {"gzip", "none"}.__contains__
        variable, compression = self._otlp("COMPRESSION", is_known, "obslib knows gzip and none")
        if compression:
            self._take("otlp_compression", compression, variable)
        variable, headers = self._otlp("HEADERS")
        if headers:
            self._take("otlp_headers", self._pairs(variable), variable)
        self._number("otlp_timeout_seconds", *_otlp_variables("TIMEOUT"), per_unit=_MILLISECONDS)

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
            self.ignored.append(f"{variable}: what is no key=value pair is ignored.")
        return pairs

    def _number(self, name: str, *variables: str, parse: Callable[[str], float] = int, per_unit: int = 1) -> None:
        """Take the first valid number; so many of the variable's unit are one of the field's."""
        low, high = (bound * per_unit for bound in RANGES[name])
        for variable in filter(self._environ.get, variables):
            try:
                number = parse(self._environ[variable])
            except ValueError:
                number = math.nan
            if low <= number <= high:
                self._take(name, number if per_unit == 1 else number / per_unit, variable)
                return
            self._ignore(variable, f"it must be a number between {low:.10g} and {high:.10g}")

    def _ignore(self, variable: str, reason: str) -> None:
        self.ignored.append(f"{variable}={self._environ.get(variable, '')!r} is ignored: {reason}.")


def is_url(text: str) -> bool:
    """Whether spans can be sent there."""
    return text.startswith(("http://", "https://"))


def _otlp_variables(suffix: str) -> tuple[str, str]:
    """Name the traces' own variable, and the common one for where that is not set or invalid."""
    return f"OTEL_EXPORTER_OTLP_TRACES_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"


class _Own:
    """Reads `OBSLIB_*`, noting what is wrong with them."""

    def __init__(self, environ: Mapping[str, str], fields: tuple[Field[Any], ...]) -> None:
        self.values: dict[str, Any] = {}
        self.variables: dict[str, tuple[str, ...]] = {}
        self.refused: dict[str, str] = {}
        known = own_variables(fields)
        for variable, text in environ.items():
            if not variable.startswith("OBSLIB_"):
                continue
            item = known.get(variable)
            if item is None:
                self.refused[variable] = f"{variable} is not a variable obslib knows.{_hint(variable, known)}"
                continue
            try:
                self.values[item.name] = _parse(variable, text, item)
            except ConfigurationError as error:
                self.refused[variable] = str(error)
            else:
                self.variables[item.name] = (variable,)


def own_variables(fields: tuple[Field[Any], ...]) -> dict[str, Field[Any]]:
    """Return each `OBSLIB_*` variable there is, and its field."""
    return {f"OBSLIB_{item.name.upper()}": item for item in fields if item.name not in _NOT_FROM_ENVIRONMENT}


def _hint(variable: str, known: Mapping[str, object]) -> str:
    import difflib  # noqa: PLC0415 -- every import would pay for the one that ends here

    close = difflib.get_close_matches(variable, known, n=1)
    return f"{f' Did you mean {close[0]}?' if close else ''} Unset or rename it."


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
