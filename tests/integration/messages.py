"""
`python -m tests.integration.messages`: write down what each alert says, word for word, in messages.yml.

Each rule's alert is made to fire by one of the cases for promtool, which then prints its labels and annotations. Read what has
changed before you commit it: this is what people are woken with.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import yaml

from prometheus import promtool
from prometheus.cases.case import Alerting, Case
from prometheus.read_policy import read
from stack.components.catalogue import PROMETHEUS, Component
from stack.components.install import Installer, cache_directory
from stack.components.progress import Progress
from stack.state import ROOT

FILE: Final = Path(__file__).with_name("messages.yml")
_TESTS: Final = ROOT / "prometheus" / "generated" / "tests"
_SAID: Final = re.compile(r"Labels:\{(.*)\}\n\s*Annotations:\{(.*)\}")
_PAIR: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*")')
_WINDOW: Final = "window"

Messages = dict[str, dict[str, dict[str, str]]]
Document = dict[str, Any]  # Any: YAML


def said_by(component: Component) -> Messages:
    """
    The labels and annotations of every alert.

    Args:
        component: with promtool.

    """
    stories = dict(_stories())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(stories, pool.map(lambda story: _said(component, story), stories.values()), strict=True))


def _stories() -> Iterator[tuple[str, Document]]:
    """A promtool file for each alert of each rule, by its name, and its window where there are several."""
    seen: set[str] = set()
    policy = read(ROOT / "prometheus" / "policy.yml")
    for name, cases in promtool.all_cases(policy).items():
        head: Document = yaml.safe_load((_TESTS / f"{name}.yml").read_text())
        for case in cases:
            for check in case.checks:
                if not isinstance(check, Alerting) or not check.fires:
                    continue
                key = " ".join([check.alert, *([check.labels[_WINDOW]] if _WINDOW in check.labels else [])])
                if key not in seen:
                    seen.add(key)
                    yield key, _story(head, case, check)


def _story(head: Document, case: Case, check: Alerting) -> Document:
    """The case with nothing expected, so that promtool says what there is."""
    asked = {"alertname": check.alert, "eval_time": check.at, "exp_alerts": []}
    series = [{"series": selector, "values": values} for selector, values in case.series.items()]
    return {
        "rule_files": [str((_TESTS / file).resolve()) for file in head["rule_files"]],
        "evaluation_interval": head["evaluation_interval"],
        "group_eval_order": head["group_eval_order"],
        "tests": [{"interval": case.interval, "input_series": series, "alert_rule_test": [asked]}],
        "labels": check.labels,
    }


def _said(component: Component, story: Document) -> dict[str, dict[str, str]]:
    wanted = story.pop("labels")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "story.yml"
        path.write_text(yaml.safe_dump(story))
        answer = subprocess.run(
            [component.command("promtool"), "test", "rules", str(path)],
            env={**os.environ, **component.environment()},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    for labels, annotations in _SAID.findall(answer.stdout + answer.stderr):
        found = {"labels": _pairs(labels), "annotations": _pairs(annotations)}
        if wanted.items() <= found["labels"].items():
            return found
    raise AssertionError(answer.stdout + answer.stderr)


def _pairs(text: str) -> dict[str, str]:
    # Go's quotes, as far as they are used here, are YAML's double ones.
    return {key: yaml.safe_load(quoted) for key, quoted in _PAIR.findall(text)}


def main() -> None:
    component = Installer(cache_directory(), Progress()).provide(PROMETHEUS)
    FILE.write_text(yaml.safe_dump(said_by(component), sort_keys=True, width=1000, allow_unicode=True))


if __name__ == "__main__":
    main()
