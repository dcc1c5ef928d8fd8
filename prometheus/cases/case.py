"""One promtool test: what is scraped, and what must follow at which moment."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from obslib import names
from prometheus import foreign
from prometheus.policy import Service


@dataclass(frozen=True, kw_only=True)
class Alerting:
    """Whether an alert fires at a moment, for which label values; how many such alerts there are."""

    alert: str
    at: str
    fires: bool
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Firing:
    """All alerts that fire at a moment, and no other."""

    at: str
    alerts: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Value:
    """What an expression is at a moment; None: it has no value at all."""

    expression: str
    at: str
    value: float | None


Check = Alerting | Firing | Value


@dataclass(frozen=True, kw_only=True)
class Case:
    """
    A story told to Prometheus.

    Args:
        name: a sentence with what must follow.
        series: values by selector, in promtool's notation.
        checks: what must follow.
        interval: how far apart the values are; the test's file evaluates the rules as often.

    """

    name: str
    series: dict[str, str]
    checks: Sequence[Check]
    interval: str = "1m"


def fires(alert: str, at: str, **labels: str) -> Alerting:
    """The alert fires, once for these labels."""
    return Alerting(alert=alert, at=at, fires=True, labels=labels)


def quiet(alert: str, at: str, **labels: str) -> Alerting:
    """No such alert fires."""
    return Alerting(alert=alert, at=at, fires=False, labels=labels)


def constant(value: float, times: int) -> str:
    """The same value all the time."""
    return f"{value:g}x{times}"


def rising(per_step: float, times: int, start: float = 0) -> str:
    """A counter, or what falls."""
    return f"{start:g}{per_step:+g}x{times}"


def series(metric: str, service: Service, instance: str = "", /, **labels: str) -> str:
    """A selector as a scrape of a service makes it; `worker` is there for what must be summed away."""
    replica = {names.LABEL_INSTANCE: instance or f"{service.name}-1", names.LABEL_WORKER: "0"}
    return written(metric, **service.identity, **replica, **labels)


def up(service: Service, instance: str = "") -> str:
    """The selector of a target's own health; it has no labels of the library."""
    return written(foreign.UP, **service.identity, instance=instance or f"{service.name}-1")


def written(metric: str, /, **labels: str) -> str:
    """A selector."""
    inside = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{metric}{{{inside}}}"


def answers(service: Service, instance: str = "", status: str = "200", error_type: str = "") -> str:
    """The selector of the counter of a service's answers."""
    return series(
        f"{names.HTTP_SERVER_REQUEST_DURATION}_count",
        service,
        instance,
        **{names.LABEL_ROUTE: "/", names.LABEL_STATUS_CODE: status, names.LABEL_ERROR_TYPE: error_type},
    )


def errors(service: Service, instance: str = "") -> str:
    """The selector of the counter of a service's answers that are errors."""
    return answers(service, instance, "500", "500")
