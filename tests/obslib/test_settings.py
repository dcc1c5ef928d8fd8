"""Settings: what the environment sets, what is ignored with a warning, and what raises with the fix."""

from dataclasses import fields
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obslib._environment import OTEL_VARIABLES, RANGES, own_variables
from obslib.exceptions import ConfigurationError
from obslib.settings import CHOICES, Settings


def test_defaults_need_no_environment() -> None:
    """An empty environment gives the defaults."""
    assert Settings.from_env({}) == Settings()


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"OTEL_SERVICE_NAME": "shop"}, "service_name", "shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,service.version=2%2C1"}, "service_version", "2,1"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a", "OTEL_SERVICE_NAME": "b"}, "service_name", "b"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=core"}, "resource_attributes", {"team": "core"}),
        ({"OTEL_SDK_DISABLED": "true"}, "traces_enabled", False),
        ({"OTEL_SDK_DISABLED": "maybe"}, "traces_enabled", True),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, "traces_sampler_ratio", 0.25),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, "traces_sampler", "parentbased_always_off"),
        ({"OTEL_TRACES_EXPORTER": "none"}, "traces_exporter", "none"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "otlp_traces_endpoint", "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}, "otlp_traces_endpoint", "http://c/x"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a=b,c=d%20e"}, "otlp_headers", {"a": "b", "c": "d e"}),
        ({"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x=y", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"}, "otlp_headers", {"x": "y"}),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "2500"}, "otlp_timeout_seconds", 2.5),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}, "otlp_compression", "gzip"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem"}, "otlp_certificate_file", "/ca.pem"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "traces_exporter", "otlp"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, "span_batch_max_spans", 100),
        ({"OTEL_BSP_SCHEDULE_DELAY": "250"}, "span_flush_interval_seconds", 0.25),
        ({"OTEL_PROPAGATORS": "tracecontext, b3"}, "propagators", ("tracecontext", "b3")),
        ({"OTEL_PROPAGATORS": "none"}, "propagators", ("none",)),
        ({"OTEL_SERVICE_NAME": "  "}, "service_name", "unknown_service"),
        ({"OBSLIB_SERVICE_NAME": "mine", "OTEL_SERVICE_NAME": "theirs"}, "service_name", "mine"),
        ({"OBSLIB_ENGINE": "contrib"}, "engine", "contrib"),
        ({"OBSLIB_METRICS_PORT": "9100"}, "metrics_port", 9100),
        ({"OBSLIB_ACCESS_LOG": "off"}, "access_log", False),
        ({"OBSLIB_ACCESS_LOG": "Yes"}, "access_log", True),
        ({"OBSLIB_LOG_LEVEL": "debug"}, "log_level", "DEBUG"),
        ({"OBSLIB_EXCLUDED_PATHS": "/healthz, /static/*"}, "excluded_paths", ("/healthz", "/static/*")),
        ({"OBSLIB_REDACTED_KEYS": "iban"}, "redacted_keys", frozenset({"iban"})),
        ({"OBSLIB_RESOURCE_ATTRIBUTES": "a=1, b = %2C,,c="}, "resource_attributes", {"a": "1", "b": ",", "c": ""}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=1, b = %2C,,c="}, "resource_attributes", {"a": "1", "b": ",", "c": ""}),
        ({"OBSLIB_SHUTDOWN_TIMEOUT_SECONDS": "0.5"}, "shutdown_timeout_seconds", 0.5),
    ],
)
def test_environment(environ: dict[str, str], field: str, value: object) -> None:
    """A variable sets its field, as the specification or its name says."""
    assert getattr(Settings.from_env(environ), field) == value


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_SAMPLER": "sometimes"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"},
        {"OTEL_EXPORTER_OTLP_COMPRESSION": "brotli"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "7200000"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "2000000"},
        {"OTEL_BSP_SCHEDULE_DELAY": "3600001"},
        {"OTEL_PROPAGATORS": "tracecontext,pigeon"},
        {"OTEL_RESOURCE_ATTRIBUTES": "nonsense"},
        {"OTEL_RESOURCE_ATTRIBUTES": "=nonsense"},
    ],
)
def test_invalid_otel_values_are_ignored_and_said(environ: dict[str, str]) -> None:
    """An invalid `OTEL_*` value changes nothing, and a sentence names the variable."""
    settings = Settings.from_env(environ)
    assert len(settings.ignored) == 1
    assert settings.ignored[0].startswith("OTEL_")
    expected: dict[str, Any] = {"propagators": ("tracecontext",)} if "OTEL_PROPAGATORS" in environ else {}
    if "OTEL_TRACES_SAMPLER_ARG" in environ:
        expected = {"traces_sampler": "traceidratio"}
    assert settings == Settings(**expected)


