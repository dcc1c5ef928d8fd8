"""
`make bench-dashboards`: what it costs Prometheus when somebody opens a dashboard and looks at six hours.

A running shop says which series there are; its replica becomes eight, and a past of six hours of all of them is written
into a database. A real Prometheus then answers what the dashboards ask.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import httpx
import psutil
import yaml

from benchmarks.loop_stack import SHOP, loop_stack
from benchmarks.rules import promtool, server
from grafana.promql import EVERY_INSTANCE
from obslib import names
from prometheus.durations import Duration
from stack.components.catalogue import PROMETHEUS
from stack.components.install import Installer, cache_directory
from stack.components.progress import Progress
from stack.state import ROOT

_BOARDS: Final = ROOT / "grafana" / "generated"
_RULES: Final = ROOT / "prometheus" / "generated" / "rules"
_SCRAPE_SECONDS: Final = 5
#: Of groups of rules that say nothing else.
_EVALUATION: Final = "5s"
#: A window of that width; Grafana asks for a point a pixel.
_PIXELS: Final = 1900
_COLUMNS: Final = 24
#: What Grafana rounds a step to.
_STEPS_SECONDS: Final = (5, 10, 15, 20, 30, 60, 120, 300)
_LOAD_RPS: Final = 20.0
_LOAD_SECONDS: Final = 90.0
_CHOSEN: Final = {"namespace": ".*", "instance": EVERY_INSTANCE, "route": ".*", "slo": ".+", "service": SHOP}
_BUDGET_SECONDS: Final = 1.0

Json = dict[str, Any]  # Any: JSON


@dataclass(frozen=True, kw_only=True)
class BoardCost:
    """One dashboard, opened once."""

    title: str
    queries: int
    empty: int
    cpu_seconds: float
    slowest_panel: str
    slowest_seconds: float


def boards() -> list[Json]:
    """All of them."""
    return [json.loads(path.read_text()) for path in sorted(_BOARDS.glob("*.json"))]


def queries(board: Json) -> Iterator[tuple[str, Json, int]]:
    """Each query with its panel's title and the panel's width in columns; a folded row asks nothing."""
    for entry in board["annotations"]["list"]:
        if "expr" in entry:
            yield f"mark: {entry['name']}", entry, _COLUMNS
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            if target["datasource"]["type"] == "prometheus":
                yield panel["title"], target, panel["gridPos"]["w"]


def asked_metrics() -> set[str]:
    """Every word of every query: the metrics are among them."""
    return {
        word for board in boards() for _, query, _ in queries(board) for word in re.findall(r"[\w:]+", query["expr"])
    }


def request(query: Json, columns: int, hours: float, until: float) -> tuple[str, dict[str, str]]:
    """The end of the URL and the parameters that Grafana asks with."""
    seconds = hours * 3600
    wanted = seconds / (_PIXELS * columns / _COLUMNS)
    step = min(_STEPS_SECONDS, key=lambda choice: abs(choice - wanted))
    chosen = {
        **_CHOSEN,
        "__range": f"{seconds:.0f}s",
        "__interval": f"{step}s",
        "__rate_interval": f"{max(step + _SCRAPE_SECONDS, 4 * _SCRAPE_SECONDS)}s",
    }
    expression = re.sub(r"\$([a-z_]\w*)", lambda match: chosen[match.group(1)], query["expr"])
    if query.get("instant"):
        return "query", {"query": expression, "time": f"{until}"}
    return "query_range", {
        "query": expression,
        "start": f"{until - seconds}",
        "end": f"{until}",
        "step": f"{step}",
    }


def present(url: str, metrics: set[str]) -> list[tuple[dict[str, str], float]]:
    """The series that a Prometheus has now, of these metrics, with their values."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": '{__name__=~".+"}'}, trust_env=False, timeout=60)
    answer.raise_for_status()
    found = answer.json()["data"]["result"]
    return [(entry["metric"], float(entry["value"][1])) for entry in found if entry["metric"]["__name__"] in metrics]


