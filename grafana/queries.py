"""What panels ask Prometheus."""

from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.models import common, dashboard, prometheus

from grafana import uids

PROMETHEUS: Final = common.DataSourceRef(type_val="prometheus", uid=uids.PROMETHEUS)


@dataclass(frozen=True, kw_only=True)
class Query:
    """
    One expression.

    Args:
        expression: PromQL, with the dashboard's variables.
        legend: what a series is called, with `{{label}}` for its labels.
        exemplars: whether Prometheus is asked for the traces behind it.
        is_limit: whether it is what the others are held against; drawn as a dashed red line.

    """

    expression: str
    legend: str = ""
    exemplars: bool = False
    is_limit: bool = False


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table, with an expression of its own."""

    title: str
    expression: str
    unit: str
    limits: dashboard.ThresholdsConfig | None = None


def ref_id(place: int) -> str:
    """The letter of a panel's query, by its place."""
    return chr(ord("A") + place)


def over_time(query: Query, place: int) -> prometheus.Dataquery:
    """Its course over the time that is shown."""
    return prometheus.Dataquery(
        ref_id=ref_id(place),
        datasource=PROMETHEUS,
        expr=query.expression,
        legend_format=query.legend,
        range_val=True,
        instant=False,
        exemplar=query.exemplars,
        editor_mode=prometheus.QueryEditorMode.CODE,
    )


def now(query: Query, place: int) -> prometheus.Dataquery:
    """Its value at the end of the time that is shown."""
    target = over_time(query, place)
    target.range_val, target.instant = False, True
    return target


def cells(expression: str, place: int) -> prometheus.Dataquery:
    """Its values as a table's cells, with a column for each label."""
    target = now(Query(expression=expression), place)
    target.format_val = prometheus.PromQueryFormat.TABLE
    return target
