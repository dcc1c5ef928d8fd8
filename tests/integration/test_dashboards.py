"""No dead panels: what the dashboards ask, asked of a real Prometheus that scrapes the shop under load."""

import contextlib
import json
import math
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from grafana import uids
from grafana.promql import EVERY_INSTANCE
from obslib import names
from prometheus import foreign, generate
from stack.components.catalogue import Component
from stack.processes import SHOP, WORKER
from stack.state import write_atomically
from tests.grafana.boards import Asked, annotation_queries, committed, panels, prometheus_queries
from tests.integration.faults import Faults
from tests.integration.running import RunningStack, eventually, running
from tests.integration.traffic import Traffic
from tests.obslib.processes import Server, serving

LOAD_RPS = 20
LOAD_SECONDS = 600
#: What the dashboards' menus begin with.
CHOSEN = {"namespace": ".*", "instance": EVERY_INSTANCE, "route": ".*", "slo": ".+"}
#: The rules' windows are shorter here: with their own, the first sums over a day would be five minutes away.
TIME_SCALE = "1/5"
#: Until the slowest of those has a number; no statement about speed.
PATIENCE_SECONDS = 240.0

NOT_IN_SHOP = "the shop has no streams, WebSockets and background tasks; another service has"
ONLY_DOTS = "asked for its exemplars"
ONE_WEEK = "this Prometheus is minutes old"
#: Queries without data in a healthy shop, by dashboard, panel and letter, with the reason. One that has data fails, too.
SILENT: Mapping[tuple[str, str, str], str] = {
    (uids.SERVICE, "Requests, and a week ago", "B"): ONE_WEEK,
    (uids.SERVICE, "Duration", "D"): ONLY_DOTS,
    (uids.SERVICE, "Durations", "B"): ONLY_DOTS,
    (uids.DEPENDENCIES, "Calls by host, p95", "B"): ONLY_DOTS,
    (uids.DEPENDENCIES, "Operations, p95", "B"): ONLY_DOTS,
    (uids.SERVICE, "Time to first byte, p95", "A"): NOT_IN_SHOP,
    (uids.SERVICE, "Background tasks", "A"): NOT_IN_SHOP,
    (uids.SERVICE, "Background tasks, p95", "A"): NOT_IN_SHOP,
    (uids.SERVICE, "Background tasks that failed", "A"): NOT_IN_SHOP,
    (uids.SERVICE, "Open WebSockets", "A"): NOT_IN_SHOP,
    (uids.SERVICE, "WebSocket messages", "A"): NOT_IN_SHOP,
    (uids.SERVICE, "WebSocket lifetime, p50", "A"): NOT_IN_SHOP,
    (uids.SERVICE, "WebSockets closed", "A"): NOT_IN_SHOP,
}
#: Those that have data while something goes wrong, and else none.
ONLY_IN_TROUBLE: Mapping[tuple[str, str, str], str] = {
    (uids.FLEET, "Firing alerts", "A"): "nothing fires",
    (uids.SLO, "Days to exhaustion", "A"): "no budget burns",
}
#: About which service a dashboard, or one of its panels, is asked; the shop has nearly everything.
ABOUT: Mapping[tuple[str, str], str] = {(uids.SCALING, "Backlog"): WORKER}


@pytest.fixture(scope="module")
def busy(components: Mapping[str, Component]) -> Iterator[RunningStack]:
    """A stack of its own under steady load, which its autoscaler has scaled out once."""
    with (
        tempfile.TemporaryDirectory(prefix="obslib-boards-") as path,
        running(Path(path), components, autoscaler=True) as stack,
    ):
        stack.ask("spike", rate_rps=LOAD_RPS, duration_seconds=LOAD_SECONDS)
        with Traffic(stack.url):
            eventually(lambda: stack.replicas(SHOP)["target"] > 2, "a scale-out")
        hasten(stack, Path(path) / "hastened")
        yield stack


def hasten(stack: RunningStack, directory: Path) -> None:
    """Give Prometheus the same rules with shorter windows."""
    assert generate.main(["--time-scale", TIME_SCALE, "--output", str(directory)]) == 0
    rules = stack.state.config / "rules"
    rules.unlink()
    rules.symlink_to(directory / "rules")
    os.kill(stack.pid("prometheus"), signal.SIGHUP)


def substituted(expression: str, service: str, **chosen: str) -> str:
    """An expression as Grafana asks it, at a range of an hour."""
    known = {**CHOSEN, "service": service, "__rate_interval": "20s", "__range": "3600s", **chosen}
    return re.sub(r"\$([a-z_]\w*)", lambda match: known[match.group(1)], expression)


def about(asked: Asked) -> str:
    return ABOUT.get((asked.uid, asked.panel), SHOP)