def recorded_every() -> dict[str, int]:
    """How many seconds there are between two samples of each recorded series."""
    documents = [yaml.safe_load(path.read_text()) for path in sorted(_RULES.glob("*.yml"))]
    return {
        rule["record"]: int(Duration.parse(group.get("interval", _EVALUATION)).seconds)
        for document in documents
        for group in document["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


def write_past(
    file: TextIO, series: list[tuple[dict[str, str], float]], replicas: int, hours: float, until: int
) -> int:
    """
    Write the past of these series, those of the shop's replica once for each; how many series there are.

    Args:
        file: where to, in OpenMetrics.
        series: labels and present values.
        replicas: of the shop.
        hours: how long the past is.
        until: its end, in seconds since the epoch.

    """
    recorded = recorded_every()
    count = 0
    for labels, value in series:
        step = recorded.get(labels["__name__"], _SCRAPE_SECONDS)
        moments = range(until - int(hours * 3600), until + 1, step)
        for instance in _instances(labels, replicas):
            count += 1
            line = _series({**labels, **instance})
            # What is counted grows; that a gauge does, too, costs a query nothing.
            file.writelines(f"{line} {value + (at - moments[0]) / 10:g} {at}\n" for at in moments)
    file.write("# EOF\n")
    return count


def _instances(labels: Mapping[str, str], replicas: int) -> list[dict[str, str]]:
    """What to change in a series' labels, for each series that it becomes."""
    instance = labels.get(names.LABEL_INSTANCE, "")
    if labels.get(names.LABEL_SERVICE) != SHOP or not instance.startswith(f"{SHOP}-"):
        return [{}]
    if instance != f"{SHOP}-1":  # the load may have made more of them
        return []
    return [{names.LABEL_INSTANCE: f"{SHOP}-{number}"} for number in range(1, replicas + 1)]


def _series(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items() if name != "__name__")
    return f"{labels['__name__']}{{{pairs}}}"


def cost(board: Json, url: str, process: psutil.Process, hours: float, until: float) -> BoardCost:
    """Open one dashboard: all its queries, one after the other."""
    count = empty = 0
    slowest = ("", 0.0)
    before = _cpu_seconds(process)
    with httpx.Client(trust_env=False, timeout=60) as http:
        for title, query, columns in queries(board):
            endpoint, parameters = request(query, columns, hours, until)
            began = time.perf_counter()
            answer = http.post(f"{url}/api/v1/{endpoint}", data=parameters)
            answer.raise_for_status()
            slowest = max(slowest, (title, time.perf_counter() - began), key=lambda found: found[1])
            count += 1
            empty += not answer.json()["data"]["result"]
    return BoardCost(
        title=board["title"],
        queries=count,
        empty=empty,
        cpu_seconds=_cpu_seconds(process) - before,
        slowest_panel=slowest[0],
        slowest_seconds=slowest[1],
    )


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> int:
    """Measure; the exit status says whether every dashboard costs less than a second of CPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboards", description=__doc__)
    parser.add_argument("--hours", type=float, default=6)
    parser.add_argument("--replicas", type=int, default=8)
    options = parser.parse_args()
    component = Installer(cache_directory(), Progress()).provide(PROMETHEUS)
    with loop_stack() as stack:
        stack.ask("spike", rate_rps=_LOAD_RPS, duration_seconds=_LOAD_SECONDS)
        time.sleep(_LOAD_SECONDS)
        series = present(stack.prometheus_url, asked_metrics())
    until = int(time.time())
    with tempfile.TemporaryDirectory(prefix="obslib-dashboards-") as name:
        directory = Path(name)
        (directory / "prometheus.yml").write_text("global: {scrape_interval: 1m}\n")
        with (directory / "past.txt").open("w") as file:
            count = write_past(file, series, options.replicas, options.hours, until)
        promtool(component, directory, "tsdb", "create-blocks-from", "openmetrics", "past.txt", "data")
        (directory / "past.txt").unlink()
        with server(component, directory) as running:
            process = psutil.Process(running.pid)
            for board in boards():  # once for the page cache
                cost(board, running.url, process, options.hours, until)
            found = [cost(board, running.url, process, options.hours, until) for board in boards()]
    found.sort(key=lambda board: -board.cpu_seconds)
    print(f"{options.hours:g} hours, {options.replicas} replicas of the shop, {count} series each {_SCRAPE_SECONDS} s")
    print("\n| dashboard | queries | without data | CPU of Prometheus | slowest panel |\n|---|---|---|---|---|")
    for board_cost in found:
        slowest = f"{board_cost.slowest_panel}, {board_cost.slowest_seconds:.3f} s"
        row = (board_cost.title, board_cost.queries, board_cost.empty, f"{board_cost.cpu_seconds:.2f} s", slowest)
        print(f"| {' | '.join(map(str, row))} |")
    return 0 if found[0].cpu_seconds < _BUDGET_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
