"""From where on a value is amber or red."""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.models import dashboard

GREEN: Final = "green"
AMBER: Final = "orange"
RED: Final = "red"


def above(red: float, amber: float | None = None) -> dashboard.ThresholdsConfig:
    """Red from a number on, amber from a smaller one."""
    steps = [(None, GREEN), *([(amber, AMBER)] if amber is not None else []), (red, RED)]
    return _thresholds(steps)


def below(red: float, amber: float | None = None) -> dashboard.ThresholdsConfig:
    """Red under a number, amber under a larger one."""
    steps = [(None, RED), *([(red, AMBER), (amber, GREEN)] if amber is not None else [(red, GREEN)])]
    return _thresholds(steps)


def _thresholds(steps: Sequence[tuple[float | None, str]]) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig(
        mode=dashboard.ThresholdsMode.ABSOLUTE,
        steps=[dashboard.Threshold(value=value, color=color) for value, color in steps],
    )


#: A number that is never red.
NONE: Final = _thresholds([(None, "text")])
