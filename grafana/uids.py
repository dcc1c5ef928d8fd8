"""The fixed names by which dashboards and data sources are found; alerts, links and exemplars rely on them."""

from typing import Final

# Dashboards
FLEET: Final = "obslib-fleet"
SERVICE: Final = "obslib-service"
SLO: Final = "obslib-slo"
SCALING: Final = "obslib-scaling"
RUNTIME: Final = "obslib-runtime"
PIPELINE: Final = "obslib-pipeline"
DEPENDENCIES: Final = "obslib-dependencies"
SHOP: Final = "shop-business"

# Data sources
PROMETHEUS: Final = "prometheus"
JAEGER: Final = "jaeger"
ALERTMANAGER: Final = "alertmanager"
LOKI: Final = "loki"