def test_what_is_ignored_is_said_in_the_unit_of_its_variable() -> None:
    """The bounds in the sentence are those of the variable: milliseconds where the field has seconds."""
    environ = {"OTEL_EXPORTER_OTLP_TIMEOUT": "7200000", "OTEL_BSP_MAX_QUEUE_SIZE": "2000000"}
    assert set(Settings.from_env(environ).ignored) == {
        "OTEL_EXPORTER_OTLP_TIMEOUT='7200000' is ignored: it must be a number between 1 and 3600000.",
        "OTEL_BSP_MAX_QUEUE_SIZE='2000000' is ignored: it must be a number between 1 and 1000000.",
    }


@pytest.mark.parametrize(
    ("suffix", "invalid", "valid", "field", "value"),
    [
        ("ENDPOINT", "collector:4318", "http://c:4318", "otlp_traces_endpoint", "http://c:4318/v1/traces"),
        ("COMPRESSION", "brotli", "gzip", "otlp_compression", "gzip"),
        ("TIMEOUT", "soon", "2500", "otlp_timeout_seconds", 2.5),
    ],
)
def test_an_invalid_value_of_the_traces_own_leaves_it_to_the_common_one(
    suffix: str, invalid: str, valid: str, field: str, value: object
) -> None:
    """The sentence names the variable that is ignored, and the common one decides where it is valid."""
    own, common = f"OTEL_EXPORTER_OTLP_TRACES_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"
    settings = Settings.from_env({own: invalid, common: valid})
    assert getattr(settings, field) == value
    [sentence] = settings.ignored
    assert sentence.startswith(f"{own}={invalid!r} is ignored: ")
    assert Settings.from_env({own: invalid}).ignored == (sentence,)


@pytest.mark.parametrize(
    ("environ", "spans"),
    [
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096"}, 2048),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096", "OBSLIB_SPAN_QUEUE_MAX_SPANS": "8192"}, 4096),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1000", "OBSLIB_SPAN_QUEUE_MAX_SPANS": "600"}, 600),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100", "OBSLIB_SPAN_QUEUE_MAX_SPANS": "1000"}, 512),
    ],
)
def test_a_batch_fits_into_the_queue(environ: dict[str, str], spans: int) -> None:
    """`OTEL_BSP_*` never make a batch larger than the queue that is used, whoever chose that."""
    assert Settings.from_env(environ).span_batch_max_spans == spans


def test_an_empty_service_name_is_none() -> None:
    """A `service.name` without a name counts as unset."""
    assert Settings.from_env({"OTEL_RESOURCE_ATTRIBUTES": "service.name=%20,team=core"}) == Settings(
        resource_attributes={"team": "core"}
    )


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "4318"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "smoke", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "4318"),
        ({"OBSLIB_METRIC_PORT": "1"}, "Did you mean OBSLIB_METRICS_PORT?"),
        ({"OBSLIB_QUITE_ELSE": "1"}, "not a variable obslib knows"),
        ({"OBSLIB_METRICS_PORT": "http"}, "a whole number, not 'http'"),
        ({"OBSLIB_METRICS_PORT": "70000"}, "between 1 and 65535"),
        ({"OBSLIB_ACCESS_LOG": "perhaps"}, "true or false"),
        ({"OBSLIB_TRACES_SAMPLER_RATIO": "half"}, "a number"),
        ({"OBSLIB_TRACES_SAMPLER_RATIO": "1.5"}, "between 0 and 1"),
        ({"OBSLIB_ENGINE": "steam"}, "one of obslib, contrib"),
        ({"OBSLIB_OTLP_HEADERS": "secret"}, "key=value"),
        ({"OBSLIB_OTLP_HEADERS": "=secret"}, "key=value"),
        ({"OBSLIB_EXCLUDED_PATHS": "healthz"}, "begin with /"),
        ({"OBSLIB_EXCLUDED_PATHS": "/a*b"}, "final /*"),
        ({"OBSLIB_METRICS_PATH": "metrics"}, "begins with /"),
        ({"OBSLIB_OTLP_TRACES_ENDPOINT": "c:4318"}, "http://"),
        ({"OBSLIB_SPAN_QUEUE_MAX_SPANS": "10"}, "span_batch_max_spans"),
    ],
)
def test_what_cannot_work_raises_with_the_fix(environ: dict[str, str], said: str) -> None:
    """An `OBSLIB_*` mistake, or a valid `OTEL_*` value that obslib lacks, raises and says what to write instead."""
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_env(environ)
    assert said in str(raised.value)


def test_overrides_win() -> None:
    """What code gives wins over the environment."""
    assert Settings.from_env({"OTEL_SERVICE_NAME": "a"}, service_name="b").service_name == "b"


def test_unknown_override() -> None:
    """A field that does not exist is refused by name."""
    with pytest.raises(ConfigurationError, match="no field 'servicename'"):
        Settings.from_env({}, servicename="b")


def test_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the process' own environment is read."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-process")
    assert Settings.from_env().service_name == "from-process"


