"""The menus at the top of a dashboard."""

from collections.abc import Callable
from typing import Final

from grafana_foundation_sdk.models import dashboard

from grafana.promql import EVERY_INSTANCE, INSTANCES, NAMESPACES, SERVICE, select
from grafana.queries import PROMETHEUS
from obslib import names
from prometheus import recorded

_REQUESTS: Final = f"{names.HTTP_SERVER_REQUEST_DURATION}_count"


def namespace() -> dashboard.VariableModel:
    """Kubernetes' namespace; elsewhere there is none, which "all" includes."""
    return _several("namespace", names.BUILD_INFO, names.LABEL_NAMESPACE, every=".*")


def service() -> dashboard.VariableModel:
    """One of the services that use obslib."""
    return _menu("service", select(names.BUILD_INFO, NAMESPACES), names.LABEL_SERVICE)


def instance() -> dashboard.VariableModel:
    """Replicas of the service."""
    return _several("instance", select(names.BUILD_INFO, SERVICE), names.LABEL_INSTANCE, every=EVERY_INSTANCE)


def route() -> dashboard.VariableModel:
    """Routes of the service; "all" includes the requests that matched none."""
    return _several("route", select(_REQUESTS, INSTANCES), names.LABEL_ROUTE, every=".*")


def slo() -> dashboard.VariableModel:
    """Objectives of the service."""
    return _several("slo", select(recorded.OBJECTIVE, SERVICE), recorded.LABEL_SLO, every=".+")


#: By their names; a later one may use an earlier one's choice.
BY_NAME: Final[dict[str, Callable[[], dashboard.VariableModel]]] = {
    "namespace": namespace,
    "service": service,
    "instance": instance,
    "route": route,
    "slo": slo,
}


def _menu(name: str, series: str, label: str) -> dashboard.VariableModel:
    question = f"label_values({series}, {label})"
    return dashboard.VariableModel(
        type_val=dashboard.VariableType.QUERY,
        name=name,
        label=name.capitalize() if name != "slo" else "SLO",
        datasource=PROMETHEUS,
        definition=question,
        query={"qryType": 1, "query": question, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        refresh=dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED,
        sort=dashboard.VariableSort.ALPHABETICAL_ASC,
        multi=False,
        include_all=False,
    )


def _several(name: str, series: str, label: str, *, every: str) -> dashboard.VariableModel:
    menu = _menu(name, series, label)
    menu.multi, menu.include_all, menu.all_value = True, True, every
    menu.current = dashboard.VariableOption(selected=True, text="All", value="$__all")
    return menu
