"""The kinds of panels, each as plain as it can be; title, description and unit are never left out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from grafana_foundation_sdk.models import (
    bargauge,
    common,
    dashboard,
    heatmap,
    logs,
    loki,
    prometheus,
    stat,
    table,
    timeseries,
)

from grafana import thresholds, uids
from grafana.queries import PROMETHEUS, Column, Query, cells, now, over_time, ref_id

LOKI: Final = common.DataSourceRef(type_val="loki", uid=uids.LOKI)

#: The grid's columns.
COLUMNS: Final = 24
_STAT: Final = (4, 4)
_GRAPH: Final = (8, 8)
_TABLE: Final = (24, 9)


@dataclass(frozen=True, kw_only=True)
class Link:
    """Where a click on a value leads."""

    title: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels under a heading, from left to right; a closed one asks nothing until somebody opens it."""

    title: str
    panels: Sequence[dashboard.Panel] = field(default_factory=tuple)
    closed: bool = False


def time_series(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: dashboard.ThresholdsConfig | None = None,
    stacked: bool = False,
    min_value: float | None = 0,
    max_value: float | None = None,
    links: Sequence[Link] = (),
    width: int = _GRAPH[0],
) -> dashboard.Panel:
    """Lines over time."""
    lines = common.GraphFieldConfig(
        line_width=1,
        fill_opacity=30 if stacked else 5,
        show_points=common.VisibilityMode.NEVER,
        span_nulls=False,
        stacking=common.StackingConfig(mode=common.StackingMode.NORMAL) if stacked else None,
        thresholds_style=common.GraphThresholdsStyleConfig(mode=common.GraphThresholdsStyleMode.DASHED)
        if limits
        else None,
    )
    return dashboard.Panel(
        type_val="timeseries",
        title=title,
        description=description,
        datasource=PROMETHEUS,
        grid_pos=dashboard.GridPos(w=width, h=_GRAPH[1]),
        targets=[over_time(query, place) for place, query in enumerate(queries)],
        options=_graph_options(),
        field_config=dashboard.FieldConfigSource(
            defaults=dashboard.FieldConfig(
                unit=unit,
                min_val=min_value,
                max_val=max_value,
                color=dashboard.FieldColor(mode=dashboard.FieldColorModeId.PALETTE_CLASSIC),
                thresholds=limits,
                links=_data_links(links),
                custom=lines,
            ),
            overrides=[_as_limit(place) for place, query in enumerate(queries) if query.is_limit],
        ),
    )


def number(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    limits: dashboard.ThresholdsConfig | None = None,
    links: Sequence[Link] = (),
    width: int = _STAT[0],
    decimals: float | None = None,
) -> dashboard.Panel:
    """The newest value, large, with its course behind it."""
    return dashboard.Panel(
        type_val="stat",
        title=title,
        description=description,
        datasource=PROMETHEUS,
        grid_pos=dashboard.GridPos(w=width, h=_STAT[1]),
        targets=[over_time(query, 0)],
        options=stat.Options(
            graph_mode=common.BigValueGraphMode.AREA,
            color_mode=common.BigValueColorMode.VALUE,
            text_mode=common.BigValueTextMode.AUTO,
            reduce_options=common.ReduceDataOptions(calcs=["lastNotNull"], values=False, fields=""),
        ),
        field_config=dashboard.FieldConfigSource(
            defaults=dashboard.FieldConfig(
                unit=unit,
                decimals=decimals,
                thresholds=limits or thresholds.NONE,
                color=dashboard.FieldColor(mode=dashboard.FieldColorModeId.THRESHOLDS),
                links=_data_links(links),
            ),
            overrides=[],
        ),
    )


def bars(
    title: str, description: str, unit: str, query: Query, *, width: int = _GRAPH[0], links: Sequence[Link] = ()
) -> dashboard.Panel:
    """One bar a series for the whole range."""
    return dashboard.Panel(
        type_val="bargauge",
        title=title,
        description=description,
        datasource=PROMETHEUS,
        grid_pos=dashboard.GridPos(w=width, h=_GRAPH[1]),
        targets=[now(query, 0)],
        options=bargauge.Options(
            display_mode=common.BarGaugeDisplayMode.GRADIENT,
            orientation=common.VizOrientation.HORIZONTAL,
            reduce_options=common.ReduceDataOptions(calcs=["lastNotNull"], values=False, fields=""),
        ),
        field_config=dashboard.FieldConfigSource(
            defaults=dashboard.FieldConfig(
                unit=unit,
                min_val=0,
                color=dashboard.FieldColor(mode=dashboard.FieldColorModeId.PALETTE_CLASSIC),
                links=_data_links(links),
            ),
            overrides=[],
        ),
    )


