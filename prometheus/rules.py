"""A rule and a group of rules, before they are written down."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus.durations import Duration

PAGE: Final = "page"
TICKET: Final = "ticket"
INFO: Final = "info"
SCALE: Final = "scale"
WATCHDOG: Final = "watchdog"
SEVERITIES: Final = (PAGE, TICKET, INFO, SCALE, WATCHDOG)

#: What an alert is about: what users feel, or a reason why they may. Causes are silent while the service is down.
SYMPTOM: Final = "symptom"
CAUSE: Final = "cause"
PIPELINE: Final = "pipeline"
SCALING: Final = "scaling"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A series computed at each evaluation."""

    name: str
    expression: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """
    Something a person, or the autoscaler, is told.

    Args:
        lasting: how long the expression must hold first; None: at once.
        keep_firing: how long it goes on after the expression has ceased to hold.
        kind: `SYMPTOM`, `CAUSE`, `PIPELINE` or `SCALING`.
        summary: one line, with the service's name in it.
        description: what it means, with the value made readable.
        dashboard: the uid of the dashboard that shows it.
        runbook: the page in docs/runbooks; the section is named after the alert.
        labels: beside severity and kind.

    """

    name: str
    expression: str
    severity: str
    kind: str
    summary: str
    description: str
    dashboard: str
    runbook: str
    lasting: Duration | None = None
    keep_firing: Duration | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rules that are evaluated one after another at an interval; None: the server's."""

    name: str
    rules: Sequence[Record | Alert]
    interval: Duration | None = None
