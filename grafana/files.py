"""Every generated file, as text."""

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import dependencies, fleet, pipeline, provisioning, runtime, scaling, service, shop, slo


def dashboards() -> list[Dashboard]:
    """All of them, the home page first."""
    modules = (fleet, service, slo, scaling, runtime, dependencies, pipeline, shop)
    return [module.dashboard() for module in modules]


def everything() -> dict[str, str]:
    """The generated files by their path below this package."""
    boards = {f"generated/{board.uid}.json": _text(board) for board in dashboards()}
    return boards | {f"provisioning/{path}": text for path, text in provisioning.files().items()}


def _text(board: Dashboard) -> str:
    return json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