def heat(
    title: str, description: str, unit: str, query: Query, *exemplars: Query, width: int = _GRAPH[0]
) -> dashboard.Panel:
    """A histogram's buckets over time; the expression keeps the label `le`. Others have exemplars only."""
    target = over_time(query, 0)
    target.format_val = prometheus.PromQueryFormat.HEATMAP
    return dashboard.Panel(
        type_val="heatmap",
        title=title,
        description=description,
        datasource=PROMETHEUS,
        grid_pos=dashboard.GridPos(w=width, h=_GRAPH[1]),
        targets=[target, *(over_time(dots, place) for place, dots in enumerate(exemplars, 1))],
        options=heatmap.Options(
            calculate=False,
            y_axis=heatmap.YAxisConfig(unit=unit),
            color=heatmap.HeatmapColorOptions(mode=heatmap.HeatmapColorMode.SCHEME, scheme="Oranges", steps=64),
            cell_values=heatmap.CellValues(unit="reqps"),
            exemplars=heatmap.ExemplarConfig(color="rgba(31, 120, 193, 0.9)"),
            tooltip=heatmap.HeatmapTooltip(mode=common.TooltipDisplayMode.SINGLE, y_histogram=True),
        ),
        field_config=dashboard.FieldConfigSource(
            defaults=dashboard.FieldConfig(unit=unit, custom=heatmap.FieldConfig()), overrides=[]
        ),
    )


def rows_of(
    title: str,
    description: str,
    *columns: Column,
    links: Sequence[Link] = (),
    sort_by: str = "",
    width: int = _TABLE[0],
) -> dashboard.Panel:
    """A table: a row for each set of labels, which every column's expression has to agree on; links open from a row."""
    return dashboard.Panel(
        type_val="table",
        title=title,
        description=description,
        datasource=PROMETHEUS,
        grid_pos=dashboard.GridPos(w=width, h=_TABLE[1]),
        targets=[cells(column.expression, place) for place, column in enumerate(columns)],
        transformations=[
            dashboard.DataTransformerConfig(id_val="merge", options={}),
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": _titles(columns)},
            ),
        ],
        options=_table_options(sort_by),
        field_config=dashboard.FieldConfigSource(
            defaults=dashboard.FieldConfig(unit="none", links=_data_links(links), custom=table.FieldConfig()),
            overrides=[_column(column) for column in columns],
        ),
    )


def _table_options(sort_by: str) -> table.Options:
    options = table.Options(sort_by=[common.TableSortByFieldState(display_name=sort_by, desc=True)] if sort_by else [])
    # The SDK adds one, switched off, that newer releases of Grafana do not know.
    options.footer = None
    return options


def log_lines(title: str, description: str, expression: str) -> dashboard.Panel:
    """Lines from Loki, the newest first."""
    return dashboard.Panel(
        type_val="logs",
        title=title,
        description=description,
        datasource=LOKI,
        grid_pos=dashboard.GridPos(w=COLUMNS, h=12),
        targets=[loki.Dataquery(ref_id="A", expr=expression, datasource=LOKI, query_type="range", max_lines=500)],
        options=logs.Options(
            show_time=True,
            wrap_log_message=True,
            enable_log_details=True,
            sort_order=common.LogsSortOrder.DESCENDING,
            dedup_strategy=common.LogsDedupStrategy.NONE,
        ),
        field_config=dashboard.FieldConfigSource(defaults=dashboard.FieldConfig(), overrides=[]),
    )


def _titles(columns: Sequence[Column]) -> dict[str, str]:
    if len(columns) == 1:
        return {"Value": columns[0].title}
    return {f"Value #{ref_id(place)}": column.title for place, column in enumerate(columns)}


def _column(column: Column) -> dashboard.DashboardFieldConfigSourceOverrides:
    properties = [dashboard.DynamicConfigValue(id_val="unit", value=column.unit)]
    if column.limits is not None:
        properties += [
            dashboard.DynamicConfigValue(id_val="thresholds", value=column.limits),
            dashboard.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
        ]
    return dashboard.DashboardFieldConfigSourceOverrides(
        matcher=dashboard.MatcherConfig(id_val="byName", options=column.title), properties=properties
    )


def _as_limit(place: int) -> dashboard.DashboardFieldConfigSourceOverrides:
    return dashboard.DashboardFieldConfigSourceOverrides(
        matcher=dashboard.MatcherConfig(id_val="byFrameRefID", options=ref_id(place)),
        properties=[
            dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": thresholds.RED}),
            dashboard.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 10]}),
            dashboard.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
        ],
    )


def _graph_options() -> timeseries.Options:
    return timeseries.Options(
        legend=common.VizLegendOptions(
            display_mode=common.LegendDisplayMode.LIST,
            placement=common.LegendPlacement.BOTTOM,
            show_legend=True,
            calcs=[],
        ),
        tooltip=common.VizTooltipOptions(mode=common.TooltipDisplayMode.MULTI, sort=common.SortOrder.DESCENDING),
    )


def _data_links(links: Sequence[Link]) -> list[dashboard.DashboardLink] | None:
    return [
        dashboard.DashboardLink(title=link.title, url=link.url, type_val=dashboard.DashboardLinkType.LINK)
        for link in links
    ] or None
