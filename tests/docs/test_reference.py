"""The reference names everything there is, and nothing that is not."""

import re
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.background import BackgroundTask

from obslib import names
from obslib._environment import OTEL_VARIABLES, RANGES, own_variables
from obslib.settings import CHOICES, Settings
from obslib.testing import Capture
from tests.docs.blocks import PAGES
from tests.obslib.asgi import client_of, connect, websocket_scope
from tests.obslib.processes import ROOT

#: Prefixes of constants in `names` that are no metric; a constant with none of them is one.
NO_METRICS = (
    "LABEL_",
    "LOG_",
    "ATTR_",
    "RESOURCE_",
    "EXEMPLAR_",
    "DROPPED_",
    "ERROR_",
    "ACCESS_",
    "CONNECTION_",
    "DIRECTION_",
    "METHOD_",
    "PROTOCOL_",
    "OTHER",
)
METRICS_ALL_THE_SAME = {"LOG_LINES_DROPPED", "LABEL_SETS_OVERFLOWED"}


def rows(page: str, heading: str = "") -> list[list[str]]:
    """Return the rows of the tables below a heading, or of all, their cells without backquotes around them."""
    text = (ROOT / "docs" / page).read_text()
    if heading:
        level = heading.partition(" ")[0]
        text = text.partition(f"\n{heading}\n")[2]
        text = re.split(rf"^#{{1,{len(level)}}} |^#{{{len(level) + 1}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines]


def first_cells(page: str, heading: str) -> list[str]:
    return [row[0].strip("`") for row in rows(page, heading)]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def constants(*prefixes: str) -> set[str]:
    """Return the values in `names` whose constants begin like this."""
    return {
        value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and name.startswith(prefixes) and name not in METRICS_ALL_THE_SAME
    }


def metrics() -> set[str]:
    return {
        value
        for name, value in vars(names).items()
        if name.isupper()
        and isinstance(value, str)
        and (not name.startswith(NO_METRICS) or name in METRICS_ALL_THE_SAME)
        and not name.endswith(("_EVENT", "_LOGGER"))
    }


# --- settings --------------------------------------------------------------------------------------------------------

FIELDS = {item.name: item for item in fields(Settings) if item.name != "ignored"}
SETTINGS = {row[0].strip("`"): row for row in rows("settings.md")}


def test_every_setting_is_documented() -> None:
    """The page has each field once, in the order of the class."""
    assert [row[0].strip("`") for row in rows("settings.md")] == list(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_setting(name: str) -> None:
    """Variables, default and range of a field are those of the code, and something is said about it."""
    item = FIELDS[name]
    own = [variable for variable, field in own_variables(fields(Settings)).items() if field.name == name]
    theirs = [variable for variable, names_of_fields in OTEL_VARIABLES.items() if name in names_of_fields]
    _, variables, default, allowed, meaning = SETTINGS[name]
    assert quoted(variables) == own + theirs
    assert (variables == "only in code") is (not own + theirs)
    assert default == _default(item)
    assert allowed == _allowed(item)
    assert len(meaning) > 5


def _default(item: Field[Any]) -> str:
    value = getattr(Settings(), item.name)
    if item.name == "redacted_keys":
        return f"{len(value)} keys"
    if item.name == "extra_registries":
        return "`prometheus_client.REGISTRY`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{value}`"
    if not value:
        return "none"
    return f"`{value if isinstance(value, str) else ','.join(value)}`"


def _allowed(item: Field[Any]) -> str:
    if item.name in CHOICES:
        return ", ".join(f"`{choice}`" for choice in CHOICES[item.name])
    if item.name in RANGES:
        return "{:.10g} – {:.10g}".format(*RANGES[item.name])
    if item.name == "metrics_port":
        return "1 – 65535"
    return "`true`, `false`" if isinstance(getattr(Settings(), item.name), bool) else ""


def _mentions() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for variable in re.findall(r"\b(?:OBSLIB|OTEL)_[A-Z0-9_]*[A-Z0-9]\b(?!_|<|\*)", page.read_text()):
            yield page, variable


def test_variables_named_anywhere_exist() -> None:
    """No page names a variable that nobody reads; those for the zero-code agent, FastAPI and contrib are theirs."""
    known = {*own_variables(fields(Settings)), *OTEL_VARIABLES}
    theirs = {
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
        "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED",
        "OTEL_SEMCONV_STABILITY_OPT_IN",
    }
    wrong_on_purpose = {"OTEL_TRACE_SAMPLER"}
    unknown = {(page.name, variable) for page, variable in _mentions() if variable not in known | theirs}
    assert {variable for _, variable in unknown} <= wrong_on_purpose, unknown


# --- what is emitted -------------------------------------------------------------------------------------------------


def test_every_metric_is_documented() -> None:
    """The page has each metric of `names` once, and no other."""
    documented = first_cells("telemetry.md", "## Metrics")
    assert len(documented) == len(set(documented))
    assert set(documented) == metrics()


async def test_metrics_are_what_the_page_says(obslib_capture: Capture) -> None:
    """Type, unit and labels of each metric are those of the instruments that an application really gets."""
    app = FastAPI()
    telemetry = obslib_capture(app)
    async with client_of(app) as client:
        await client.get("/nowhere")
    documented = {row[0].strip("`"): row for row in rows("telemetry.md", "## Metrics")}
    made = telemetry._telemetry.instruments.all()
    assert made
    for instrument in made:
        _, kind, unit, labels, meaning = documented[instrument.name]
        assert (instrument.name, kind, quoted(labels)) == (
            instrument.name,
            instrument.kind,
            list(instrument.label_names),
        )
        unit_in_name = re.search(r"_(seconds|bytes)(?=$|_total$)", instrument.name)
        assert unit_in_name is None or unit_in_name[1] == unit
        assert len(meaning) > 10


@pytest.mark.parametrize(
    ("heading", "prefix"),
    [
        ("## Labels", "LABEL_"),
        ("### Reasons", "DROPPED_"),
        ("### Exemplars", "EXEMPLAR_"),
        ("## Span attributes", "ATTR_"),
        ("### Resource attributes", "RESOURCE_"),
    ],
)
def test_every_name_is_documented(heading: str, prefix: str) -> None:
    """A table has each constant of its kind once, and nothing else."""
    documented = first_cells("telemetry.md", heading)
    assert len(documented) == len(set(documented))
    assert set(documented) == constants(prefix)


async def test_every_log_key_is_documented(obslib_capture: Capture) -> None:
    """The table has every key of `names`, and every key that lines of each kind really have."""
    app = FastAPI()
    app.add_api_route("/boom", lambda: 1 / 0)
    app.add_api_route("/pieces", lambda: StreamingResponse(pieces()))
    app.add_api_route("/later", lambda: PlainTextResponse("", background=BackgroundTask(lambda: 1 / 0)))
    telemetry = obslib_capture(app)

    def pieces() -> Iterator[str]:
        telemetry.clock.advance(0.1)
        yield from ("a", "b")

    async with client_of(app) as client:
        for path in ("/nowhere", "/boom", "/pieces", "/later"):
            await client.get(path)
    await connect(app, websocket_scope("/nowhere"))
    documented = {row[0].strip("`") for row in rows("telemetry.md", "## Log keys")}
    assert {key for line in telemetry.lines for key in line} == documented
    assert constants("LOG_") <= documented
