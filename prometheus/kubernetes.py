"""The same rules for a cluster, as the Prometheus operator takes them."""

from typing import Any


def prometheus_rule(groups: list[dict[str, Any]]) -> dict[str, Any]:  # Any: what YAML can hold
    """A `PrometheusRule` with every group; `keep_firing_for` needs operator 0.64 or newer."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "obslib", "labels": {"app.kubernetes.io/name": "obslib", "role": "alert-rules"}},
        "spec": {"groups": groups},
    }
