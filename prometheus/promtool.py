"""The tests that `promtool test rules` runs against the generated rules, and how they are written down."""

from typing import Any, Final

from obslib import names
from prometheus import foreign
from prometheus.cases import calm, causes, edges, losses, pipeline, scaling, scaling_slow, slo, symptoms
from prometheus.cases.case import Case, Check, Firing, Value
from prometheus.policy import Policy

Document = dict[str, Any]  # Any: what YAML can hold

_HELPER: Final = "tests/helpers/not_finite.yml"


def all_cases(policy: Policy) -> dict[str, list[Case]]:
    """Every case by the test file it stands in."""
    return {
        "slo": slo.cases(policy),
        "slo_slow": slo.slow(policy),
        "symptoms": symptoms.cases(policy),
        "weekly": [*symptoms.weekly(policy), *pipeline.slow(policy)],
        "calm": calm.cases(policy),
        "causes": causes.cases(policy),
        "edges_causes": edges.of_causes(policy),
        "edges_edge": edges.of_the_edge(policy),
        "edges_pipeline": edges.of_the_pipeline(policy),
        "edges_symptoms": edges.of_symptoms(policy),
        "pipeline": pipeline.cases(policy),
        "scaling": scaling.cases(policy),
        "scaling_slow": scaling_slow.cases(policy),
    }


#: Less than five minutes where a rule reads what a later group has recorded: Prometheus 3 no longer sees it then.
#: How often a file's rules are evaluated, where a minute will not do, and what it loads, where it needs not all.
_EVALUATION: Final = {
    **{f"edges_{kind}": f"{edges.STEP_SECONDS}s" for kind in ("causes", "edge", "pipeline", "symptoms")},
    "slo_slow": "4m",
    "weekly": "5m",
    "scaling": "5s",
    "scaling_slow": "30s",
}
_RULES: Final = {
    "slo": ("symptoms", "requests", "slo"),
    "slo_slow": ("slo",),
    "symptoms": ("symptoms", "requests", "slo", "edge", "pipeline"),
    "weekly": ("symptoms", "requests", "pipeline"),
    "causes": ("symptoms", "requests", "causes", "scaling"),
    "edges_causes": ("requests", "causes", "scaling"),
    "edges_edge": ("symptoms", "slo", "edge"),
    "edges_pipeline": ("symptoms", "pipeline"),
    "edges_symptoms": ("symptoms", "requests"),
    "pipeline": ("symptoms", "requests", "pipeline"),
    "scaling": ("symptoms", "requests", "scaling"),
    "scaling_slow": ("symptoms", "requests", "slo", "scaling"),
}


def test_files(policy: Policy, groups: list[str], rule_files: list[str]) -> dict[str, Document]:
    """
    The test files by path.

    Args:
        groups: all groups in the order in which they build on each other.
        rule_files: all rule files.

    """
    files: dict[str, Document] = {}
    for name, cases in all_cases(policy).items():
        loaded = [file for file in _RULES.get(name, rule_files) if file in rule_files]
        helper = [_HELPER.removeprefix("tests/")] if name == "scaling" else []
        files[f"tests/{name}.yml"] = {
            "rule_files": [*helper, *(f"../rules/{file}.yml" for file in loaded)],
            "evaluation_interval": _EVALUATION.get(name, "1m"),
            "group_eval_order": [losses.NOT_FINITE_GROUP, *groups],
            "tests": [_test(case) for case in cases],
        }
    files[_HELPER] = losses.not_finite_rules(policy)
    return files


def _test(case: Case) -> Document:
    return {
        "name": case.name,
        "interval": case.interval,
        "input_series": [{"series": selector, "values": values} for selector, values in case.series.items()],
        "promql_expr_test": [*(_check(check) for check in case.checks), _nobody_knows_workers(case)],
    }


def _nobody_knows_workers(case: Case) -> Document:
    """No series that a rule makes has the label of a worker process."""
    made = f'{{__name__=~".+:.+|{foreign.ALERTS}", {names.LABEL_WORKER}!=""}}'
    return {"expr": f"count ({made})", "eval_time": case.checks[-1].at, "exp_samples": []}


def _check(check: Check) -> Document:
    if isinstance(check, Firing):
        samples = [{"labels": f'{{{foreign.LABEL_ALERT}="{alert}"}}', "value": 1} for alert in sorted(check.alerts)]
        expression = f"group by ({foreign.LABEL_ALERT}) ({foreign.ALERTS}{{{foreign.FIRING}}})"
        return {"expr": expression, "eval_time": check.at, "exp_samples": samples}
    if isinstance(check, Value):
        # `sum` takes the labels away and keeps a sample that is no number.
        samples = [] if check.value is None else [{"labels": "{}", "value": check.value}]
        return {"expr": f"sum ({check.expression})", "eval_time": check.at, "exp_samples": samples}
    labels = {"alertname": check.alert, "alertstate": "firing", **check.labels}
    matchers = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    samples = [{"labels": "{}", "value": 1}] if check.fires else []
    return {"expr": f"count ({foreign.ALERTS}{{{matchers}}})", "eval_time": check.at, "exp_samples": samples}
