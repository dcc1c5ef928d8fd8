"""What a cluster is told: what is desired, as Kubernetes computes it."""

import math
import re
from typing import Any

import pytest
import yaml

from prometheus.durations import Clock
from prometheus.errors import PolicyError
from prometheus.files import everything
from prometheus.read_policy import parse
from tests.prometheus.test_policy import GOOD

CLUSTER = GOOD + "kubernetes: {prometheus_address: http://prometheus:9090}\n"


def scaled_object(policy: str, name: str = "shop") -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(
        everything(parse(policy), Clock())[f"kubernetes/scaled-object-{name}.yml"]
    )
    return document["spec"]  # type: ignore[no-any-return] # Any: what YAML can hold


def hpa(policy: str, name: str = "shop") -> dict[str, Any]:
    files = everything(parse(policy), Clock())
    document: dict[str, Any] = yaml.safe_load(files[f"kubernetes/without-keda/hpa-{name}.yml"])
    return document


def replicas_by_hpa(current: int, value: int, threshold: float, tolerance: float) -> int:
    """HPA's `GetExternalPerPodMetricReplicas`: the one place where it divides by what there is."""
    ratio = value / (threshold * current)
    return current if abs(1 - ratio) <= tolerance else math.ceil(value / threshold)


def test_a_scaled_object_says_what_the_policy_says() -> None:
    """Steps, waits and bounds are the policy's; nothing that is missing scales in."""
    spec = scaled_object(CLUSTER)

    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 8)
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == {
        "scaleUp": {
            "stabilizationWindowSeconds": 5,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Pods", "value": 2, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 1, "behavior": "currentReplicasIfHigher"}
    assert spec["triggers"] == [
        {
            "type": "prometheus",
            "metricType": "AverageValue",
            "metadata": {
                "serverAddress": "http://prometheus:9090",
                "query": 'service:scale_desired:replicas{service="shop"}',
                "threshold": "1",
                "ignoreNullValues": "false",
            },
        }
    ]


@pytest.mark.parametrize("most", [8, 9, 10, 40])
def test_kubernetes_follows_every_desired_number(most: int) -> None:
    """From ten replicas on a step of one is within the usual tolerance: there it is nought."""
    spec = scaled_object(CLUSTER.replace("max_replicas: 8", f"max_replicas: {most}"))
    threshold = float(spec["triggers"][0]["metadata"]["threshold"])
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]

    for current in range(1, most + 1):
        for desired in range(1, most + 1):
            rules = behavior["scaleUp" if desired > current else "scaleDown"]
            tolerance = float(rules.get("tolerance", "0.1"))
            assert replicas_by_hpa(current, desired, threshold, tolerance) == desired

    assert replicas_by_hpa(11, 12, threshold, 0.1) == 11


def test_an_hpa_says_the_same_as_the_scaled_object() -> None:
    """Bounds, steps and waits are those of the other; it divides by one, so the value is the number of replicas."""
    other, document = scaled_object(CLUSTER), hpa(CLUSTER)
    spec = document["spec"]

    assert (document["apiVersion"], document["kind"]) == ("autoscaling/v2", "HorizontalPodAutoscaler")
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (other["minReplicaCount"], other["maxReplicaCount"])
    assert spec["behavior"] == other["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (metric,) = spec["metrics"]
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "1"}


@pytest.mark.parametrize("namespace", ["", "sales"])
def test_the_adapter_asks_what_keda_asks(namespace: str) -> None:
    """Its templates filled in as it does, with the labels of the HPA's selector."""
    policy = CLUSTER.replace("  shop:\n", f"  shop:\n    namespace: {namespace}\n") if namespace else CLUSTER
    adapter = yaml.safe_load(everything(parse(policy), Clock())["kubernetes/without-keda/prometheus-adapter.yml"])
    (rule,) = adapter["externalRules"]
    document = hpa(policy)
    wanted = document["spec"]["metrics"][0]["external"]["metric"]
    matchers = ", ".join(f'{label}="{value}"' for label, value in wanted["selector"]["matchLabels"].items())
    series, _, _ = rule["seriesQuery"].partition("{")

    asked = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.LabelMatchers>>", matchers)

    assert rule["name"]["as"] == wanted["name"]
    assert rule["resources"] == {"namespaced": False}
    assert asked == f"max({scaled_object(policy)['triggers'][0]['metadata']['query']})"
    assert document["metadata"].get("namespace", "") == namespace


def test_without_a_cluster_nobody_is_told() -> None:
    """Only the rules are written then."""
    assert [path for path in everything(parse(GOOD), Clock()) if path.startswith("kubernetes/")] == [
        "kubernetes/prometheus-rule.yml"
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("http://prometheus:9090", "prometheus:9090", "is no address; write http://host:9090."),
        ("scale_in_cooldown: 1m", "scale_in_cooldown: 31m", "Kubernetes takes 30m at most; shorten it."),
        ("scale_in_cooldown: 1m", "scale_in_after: 2h", "Kubernetes takes 1h at most; shorten it."),
        ("  worker:", "  Worker:", "Kubernetes names have a-z, 0-9 and `-` only"),
    ],
)
def test_what_kubernetes_would_refuse_is_said_before(right: str, wrong: str, said: str) -> None:
    """With the line."""
    with pytest.raises(PolicyError, match=rf"policy.yml:\d+: .*{re.escape(said)}"):
        parse(CLUSTER.replace(right, wrong))
