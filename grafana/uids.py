"""The fixed names by which dashboards and data sources are found; alerts, links and exemplars rely on them."""

from typing import Final

from prometheus import links

# Dashboards: alerts lead to them, so the rules name them
FLEET: Final = links.FLEET
SERVICE: Final = links.SERVICE
SLO: Final = links.SLO
SCALING: Final = links.SCALING
RUNTIME: Final = links.RUNTIME
PIPELINE: Final = links.PIPELINE
DEPENDENCIES: Final = links.DEPENDENCIES
SHOP: Final = links.SHOP

# Data sources
PROMETHEUS: Final = "prometheus"
JAEGER: Final = "jaeger"
ALERTMANAGER: Final = "alertmanager"
LOKI: Final = "loki"
