"""
`make test-mutants ARGS="ALERT ..."`: whether promtool's tests notice a changed threshold.

Each number that an alert compares with is made a fifth larger and a fifth smaller, `> 0` is made `>= 0`, and each wait half as
long again and shorter by a third; the cases that speak of the alert must then fail. It takes minutes, so no test runs it.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from prometheus import recorded
from prometheus.durations import Duration
from prometheus.rules import WATCHDOG
from stack.components.catalogue import PROMETHEUS
from stack.components.install import Installer, cache_directory
from stack.components.progress import Progress

_GENERATED: Final = Path(__file__).parents[1] / "prometheus" / "generated"
#: The promise whose limits the cases come close to.
_JUDGED: Final = {"service": "shop", "slo": "availability"}
#: A number beside an operator, none of a range, an offset or a label.
_NUMBER: Final = re.compile(r'(?<=[<>=*/+] )(\d+(?:\.\d+)?)(?![\w.\["])')
_ABOVE_NOTHING: Final = re.compile(r"> 0(?![\w.])")
#: Changes that change nothing, by what follows the alert's name.
_EQUIVALENT: Final = {
    ("AlertDeliveryFailing", "> 1.5"): "it counts messages: between one and two any limit will do",
    ("AlertDeliveryFailing", "< 1"): "it counts Alertmanagers",
    ("ScaleFlapping", "-> 3.6"): "it counts turns, and 3.6 is as good as 3",
    ("DependencyFailing", "[5m])) > 0 ->"): "nothing divided by nothing is more than no limit",
    ("DatabaseFailing", "[5m])) > 0 ->"): "the same",
    ("ReplicaErrorsOutlier", "rate5m > 0 ->"): "the same",
    ("SLOSignalMissing", "service:up:count > 0"): "who counts none of a service has no such series",
    ("ServiceScaleInPossible", ">= 54 -> 45"): "the first sample says what runs, and is as old as the window by then",
    ("ServiceScaleOutNeeded", "5s -> 3s333ms"): "a step is five seconds",
    ("SLOBudgetExhausted", "1 - service:slo"): "a share of one is the whole",
    ("ScaleIneffective", "2m -> 1m20s"): "its case has steps of thirty seconds",
}
_FACTORS: Final = (1.2, 1 / 1.2)
_WAITS: Final = (Fraction(3, 2), Fraction(2, 3))

Document = dict[str, Any]  # Any: YAML


@dataclass(frozen=True)
class Mutant:
    """A rule file in which one alert is another."""

    alert: str
    change: str
    file: str
    document: Document


def mutants(file: str, document: Document) -> Iterator[Mutant]:
    """Every change of every alert in a file."""
    for group, rules in enumerate(document["groups"]):
        for place, rule in enumerate(rules["rules"]):
            for alert, change, apply in _of_rule(rule):
                changed = deepcopy(document)
                apply(changed["groups"][group]["rules"][place])
                yield Mutant(alert, change, file, changed)


def _of_rule(rule: Document) -> Iterator[tuple[str, str, Callable[[Document], None]]]:
    """An alert's own limits, and those that stand in rules of their own."""
    if "alert" in rule and rule["labels"]["severity"] != WATCHDOG:
        yield from ((rule["alert"], *change) for change in _changes(rule))
    elif rule.get("record") == recorded.BURN_LIMIT and rule["labels"] == {**rule["labels"], **_JUDGED}:
        limit = float(rule["expr"].removeprefix("vector(").removesuffix(")"))
        for factor in _FACTORS:
            about = f"{recorded.BURN_LIMIT}, {rule['labels']['window']}: {limit:g} times {factor:.3g}"
            yield "SLOErrorBudgetBurn", about, partial(_set, "expr", f"vector({limit * factor:.6g})")


def _changes(rule: Document) -> Iterator[tuple[str, Callable[[Document], None]]]:
    expression = rule["expr"]
    for match in _NUMBER.finditer(expression):
        if float(match[1]) == 0:
            continue
        for factor in _FACTORS:
            yield from _written(expression, match.start(1), match.end(1), f"{float(match[1]) * factor:.6g}")
    for match in _ABOVE_NOTHING.finditer(expression):
        yield from _written(expression, match.start(), match.end(), ">= 0")
    if "for" in rule:
        for wait in _WAITS:
            other = str(Duration(int(Duration.parse(rule["for"]).milliseconds * wait)))
            yield f"for: {rule['for']} -> {other}", partial(_set, "for", other)


def _written(text: str, start: int, end: int, instead: str) -> Iterator[tuple[str, Callable[[Document], None]]]:
    around = text[max(0, start - 40) : end].replace("\n", " ")
    result = text[:start] + instead + text[end:]
    yield f"…{around} -> {instead}", partial(_set, "expr", result)


def _set(key: str, value: str, rule: Document) -> None:
    rule[key] = value


def _is_equivalent(mutant: Mutant) -> bool:
    return any(mutant.alert == alert and change in mutant.change for alert, change in _EQUIVALENT)


class Hunt:
    """Runs the cases that speak of an alert on its mutants."""

    def __init__(self, promtool: list[str], environ: dict[str, str]) -> None:
        self._promtool = promtool
        self._environ = environ
        self._tests = {path.name: yaml.safe_load(path.read_text()) for path in (_GENERATED / "tests").glob("*.yml")}

    def survives(self, mutant: Mutant) -> bool:
        """Whether nobody noticed."""
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            for kind in ("rules", "tests"):
                (root / kind).mkdir()
            (root / "tests" / "helpers").symlink_to(_GENERATED / "tests" / "helpers")
            for path in (_GENERATED / "rules").glob("*.yml"):
                (root / "rules" / path.name).symlink_to(path)
            (root / "rules" / mutant.file).unlink()
            (root / "rules" / mutant.file).write_text(yaml.safe_dump(mutant.document))
            for name, document in self._tests.items():
                cases = [case for case in document["tests"] if mutant.alert in str(case["promql_expr_test"])]
                if not cases or f"../rules/{mutant.file}" not in document["rule_files"]:
                    continue
                (root / "tests" / name).write_text(yaml.safe_dump({**document, "tests": cases}))
                if not self._passes(root / "tests" / name):
                    return False
        return True

    def _passes(self, path: Path) -> bool:
        command = [*self._promtool, "test", "rules", path.name]
        answer = subprocess.run(
            command, cwd=path.parent, env=self._environ, capture_output=True, text=True, check=False, timeout=600
        )
        assert "FAILED" in answer.stdout + answer.stderr or answer.returncode == 0, answer.stderr
        return answer.returncode == 0


def main(alerts: list[str]) -> int:
    """Print each mutant that nobody noticed; return 1 if there is one."""
    component = Installer(cache_directory(), Progress()).provide(PROMETHEUS)
    hunt = Hunt([component.command("promtool")], {**os.environ, **component.environment()})
    found = [
        mutant
        for path in sorted((_GENERATED / "rules").glob("*.yml"))
        for mutant in mutants(path.name, yaml.safe_load(path.read_text()))
        if (not alerts or mutant.alert in alerts) and not _is_equivalent(mutant)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        survivors = [mutant for mutant, alive in zip(found, pool.map(hunt.survives, found), strict=True) if alive]
    for mutant in survivors:
        print(f"{mutant.alert:26} {mutant.change}")
    print(f"{len(found)} changes of {len({mutant.alert for mutant in found})} alerts; {len(survivors)} not noticed.")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