def answers(stack: RunningStack, asked: Asked, service: str, *, seconds: float = 60) -> list[dict[str, Any]]:
    """The series as Grafana gets them, those over time for the last seconds."""
    expression, now = substituted(asked.expression, service), time.time()
    url = f"{stack.prometheus_url}/api/v1/query"
    if asked.instant:
        answer = stack.http.post(url, data={"query": expression, "time": str(now)})
    else:
        period = {"start": str(now - seconds), "end": str(now), "step": "5"}
        answer = stack.http.post(f"{url}_range", data={"query": expression, **period})
    assert answer.status_code == httpx.codes.OK, f"{asked}: {answer.text}"
    series: list[dict[str, Any]] = answer.json()["data"]["result"]
    return series


def has_data(series: Iterable[Mapping[str, Any]]) -> bool:
    """Whether there is a number to draw: Grafana leaves NaN out."""
    samples = [sample for one in series for sample in one.get("values") or [one["value"]]]
    return any(math.isfinite(float(value)) for _, value in samples)


def place(asked: Asked) -> tuple[str, str, str]:
    return asked.uid, asked.panel, asked.ref_id


def test_no_panel_is_dead(busy: RunningStack) -> None:
    """Under load every query of every panel gets a number to draw, but for those that are silent for a reason."""
    silent = {place(asked): asked for asked in prometheus_queries()}

    def as_expected() -> bool:
        # Not all at one moment: what happens once is gone when the longest windows have begun.
        for key, asked in list(silent.items()):
            if has_data(answers(busy, asked, about(asked))):
                del silent[key]
        return set(silent) - set(ONLY_IN_TROUBLE) == set(SILENT)

    try:
        eventually(as_expected, "every query has data", PATIENCE_SECONDS)
    except AssertionError:
        assert set(silent) - set(ONLY_IN_TROUBLE) == set(SILENT)
        raise


@pytest.mark.parametrize(
    "asked", [asked for asked in prometheus_queries() if "@$instance" in asked.expression], ids=str
)
def test_one_replica_can_be_chosen_where_rules_have_the_sum(busy: RunningStack, asked: Asked) -> None:
    """With all of them chosen the rule's sum is drawn, with one its own series, and nothing of one that is not there."""

    def found(instance: str) -> bool:
        expression = substituted(asked.expression, SHOP, instance=instance)
        return any(math.isfinite(float(one["value"][1])) for one in busy.query(expression))

    eventually(lambda: found("shop-1"), "one replica's data")
    assert found("(shop-1|shop-2)")
    assert not found("shop-99")


def test_workers_are_summed_away(busy: RunningStack) -> None:
    """However many processes a replica has, it is one line."""
    for asked in prometheus_queries():
        for series in answers(busy, asked, about(asked)):
            assert "worker" not in series["metric"], asked


@pytest.mark.parametrize("asked", [*prometheus_queries(), *annotation_queries()], ids=str)
def test_every_query_parses(busy: RunningStack, asked: Asked) -> None:
    """Marks, and queries without data, too."""
    answer = busy.http.post(
        f"{busy.prometheus_url}/api/v1/format_query", data={"query": substituted(asked.expression, SHOP)}
    )

    assert answer.status_code == httpx.codes.OK, answer.text


def test_menus_have_choices(busy: RunningStack) -> None:
    """Each variable finds values; only Kubernetes has namespaces."""
    for uid, board in committed().items():
        for variable in board["templating"]["list"]:
            question = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert question is not None, variable
            series, label = question.groups()
            url = f"{busy.prometheus_url}/api/v1/label/{label}/values"
            answer = busy.http.get(url, params={"match[]": substituted(series, SHOP)})
            assert answer.status_code == httpx.codes.OK, answer.text
            assert bool(answer.json()["data"]) == (variable["name"] != "namespace"), (uid, variable["name"])


def test_what_a_line_is_named_after_is_there(busy: RunningStack) -> None:
    """Each label in a legend is on each line that shows something: what nobody sets would be a gap in every name."""
    for uid, board in committed().items():
        for panel in panels(board):
            for target in panel["targets"]:
                wanted = set(re.findall(r"{{\s*(\w+)\s*}}", target.get("legendFormat", "")))
                if not wanted or target["datasource"]["type"] != "prometheus":
                    continue
                asked = Asked(
                    uid=uid,
                    panel=panel["title"],
                    ref_id=target["refId"],
                    expression=target["expr"],
                    instant=target["instant"],
                )
                for series in answers(busy, asked, about(asked)):
                    if any(float(value) for _, value in series.get("values") or [series["value"]]):
                        # Outside of Kubernetes there is no namespace, and what no route takes has none.
                        assert wanted - {names.LABEL_NAMESPACE, names.LABEL_ROUTE} <= set(series["metric"]), asked


