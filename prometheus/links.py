"""What leads from an alert to the pages that explain it."""

from string import Template
from typing import Final

from obslib import names
from prometheus.policy import Links
from prometheus.rules import Alert

FLEET: Final = "obslib-fleet"
SERVICE: Final = "obslib-service"
SLO: Final = "obslib-slo"
SCALING: Final = "obslib-scaling"
RUNTIME: Final = "obslib-runtime"
PIPELINE: Final = "obslib-pipeline"
DEPENDENCIES: Final = "obslib-dependencies"
#: The demo's own.
SHOP: Final = "shop-business"
#: Every dashboard an alert may lead to, by its uid.
DASHBOARDS: Final = (FLEET, SERVICE, SLO, SCALING, RUNTIME, PIPELINE, DEPENDENCIES, SHOP)

_BEFORE_SECONDS: Final = 3600
_AFTER_SECONDS: Final = 600


def _moment(offset_seconds: int, zeros: str) -> str:
    # A link with `now-1h` shows another hour to whoever opens it in the morning: the evaluation's own time does not.
    return f'{{{{ query "time() {offset_seconds:+d}" | first | value | printf "%.0f{zeros}" }}}}'


_VALUES: Final = {
    "namespace": f"{{{{ $labels.{names.LABEL_NAMESPACE} }}}}",
    "service": f"{{{{ $labels.{names.LABEL_SERVICE} }}}}",
    "from": _moment(-_BEFORE_SECONDS, "000"),
    "to": _moment(_AFTER_SECONDS, "000"),
    "from_microseconds": _moment(-_BEFORE_SECONDS, "000000"),
    "to_microseconds": _moment(_AFTER_SECONDS, "000000"),
}
#: What a template in the policy may contain.
PLACEHOLDERS: Final = (*_VALUES, "dashboard")


def annotations(alert: Alert, links: Links) -> dict[str, str]:
    """Everything a message about the alert shows, and where it leads."""
    values = {**_VALUES, "dashboard": alert.dashboard}

    def filled(template: str) -> str:
        return Template(template).substitute(values)

    return {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": f"{links.runbooks}/{alert.runbook}.md#{alert.name.lower()}",
        "dashboard_url": filled(links.dashboards),
        "traces_url": filled(links.traces),
        "logs_url": filled(links.logs),
    }
