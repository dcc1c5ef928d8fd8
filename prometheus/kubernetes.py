"""
The same rules for a cluster, as the Prometheus operator takes them, and who scales there: KEDA, or an HPA without it.

Sources: KEDA's `scaledobject_types.go` and `prometheus_scaler.go` (2.17 to 2.20), `k8s.io/api/autoscaling/v2`, and the
documentation of prometheus-adapter's external rules (0.12).
"""

from typing import Any, Final

from prometheus import recorded
from prometheus.durations import Duration
from prometheus.policy import Kubernetes, Policy, Scaling, Service
from prometheus.promql import selector

#: What prometheus-adapter calls the number: no colons, for it is part of a URL.
_EXTERNAL_METRIC: Final = "service_scale_desired_replicas"
_ALTERNATIVE: Final = "kubernetes/without-keda"

#: From so many replicas on, one more or less is a tenth or less, which HPA ignores unless it is told not to.
_TENTH_SWALLOWS_A_STEP: Final = 10


def prometheus_rule(groups: list[dict[str, Any]]) -> dict[str, Any]:  # Any: what YAML can hold
    """A `PrometheusRule` with every group; `keep_firing_for` needs operator 0.64 or newer."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "obslib", "labels": {"app.kubernetes.io/name": "obslib", "role": "alert-rules"}},
        "spec": {"groups": groups},
    }


def scaled_objects(policy: Policy) -> dict[str, object]:
    """
    A `ScaledObject` for each service that scales, by its path; none without a cluster.

    KEDA 2.17 or newer for the fallback, 2.18 or newer where there is a tolerance.
    """
    if policy.kubernetes is None:
        return {}
    return {
        f"kubernetes/scaled-object-{service.name}.yml": _scaled_object(service, service.scaling, policy.kubernetes)
        for service in policy.services.values()
        if service.scaling
    }


def horizontal_pod_autoscalers(policy: Policy) -> dict[str, object]:
    """
    The same without KEDA, by path: an HPA for each service that scales, and a rule for prometheus-adapter.

    Never together with a `ScaledObject`, which is an HPA, too: two of them pull one Deployment to and fro.
    """
    if policy.kubernetes is None:
        return {}
    scaling = {service.name: (service, service.scaling) for service in policy.services.values() if service.scaling}
    return {
        **{f"{_ALTERNATIVE}/hpa-{name}.yml": _hpa(*found) for name, found in scaling.items()},
        f"{_ALTERNATIVE}/prometheus-adapter.yml": _adapter_rules(),
    }


def _hpa(service: Service, scaling: Scaling) -> dict[str, Any]:  # Any: as above
    namespace = {"namespace": service.namespace} if service.namespace else {}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": service.name, **namespace, "labels": {"app.kubernetes.io/name": service.name}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": service.name},
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "behavior": _behavior(scaling),
            "metrics": [
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": _EXTERNAL_METRIC, "selector": {"matchLabels": service.identity}},
                        # As above: as many replicas as the value says. Without a value an HPA leaves them as they are.
                        "target": {"type": "AverageValue", "averageValue": "1"},
                    },
                }
            ],
        },
    }


def _adapter_rules() -> dict[str, Any]:  # Any: as above
    return {
        "externalRules": [
            {
                "seriesQuery": recorded.SCALE_DESIRED,
                # The HPA's selector names the service wholly; the adapter would add a label that few services have.
                "resources": {"namespaced": False},
                "name": {"as": _EXTERNAL_METRIC},
                "metricsQuery": "max(<<.Series>>{<<.LabelMatchers>>})",
            }
        ]
    }


def _scaled_object(service: Service, scaling: Scaling, cluster: Kubernetes) -> dict[str, Any]:  # Any: as above
    namespace = {"namespace": service.namespace} if service.namespace else {}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": service.name, **namespace, "labels": {"app.kubernetes.io/name": service.name}},
        "spec": {
            "scaleTargetRef": {"name": service.name},
            "minReplicaCount": scaling.min_replicas,
            "maxReplicaCount": scaling.max_replicas,
            "pollingInterval": 15,
            # Whoever cannot be asked, lowers nothing.
            "fallback": {
                "failureThreshold": 3,
                "replicas": scaling.min_replicas,
                "behavior": "currentReplicasIfHigher",
            },
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(scaling)}},
            "triggers": [
                {
                    "type": "prometheus",
                    # An average of one a replica: as many replicas as the value says.
                    "metricType": "AverageValue",
                    "metadata": {
                        "serverAddress": cluster.prometheus_address,
                        "query": selector(recorded.SCALE_DESIRED, **service.identity),
                        "threshold": "1",
                        # By default KEDA reads no answer as zero, and scales to the minimum.
                        "ignoreNullValues": "false",
                    },
                }
            ],
        },
    }


def _behavior(scaling: Scaling) -> dict[str, Any]:  # Any: as above
    tolerance = {"tolerance": "0"} if scaling.max_replicas >= _TENTH_SWALLOWS_A_STEP else {}
    out = {"periodSeconds": _whole_seconds(scaling.scale_out_cooldown)}
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": _whole_seconds(scaling.scale_out_after),
            "selectPolicy": "Max",
            "policies": [
                {"type": "Pods", "value": scaling.scale_out_step, **out},
                {"type": "Percent", "value": 100, **out},
            ],
            **tolerance,
        },
        "scaleDown": {
            "stabilizationWindowSeconds": _whole_seconds(scaling.scale_in_after),
            "policies": [
                {
                    "type": "Pods",
                    "value": scaling.scale_in_step,
                    "periodSeconds": _whole_seconds(scaling.scale_in_cooldown),
                }
            ],
            **tolerance,
        },
    }


def _whole_seconds(duration: Duration) -> int:
    return -(-duration.milliseconds // 1000)
