"""Every generated file, as text."""

from collections.abc import Iterable
from typing import Any, Final

import yaml

from prometheus import causes, edge, kubernetes, links, pipeline, promtool, requests, scaling, slo, symptoms
from prometheus.durations import Clock
from prometheus.policy import Links, Policy
from prometheus.rules import Alert, Group, Record

NOTICE: Final = "# Generated from policy.yml by `make generate`: edit the policy or the generator, not this file.\n"

RuleFile = dict[str, Any]  # Any: what YAML can hold


class _Dumper(yaml.SafeDumper):
    """Expressions as people read them: one that has several lines stands on several lines."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def dump(document: object) -> str:
    """A document as YAML, with the notice that nobody should edit it."""
    return NOTICE + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def rule_groups(policy: Policy, clock: Clock) -> dict[str, list[Group]]:
    """The groups of rules by file."""
    files = {
        "requests": requests.groups(policy, clock),
        "slo": slo.groups(policy, clock),
        "edge": edge.groups(policy, clock),
        "symptoms": symptoms.groups(policy, clock),
        "causes": causes.groups(policy, clock),
        "pipeline": pipeline.groups(policy, clock),
        "scaling": scaling.groups(policy, clock),
    }
    return {name: groups for name, groups in files.items() if groups}


def everything(policy: Policy, clock: Clock) -> dict[str, str]:
    """
    The generated files by their path below the output directory.

    Args:
        clock: for anything but production the tests are left out: they are written for the real times.

    """
    groups = rule_groups(policy, clock)
    documents: dict[str, object] = {
        f"rules/{name}.yml": {"groups": [_group(group, policy.links) for group in groups[name]]} for name in groups
    }
    every = [_group(group, policy.links) for name in groups for group in groups[name]]
    documents["kubernetes/prometheus-rule.yml"] = kubernetes.prometheus_rule(every)
    if clock == Clock():
        documents |= kubernetes.scaled_objects(policy)
        documents |= kubernetes.horizontal_pod_autoscalers(policy)
        documents |= promtool.test_files(policy, [group["name"] for group in every], list(groups))
    return {path: dump(document) for path, document in documents.items()}


def alerts(groups: Iterable[Group]) -> list[Alert]:
    """The alerts in some groups."""
    return [rule for group in groups for rule in group.rules if isinstance(rule, Alert)]


def _group(group: Group, addresses: Links) -> RuleFile:
    interval = {"interval": str(group.interval)} if group.interval else {}
    return {"name": group.name, **interval, "rules": [_rule(rule, addresses) for rule in group.rules]}


def _rule(rule: Record | Alert, addresses: Links) -> RuleFile:
    if isinstance(rule, Record):
        labels = {"labels": rule.labels} if rule.labels else {}
        return {"record": rule.name, "expr": rule.expression, **labels}
    times = {"for": rule.lasting, "keep_firing_for": rule.keep_firing}
    return {
        "alert": rule.name,
        "expr": rule.expression,
        **{key: str(length) for key, length in times.items() if length},
        "labels": {"severity": rule.severity, "kind": rule.kind, **rule.labels},
        "annotations": links.annotations(rule, addresses),
    }
