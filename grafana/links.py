"""Where a click leads: other dashboards, with the variables they have, and the traces behind a number."""

import json
import re
from typing import Any, Final
from urllib.parse import quote

from grafana import uids
from grafana.panels import Link

#: The variables of each dashboard, beyond those of one panel; a link hands over the ones its target has.
VARIABLES: Final[dict[str, tuple[str, ...]]] = {
    uids.FLEET: ("namespace",),
    uids.SERVICE: ("namespace", "service", "instance", "route"),
    uids.SLO: ("namespace", "service", "slo"),
    uids.SCALING: ("namespace", "service", "instance"),
    uids.RUNTIME: ("namespace", "service", "instance"),
    uids.PIPELINE: ("namespace",),
    uids.DEPENDENCIES: ("namespace", "service", "instance"),
    uids.SHOP: ("namespace",),
}
#: What means the same on every dashboard; a route or an instance of one service does not.
_SHARED: Final = ("namespace", "service")
_MACRO: Final = re.compile(r"\$\{[^}]+\}")


def to_dashboard(target: str, source: str) -> str:
    """
    A dashboard, with what it and the one the link stands on both have.

    Args:
        target: uid of the dashboard it leads to.
        source: uid of the dashboard it stands on.

    """
    shared = [name for name in _SHARED if name in VARIABLES[target] and name in VARIABLES[source]]
    return f"/d/{target}?" + "&".join(f"${{{name}:queryparam}}" for name in shared)


def of_row(title: str, target: str, *, service: str = "${__data.fields.service}") -> Link:
    """A dashboard about the service that a table's row, or a series, is about; at the time that is shown."""
    return Link(title=title, url=f"/d/{target}?${{namespace:queryparam}}&var-service={service}&${{__url_time_range}}")


def traces(title: str, *, service: str = "${service}", operation: str = "", failed: bool = False) -> Link:
    """
    The traces of a service in Jaeger, at the time that is shown.

    Args:
        title: what the link says.
        service: its name, or a macro for it.
        operation: the name of its spans, `METHOD /template`, or macros for it; default: all.
        failed: whether only those with an error are wanted.

    """
    query: dict[str, Any] = {  # Any: what JSON can hold
        "refId": "A",
        "datasource": {"type": "jaeger", "uid": uids.JAEGER},
        "queryType": "search",
        "service": service,
        **({"operation": operation} if operation else {}),
        **({"tags": "error=true"} if failed else {}),
        "limit": 50,
    }
    panes = {
        "traces": {
            "datasource": uids.JAEGER,
            "queries": [query],
            "range": {"from": "${__from}", "to": "${__to}"},
        }
    }
    return Link(title=title, url=f"/explore?schemaVersion=1&orgId=1&panes={_encoded(json.dumps(panes))}")


def _encoded(text: str) -> str:
    """Percent-encoded but for Grafana's macros, which it replaces only where it recognises them."""
    macros = _MACRO.findall(text)
    parts = _MACRO.split(text)
    encoded = [quote(part, safe="") for part in parts]
    return "".join(part + macro for part, macro in zip(encoded, [*macros, ""], strict=True))