@pytest.mark.parametrize(
    "wrong", [{"service_name": " "}, {"log_level": "LOUD"}, {"max_label_sets": 0}, {"traces_sampler": "x"}]
)
def test_code_is_checked_too(wrong: dict[str, Any]) -> None:
    """Values given in code are held to the same bounds, and the sentence names the field."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Settings(**wrong)


def test_secrets_are_not_shown() -> None:
    """Tokens and headers never appear in a representation."""
    text = repr(Settings(metrics_token="t0p", otlp_headers={"authorization": "s3cret"}))
    assert "t0p" not in text
    assert "s3cret" not in text


def test_settings_are_frozen() -> None:
    """Settings cannot change once made."""
    with pytest.raises(AttributeError):
        Settings().service_name = "x"  # type: ignore[misc]


def _number(name: str) -> st.SearchStrategy[Any]:
    low, high = RANGES[name]
    is_whole = isinstance(getattr(Settings(), name), int)
    return st.integers(int(low), int(high)) if is_whole else st.floats(low, high)


WORDS: Final = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=12
)
LISTED: Final = WORDS.filter(lambda word: "," not in word)
MAPPING: Final = st.dictionaries(LISTED.filter(lambda word: "=" not in word), WORDS, max_size=3)
#: For each field that the environment can set: the values that it takes.
VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    **{item.name: st.booleans() for item in fields(Settings) if item.type is bool},
    **{name: st.sampled_from(allowed) for name, allowed in CHOICES.items()},
    **{name: _number(name) for name in RANGES},
    **{item.name: WORDS for item in fields(Settings) if item.type is str and item.name not in CHOICES},
    **{item.name: WORDS for item in fields(Settings) if item.type == str | None},
    "resource_attributes": MAPPING,
    "otlp_headers": MAPPING,
    "excluded_paths": st.lists(LISTED.map(lambda word: "/" + word.replace("*", "")), max_size=3).map(tuple),
    "instrumentations": st.lists(LISTED, max_size=3).map(tuple),
    "propagators": st.lists(LISTED, max_size=3).map(tuple),
    "redacted_keys": st.frozensets(LISTED, max_size=3),
    "metrics_path": WORDS.map(lambda word: "/" + word),
    "metrics_port": st.integers(1, 65_535),
    "otlp_traces_endpoint": WORDS.map(lambda word: "http://" + word),
}


def text_of(value: Any) -> str:
    """Write a value as a person would into a variable."""
    if isinstance(value, dict):
        return ",".join(f"{key}={quote(item)}" for key, item in value.items())
    return ",".join(value) if isinstance(value, (tuple, frozenset)) else str(value)


def fits(values: dict[str, Any]) -> bool:
    """Tell whether values that are right each also go together."""
    spans = {"span_batch_max_spans": 512, "span_queue_max_spans": 2048, **values}
    keeps = values.get("traces_keep_errors") or "traces_keep_slower_than_seconds" in values
    return spans["span_batch_max_spans"] <= spans["span_queue_max_spans"] and not (
        keeps and values.get("engine") == "contrib"
    )


def test_every_variable_has_values() -> None:
    """No field that the environment sets is left out of the test below."""
    assert {item.name for item in own_variables(fields(Settings)).values()} == set(VALUES)


@given(st.fixed_dictionaries({}, optional=VALUES).filter(fits))
def test_what_is_written_into_variables_is_what_is_read(values: dict[str, Any]) -> None:
    """`Settings(a=b)`, and `OBSLIB_A=b`, are the same for every field and value; empty ones count as unset."""
    environ = {f"OBSLIB_{name.upper()}": text_of(value) for name, value in values.items()}
    written = {name: value for name, value in values.items() if text_of(value)}
    assert Settings.from_env(environ) == Settings(**written)


NUMBERS: Final = st.one_of(st.floats().map(str), st.integers().map(str), st.sampled_from(["1e999", "٣", "0x10", "1_0"]))


@given(
    st.dictionaries(
        st.sampled_from(sorted({*OTEL_VARIABLES, *own_variables(fields(Settings)), "OBSLIB_X", "OBSLIB_", "HOME"})),
        st.one_of(st.text(max_size=30), NUMBERS, WORDS.map(lambda word: f"{word}={word},{word}")),
        max_size=6,
    )
)
def test_any_environment_works_or_is_refused_in_a_sentence(environ: dict[str, str]) -> None:
    """Nothing but a sentence that names a variable or a field ever comes out, and OTEL_* numbers never raise."""
    try:
        settings = Settings.from_env(environ)
    except ConfigurationError as error:
        sentence = str(error)
        assert any(name in sentence or name.removeprefix("OBSLIB_").lower() in sentence for name in environ)
        assert "PROTOCOL" in sentence or "OBSLIB_" in sentence
        return
    for sentence in settings.ignored:
        assert any(name in sentence for name in environ)
    for name, (low, high) in RANGES.items():
        value = getattr(settings, name)
        assert value is None or low <= value <= high
