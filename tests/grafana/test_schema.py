"""The committed dashboards against the types of Grafana's own front end, `@grafana/schema`."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.grafana.boards import ROOT, Json, committed, panels
from tests.grafana.typescript import SCHEMA, complaints

BOARDS = committed()


def write(directory: Path, boards: dict[str, Json]) -> None:
    """Write the boards as constants of Grafana's type."""
    shutil.copy(Path(__file__).with_name("schema.ts"), directory)
    for uid, board in boards.items():
        text = f'import type {{ Board }} from "./schema";\nexport const board: Board = {json.dumps(board, indent=1)};\n'
        (directory / f"{uid}.ts").write_text(text)


def test_every_field_is_one_that_grafana_knows(tmp_path: Path) -> None:
    """Each field of every panel, variable, mark and link is there in the schema and has its type."""
    write(tmp_path, BOARDS)
    assert complaints(tmp_path) == []


def _rename(board: Json) -> None:
    panels(board)[0]["titel"] = panels(board)[0].pop("title")


def _another_type(board: Json) -> None:
    board["templating"]["list"][0]["multi"] = "yes"


def _another_choice(board: Json) -> None:
    next(panel for panel in panels(board) if panel["type"] == "stat")["options"]["colorMode"] = "loud"


def _another_number(board: Json) -> None:
    board["templating"]["list"][0]["refresh"] = 7


def _another_panels_option(board: Json) -> None:
    next(panel for panel in panels(board) if panel["type"] == "timeseries")["options"]["showHeader"] = True


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_rename, "titel"),
        (_another_type, "boolean"),
        (_another_choice, "loud"),
        (_another_number, "7"),
        (_another_panels_option, "showHeader"),
    ],
)
def test_what_grafana_does_not_know_is_noticed(tmp_path: Path, harm: Callable[[Json], None], said: str) -> None:
    """A misspelt field, a wrong type, a choice that does not exist: each is a complaint that names it."""
    board = json.loads(json.dumps(BOARDS["obslib-service"]))
    harm(board)
    write(tmp_path, {"broken": board})
    assert any(said in complaint for complaint in complaints(tmp_path))


def test_the_types_are_those_of_the_grafana_that_is_run() -> None:
    """Image and package have one version."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    version = re.fullmatch(r"grafana/grafana:([0-9.]+)", services["grafana"]["image"].partition("@")[0])
    assert version is not None
    assert SCHEMA.endswith(f"@{version[1]}")
