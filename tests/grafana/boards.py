"""The committed dashboards, as tests read them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grafana

PACKAGE = Path(grafana.__file__).parent
ROOT = PACKAGE.parent
#: Where the alerts' and recording rules' files are, once there are any.
RULES = ROOT / "prometheus" / "generated" / "rules"

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One query, and where it stands."""

    uid: str
    panel: str
    ref_id: str
    expression: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.uid} / {self.panel} / {self.ref_id}"


def committed() -> dict[str, Json]:
    """By uid."""
    boards = [json.loads(path.read_text()) for path in sorted((PACKAGE / "generated").glob("*.json"))]
    return {board["uid"]: board for board in boards}


def panels(board: Json) -> list[Json]:
    """Without the headings, with those that are folded away."""
    return [panel for entry in board["panels"] for panel in (entry["panels"] if entry["type"] == "row" else [entry])]


def prometheus_queries() -> Iterator[Asked]:
    """Every query that Prometheus is asked by a panel."""
    for uid, board in committed().items():
        for panel in panels(board):
            for target in panel["targets"]:
                if target["datasource"]["type"] == "prometheus":
                    yield Asked(
                        uid=uid,
                        panel=panel["title"],
                        ref_id=target["refId"],
                        expression=target["expr"],
                        instant=target["instant"],
                    )


def annotation_queries() -> Iterator[Asked]:
    """Every query for marks on graphs."""
    for uid, board in committed().items():
        for mark in board["annotations"]["list"]:
            yield Asked(uid=uid, panel="marks", ref_id=mark["name"], expression=mark["expr"], instant=False)


def recorded_series(expression: str) -> set[str]:
    """The recorded series that an expression reads: only their names have colons."""
    return set(re.findall(r"[a-z]+:[a-z0-9_]+:[a-z0-9_]+", expression))
