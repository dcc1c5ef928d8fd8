"""A dashboard from its rows: the grid, the variables, the links to the others, the marks on every graph."""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.models import dashboard

from grafana import annotations, uids, variables
from grafana.links import VARIABLES, to_dashboard
from grafana.panels import COLUMNS, Row

#: How the others call each dashboard.
TITLES: Final = {
    uids.FLEET: "Fleet",
    uids.SERVICE: "Service",
    uids.SLO: "SLO",
    uids.SCALING: "Saturation & scaling",
    uids.RUNTIME: "Python runtime",
    uids.DEPENDENCIES: "Dependencies",
    uids.PIPELINE: "Telemetry pipeline",
    uids.SHOP: "Demo shop: business",
}
TAG: Final = "obslib"


def board(uid: str, description: str, rows: Sequence[Row]) -> dashboard.Dashboard:
    """
    The dashboard.

    Args:
        uid: one of `grafana.uids`.
        description: the question it answers.
        rows: its panels, from top to bottom.

    """
    return dashboard.Dashboard(
        uid=uid,
        title=TITLES[uid],
        description=description,
        tags=[TAG],
        timezone="browser",
        editable=False,
        graph_tooltip=dashboard.DashboardCursorSync.CROSSHAIR,
        time=dashboard.DashboardDashboardTime(from_val="now-1h", to="now"),
        refresh="10s",
        templating=dashboard.DashboardDashboardTemplating(
            list_val=[variables.BY_NAME[name]() for name in VARIABLES[uid]]
        ),
        annotations=dashboard.AnnotationContainer(list_val=annotations.of(VARIABLES[uid])),
        links=[_link(target, uid) for target in TITLES if target != uid],
        panels=_placed(rows),
    )


def _link(target: str, source: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(
        title=TITLES[target],
        type_val=dashboard.DashboardLinkType.LINK,
        icon="dashboard",
        tooltip=f"{TITLES[target]}, at the same time",
        url=to_dashboard(target, source),
        keep_time=True,
    )


def _placed(rows: Sequence[Row]) -> list[dashboard.Panel | dashboard.RowPanel]:
    placed: list[dashboard.Panel | dashboard.RowPanel] = []
    number, y = 0, 0
    for row in rows:
        number += 1
        heading = dashboard.RowPanel(
            id_val=number,
            title=row.title,
            collapsed=row.closed,
            grid_pos=dashboard.GridPos(x=0, y=y, w=COLUMNS, h=1),
            panels=list(row.panels) if row.closed else [],
        )
        placed.append(heading)
        for panel in row.panels:
            number += 1
            panel.id_val = number
        bottom = _flow(row.panels, y + 1)
        if row.closed:
            # What is folded away takes no room.
            y += 1
        else:
            placed += row.panels
            y = bottom
    return placed


def _flow(panels: Sequence[dashboard.Panel], top: int) -> int:
    """Place panels from left to right, in as many lines as they need; returns where the next row begins."""
    x, y, height = 0, top, 0
    for panel in panels:
        place = panel.grid_pos
        assert place is not None
        if x + place.w > COLUMNS:
            x, y, height = 0, y + height, 0
        place.x, place.y = x, y
        x, height = x + place.w, max(height, place.h)
    return y + height
