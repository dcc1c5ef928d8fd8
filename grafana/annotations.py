"""What happened, as marks on every graph: deploys, restarts, alerts, and changes in the number of replicas."""

from typing import Final

from grafana_foundation_sdk.models import dashboard, prometheus

from grafana.promql import BY_INSTANCE, BY_SERVICE, FOR_PEOPLE, NAMESPACES, SERVICE, WINDOW, label_of, select
from grafana.queries import PROMETHEUS
from obslib import names
from prometheus import foreign

#: How long something counts as new: a rolling deploy has its replicas come one after the other, and who died takes time
#: to come back.
_NEW: Final = "2m"
_VERSION: Final = label_of(names.RESOURCE_SERVICE_VERSION)


def of(variables: tuple[str, ...]) -> list[dashboard.AnnotationQuery]:
    """All of them; about the chosen service where the dashboard has one."""
    chosen = SERVICE if "service" in variables else NAMESPACES
    return [deploys(chosen), restarts(chosen), alerts(chosen), scaling(chosen)]


def deploys(chosen: str) -> dashboard.AnnotationQuery:
    """The first replica with a version that was not there before."""
    groups = f"group by ({BY_SERVICE}, {_VERSION})"
    info = select(names.TARGET_INFO, chosen)
    expression = f"{groups} ({info}) unless {groups} ({info} offset {_NEW})"
    return _marks("Deploys", "blue", expression, f"{{{{service}}}} {{{{{_VERSION}}}}}")


def restarts(chosen: str) -> dashboard.AnnotationQuery:
    """A replica, or one of its workers, whose process is another one than before."""
    changed = f"changes({select(foreign.PROCESS_START, chosen)}[{_NEW}]) > 0"
    return _marks("Restarts", "orange", f"group by ({BY_INSTANCE}) ({changed})", "{{instance}} restarted")


def alerts(chosen: str) -> dashboard.AnnotationQuery:
    """From when to when an alert was firing."""
    firing = select(foreign.ALERTS, FOR_PEOPLE, chosen)
    groups = f"group by ({BY_SERVICE}, {foreign.LABEL_ALERT}, {foreign.LABEL_SEVERITY})"
    return _marks("Alerts", "red", f"{groups} ({firing})", "{{alertname}} ({{severity}}) {{service}}")


def scaling(chosen: str) -> dashboard.AnnotationQuery:
    """More or fewer replicas than a moment ago, as service discovery knows them: up or not."""
    replicas = f"count by ({BY_SERVICE}) ({select(foreign.UP, chosen)})"
    before = f"count by ({BY_SERVICE}) ({select(foreign.UP, chosen)} offset {WINDOW})"
    out = f'label_replace(group by ({BY_SERVICE}) ({replicas} > {before}), "direction", "out", "", "")'
    back = f'label_replace(group by ({BY_SERVICE}) ({replicas} < {before}), "direction", "in", "", "")'
    return _marks("Scaling", "purple", f"{out} or {back}", "{{service}} scaled {{direction}}")


def _marks(name: str, color: str, expression: str, text: str) -> dashboard.AnnotationQuery:
    # Grafana draws a mark where the value is above zero, and joins neighbouring ones: every expression is 1 or absent.
    return dashboard.AnnotationQuery(
        name=name,
        datasource=PROMETHEUS,
        enable=True,
        icon_color=color,
        expr=expression,
        title_format=name,
        text_format=text,
        step="15s",
        target=prometheus.Dataquery(
            ref_id=name, datasource=PROMETHEUS, expr=expression, interval="15s", range_val=True, instant=False
        ),
    )