CHAT = """
import asyncio
import obslib
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse

app = FastAPI()
obslib.instrument(app)

@app.get("/lines")
async def lines():
    async def written():
        for line in range(3):
            yield f"{line}\\n"
            await asyncio.sleep(0)
    return StreamingResponse(written())

async def greet(fails: bool):
    if fails:
        raise ValueError("nobody is there")

@app.post("/greetings")
async def greetings(tasks: BackgroundTasks, fails: bool = False):
    tasks.add_task(greet, fails)

@app.websocket("/rooms")
async def rooms(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)
"""


def test_other_kinds_of_services_have_their_panels(busy: RunningStack, tmp_path: Path) -> None:
    """Streams, background tasks and WebSockets, of a service that is no shop: nothing that is silent there is here."""
    left = {asked for asked in prometheus_queries() if SILENT.get(place(asked)) == NOT_IN_SHOP}
    assert left

    def no_more_silent(server: Server) -> bool:
        server.get("/lines")
        server.get("/greetings", method="POST")
        with contextlib.suppress(ConnectionError):  # a task that fails breaks the connection off, the answer being sent
            server.get("/greetings?fails=true", method="POST")
        with connect(f"ws{server.url.removeprefix('http')}/rooms") as socket:
            socket.send("hello")
            assert socket.recv() == "hello"
        left.difference_update({asked for asked in left if has_data(answers(busy, asked, "chat"))})
        return not left

    with serving(CHAT, tmp_path, OTEL_SERVICE_NAME="chat") as server, scraped(busy, "chat", server.url):
        eventually(lambda: no_more_silent(server), "the other service's panels have data", PATIENCE_SECONDS)


@contextmanager
def scraped(stack: RunningStack, service: str, url: str) -> Iterator[None]:
    """One target more."""
    path = stack.state.platform_targets
    before = path.read_text()
    target = {"targets": [url.removeprefix("http://")], "labels": {"service": service, "replica": f"{service}-1"}}
    write_atomically(path, json.dumps([*json.loads(before), target]))
    try:
        yield
    finally:
        write_atomically(path, before)


def test_trouble_shows(busy: RunningStack) -> None:
    """What is silent while all is well speaks when something fails, and the alert is marked on every graph."""
    faults, left = Faults(busy), set(ONLY_IN_TROUBLE)
    for replica in ("shop-1", "shop-2"):
        faults.set(replica, error_rate=0.5)
    marks = {asked for asked in annotation_queries() if asked.uid == uids.SERVICE and asked.ref_id == "Alerts"}
    assert marks

    def all_speak() -> bool:
        asked = [*marks, *(one for one in prometheus_queries() if place(one) in left)]
        return all(has_data(answers(busy, one, SHOP)) for one in asked)

    try:
        with Traffic(busy.url):
            eventually(all_speak, "trouble shows", PATIENCE_SECONDS)
    finally:
        for replica in ("shop-1", "shop-2"):
            faults.clear(replica)


def test_dots_lead_to_traces_that_jaeger_has(busy: RunningStack) -> None:
    """Every panel that asks for exemplars gets some, and one can be opened."""
    for uid, board in committed().items():
        for panel in panels(board):
            for target in panel["targets"]:
                if target.get("exemplar"):
                    expression = substituted(target["expr"], SHOP)
                    eventually(
                        lambda expression=expression: _opens(busy, expression),  # type: ignore[misc] # a default binds the loop's variable
                        f"a trace of {uid} / {panel['title']}",
                    )


def _opens(stack: RunningStack, expression: str) -> bool:
    found = [dot for one in stack.exemplars(expression, since=time.time() - 600) for dot in one["exemplars"]]
    newest = sorted(found, key=lambda dot: dot["timestamp"])[-5:]
    return any(stack.jaeger.trace(dot["labels"][names.EXEMPLAR_TRACE_ID]) for dot in newest)


def test_marks_show_what_happened(busy: RunningStack) -> None:
    """The first versions, the scale-out at the beginning, and a process that dies now."""
    started = f'{foreign.PROCESS_START}{{{names.LABEL_INSTANCE}="shop-1"}}'
    eventually(lambda: busy.query(started), "Prometheus knows the process that is to die")
    os.kill(busy.pid("shop-1"), signal.SIGKILL)

    def missing() -> set[str]:
        drawn = {
            asked.ref_id
            for asked in annotation_queries()
            if asked.uid == uids.SERVICE and has_data(answers(busy, asked, SHOP, seconds=600))
        }
        return {"Deploys", "Restarts", "Scaling"} - drawn

    eventually(lambda: not missing(), "a deploy, a restart and a scale-out are marked")
