"""Every setting, with its value, where that came from, and what is wrong in the environment."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from types import SimpleNamespace
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from obslib._doctor.report import Finding, Level, Setting
from obslib._environment import OTEL_VARIABLES, Reading, read
from obslib._redaction import Redactor
from obslib.exceptions import ConfigurationError
from obslib.settings import REDACTED_KEYS, UNKNOWN_SERVICE, Settings, violations

_MASK: Final = "***"
_SECRETS: Final = Redactor(REDACTED_KEYS)
_MAX_CHARACTERS: Final = 100
#: `OTEL_*` variables that mean something to others, or to the SDK itself.
_FOR_OTHERS: Final = re.compile(
    r"OTEL_(PYTHON_|INSTRUMENTATION_|EXPORTER_(OTLP_(METRICS|LOGS|PROFILES)_|ZIPKIN_|PROMETHEUS_|JAEGER_|OTLP_INSECURE)"
    r"|EXPORTER_OTLP_(TRACES_)?(INSECURE|HEADERS_FILE)$|SEMCONV_|METRICS?_|METRICS$|BLRP_|LOGS?_|LOGRECORD_|RESOURCE_DETECTORS"
    r"|EXPERIMENTAL_|EXEMPLAR|SPAN_|EVENT_|LINK_|ATTRIBUTE_|BSP_EXPORT_TIMEOUT$|LOG_LEVEL$|CONFIG_FILE$|ENTITIES$"
    r"|ATTRIBUTE$|K8S_|OPERATOR_|NODE_|POD_|TRACES_SAMPLER_|DENO|GO_|JAVA_|DOTNET_|COLLECTOR_)"
)


class Configuration(NamedTuple):
    """What a service would run with."""

    #: None where no combination of what is valid can work.
    settings: Settings | None
    rows: list[Setting]
    findings: list[Finding]


def configuration(environ: Mapping[str, str], in_use: Settings | None) -> Configuration:
    """
    Read the environment as `Settings.from_env` does, but go on where it raises.

    Args:
        in_use: What the application's code gave to `instrument()`, if it has called that.
    """
    reading = read(environ, fields(Settings))
    findings = [*_environment_findings(environ, reading)]
    values, broken = dict(reading.values), _broken(reading.values)
    for name, sentence in broken.items():
        values.pop(name, None)
        # Code may have put right what only the environment's values break.
        level: Level = "error" if in_use is None else "warning"
        variable = ", ".join(reading.variables.get(name, ())) or f"OBSLIB_{name.upper()}"
        findings.append(Finding(level=level, code="setting_invalid", what=sentence, fix=f"Change {variable}."))
    settings = in_use
    if in_use is None:
        try:
            settings = Settings(**values)
        except ConfigurationError:  # two that do not fit together, which was said above
            settings = None
    if settings is not None and settings.service_name == UNKNOWN_SERVICE:
        fix = "Set OTEL_SERVICE_NAME, or give Settings a service_name."
        findings.append(Finding(level="warning", code="service_name_missing", what="The service has no name.", fix=fix))
    return Configuration(settings, _rows(reading, settings, is_code=in_use is not None), findings)


def _broken(values: Mapping[str, Any]) -> dict[str, str]:
    defaults = {
        item.name: None if item.default is MISSING and item.default_factory is MISSING else _default(item.name)
        for item in fields(Settings)
    }
    return violations(SimpleNamespace(**{**defaults, **values}))


def _default(name: str) -> object:
    return getattr(_DEFAULTS, name)


_DEFAULTS: Final = Settings()


def _environment_findings(environ: Mapping[str, str], reading: Reading) -> Iterator[Finding]:
    for sentence in reading.refused.values():
        yield Finding(level="error", code="variable_refused", what=sentence)
    for sentence in reading.ignored:
        yield Finding(level="warning", code="variable_ignored", what=sentence, fix="Correct or unset it.")
    for variable in sorted(environ):
        if not variable.startswith("OTEL_") or variable in OTEL_VARIABLES or _FOR_OTHERS.match(variable):
            continue
        close = difflib.get_close_matches(variable, OTEL_VARIABLES, n=1, cutoff=0.8)
        fix = f"Did you mean {close[0]}?" if close else "Unset it if nothing else reads it."
        yield Finding(level="warning", code="variable_unknown", what=f"{variable} means nothing to obslib.", fix=fix)


def _rows(reading: Reading, settings: Settings | None, *, is_code: bool) -> list[Setting]:
    rows = []
    for item in fields(Settings):
        if item.name == "ignored":
            continue
        from_environment = item.name in reading.values
        default = _default(item.name)
        variables = ", ".join(reading.variables.get(item.name, ()))
        value = reading.values.get(item.name, default) if settings is None else getattr(settings, item.name)
        if from_environment and value == reading.values[item.name]:
            source = variables
        elif value == default and not (is_code and from_environment):
            source = "default"
        else:
            source = f"code, over {variables}" if variables else "code"
        rows.append(Setting(name=item.name, value=_shown(item.name, value, is_secret=not item.repr), source=source))
    return rows


def _shown(name: str, value: Any, *, is_secret: bool) -> str:
    """Return a value as text without its secrets."""
    if name == "redacted_keys":
        added, removed = len(value - REDACTED_KEYS), len(REDACTED_KEYS - value)
        return f"{len(value)} keys ({added} added, {removed} removed)" if added or removed else f"{len(value)} keys"
    if name == "extra_registries":
        return f"{len(value)}"
    if isinstance(value, Mapping):
        hidden = {key: _MASK if is_secret or _SECRETS.is_secret(key) else item for key, item in value.items()}
        return _cut(",".join(f"{key}={item}" for key, item in hidden.items()))
    if is_secret and value is not None:
        return _MASK
    if isinstance(value, tuple):
        return _cut(",".join(value))
    if name == "otlp_traces_endpoint":
        return without_secrets(value)
    return "" if value is None else _cut(str(value).lower() if isinstance(value, bool) else str(value))


def without_secrets(url: str) -> str:
    """Return a URL without what a secret in it would be: the password, and parameters named as secrets are."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")
    netloc = f"{_MASK}@{host[2]}" if host[1] else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, query=_SECRETS.query(parts.query)))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"
