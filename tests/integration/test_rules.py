"""The generated rules, and who is told, with the real promtool, Prometheus, amtool and Alertmanager."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from obslib import names
from stack.components.catalogue import Component
from stack.ports import any_free
from stack.state import ROOT
from tests.docs.blocks import BLOCKS
from tests.integration import messages
from tests.integration.running import RunningStack, eventually

RULES = ROOT / "prometheus"
TESTS = sorted((RULES / "generated" / "tests").glob("*.yml"))


def run(component: Component, program: str, *arguments: str, directory: Path = RULES) -> str:
    """What a program printed; it must have succeeded."""
    answer = subprocess.run(
        [component.command(program), *arguments],
        cwd=directory,
        env={**os.environ, **component.environment()},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture
def promtool(components: Mapping[str, Component]) -> Component:
    return components["prometheus"]


@pytest.fixture
def alertmanager(components: Mapping[str, Component]) -> Component:
    return components["alertmanager"]


@pytest.mark.computes
def test_promtool_accepts_the_rules_and_the_configuration(promtool: Component, tmp_path: Path) -> None:
    """Those of production and those of the end-to-end tests, with the checks for duplicates and the like."""
    twin = tmp_path / "rules"
    command = [sys.executable, "-m", "prometheus.generate", "--time-scale", "1/20", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    for directory in (RULES / "generated" / "rules", twin):
        files = sorted(map(str, directory.glob("*.yml")))
        assert "FAILED" not in run(promtool, "promtool", "check", "rules", "--lint-fatal", *files)
    shutil.copy(RULES / "prometheus.yml", tmp_path)
    (tmp_path / "targets").mkdir()
    for name in ("services", "autoscaler", "platform", "alertmanagers"):
        (tmp_path / "targets" / f"{name}.json").write_text("[]\n")

    assert "rule files found" in run(promtool, "promtool", "check", "config", str(tmp_path / "prometheus.yml"))


def test_every_query_of_the_runbooks_can_be_asked(promtool: Component, tmp_path: Path) -> None:
    """promtool reads each of them as the expression of a rule."""
    queries = [block.text.strip() for block in BLOCKS if block.language == "promql"]
    rules = [{"record": f"runbook:query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))

    assert f"{len(queries)} rules found" in run(promtool, "promtool", "check", "rules", str(tmp_path / "queries.yml"))
    assert len(queries) > 40


@pytest.mark.computes
def test_promtool_finds_that_every_rule_does_what_it_should(promtool: Component) -> None:
    """Each alert fires when it must and is silent when it must be; missing data never cost a replica."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(
            pool.map(lambda path: run(promtool, "promtool", "test", "rules", path.name, directory=path.parent), TESTS)
        )

    assert len(said) >= 8
    assert all("SUCCESS" in text for text in said)


SCALING = "min_replicas: 1, max_replicas: 8"
MANY = "min_replicas: 5, max_replicas: 8"
CROWD = "min_replicas: 1, max_replicas: 30"
FIXED = "min_replicas: 1, max_replicas: 1"


@pytest.mark.computes
@pytest.mark.parametrize(
    "services",
    [
        f"batch: {{scaling: {{{SCALING}, cpu: 70%}}}}",
        f"api: {{scaling: {{{SCALING}, in_flight_per_replica: 5}}}}",
        f"jobs: {{scaling: {{{SCALING}, backlog: {{metric: jobs_waiting, reported_by: jobs, jobs_per_replica: 20}}}}}}",
        f"api: {{scaling: {{{MANY}, in_flight_per_replica: 5, cpu: 70%}}}}",
        f"api: {{scaling: {{{CROWD}, in_flight_per_replica: 5, cpu: 70%}}}}",
        f"api: {{scaling: {{{FIXED}, in_flight_per_replica: 5}}}}",
    ],
    ids=["cpu", "in flight", "backlog", "five at least", "thirty at most", "always one"],
)
def test_rules_of_other_policies_do_what_they_should(promtool: Component, tmp_path: Path, services: str) -> None:
    """The tests that are written for somebody else's services pass with the rules that are written for them."""
    policy = tmp_path / "policy.yml"
    head, _, _ = (RULES / "policy.yml").read_text().partition("\nservices:\n")
    policy.write_text(f"{head}\nservices:\n  {services}\n")
    command = [sys.executable, "-m", "prometheus.generate", "--policy", str(policy), "--output", str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)

    # How far to scale depends on the signals; the other rules are the same for everybody.
    assert "SUCCESS" in run(promtool, "promtool", "test", "rules", "scaling.yml", directory=tmp_path / "out" / "tests")


@pytest.mark.computes
@pytest.mark.parametrize(
    ("expression", "instead"),
    [
        ("service:slo_bad_events:increase5m >= 5", "service:slo_bad_events:increase5m >= 0"),
        ("sum by (namespace, service, instance) (rate(http_server", "sum by (namespace, service, instance, worker) (rate(http_server"),
        ("service:scale_demand_complete:count == on (namespace, service) service:scale_demand_expected:count", "service:scale_demand_complete:count >= on (namespace, service) 1"),
        ("service:up:count == on (namespace, service) service:scale_running:replicas", "service:up:count > on (namespace, service) 0"),
    ],
)  # fmt: skip
def test_promtool_finds_a_rule_that_was_broken(
    promtool: Component, tmp_path: Path, expression: str, instead: str
) -> None:
    """The tests can fail: without the least number of bad events, by worker, with a signal or a replica lost."""
    broken = shutil.copytree(RULES / "generated", tmp_path / "generated")
    changed = 0
    for path in (broken / "rules").glob("*.yml"):
        text = path.read_text()
        changed += text.count(expression)
        path.write_text(text.replace(expression, instead))
    assert changed
    name = "scaling" if "scale" in expression else "symptoms" if "instance" in expression else "slo"

    with pytest.raises(AssertionError, match="FAILED"):
        run(promtool, "promtool", "test", "rules", f"{name}.yml", directory=broken / "tests")


@pytest.mark.computes
def test_every_alert_says_what_is_written_down(promtool: Component) -> None:
    """Labels, values, the times that links are about: what Prometheus makes of the templates, to the letter."""
    said = messages.said_by(promtool)

    assert said == yaml.safe_load(messages.FILE.read_text()), (
        "python -m tests.integration.messages, and read the change"
    )
    assert {key.split()[0] for key in said} == {
        rule["alert"]
        for path in (RULES / "generated" / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def test_the_demos_prometheus_evaluates_every_rule(stack: RunningStack) -> None:
    """Each of the committed ones, without an error."""
    written = {
        (group["name"], rule.get("record") or rule["alert"])
        for path in (RULES / "generated" / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    }

    def evaluated() -> list[dict[str, Any]]:
        answer = stack.http.get(f"{stack.prometheus_url}/api/v1/rules")
        answer.raise_for_status()
        rules = [
            {**rule, "group": group["name"]} for group in answer.json()["data"]["groups"] for rule in group["rules"]
        ]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    rules = eventually(evaluated, "every rule has been evaluated", 120)

    assert {(rule["group"], rule["name"]) for rule in rules} == written
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_the_demos_services_have_a_number_of_replicas(stack: RunningStack) -> None:
    """Every signal of the shop is there, and what is desired follows: without load one replica is enough."""
    shop = f'{{{names.LABEL_SERVICE}="shop"}}'

    def desired() -> bool:
        found = stack.query(f"service:scale_desired:replicas{shop}")
        return [entry["value"][1] for entry in found] == ["1"]

    eventually(desired, "one replica is desired")
    assert {entry["metric"]["signal"] for entry in stack.query(f"service:scale_demand:replicas{shop}")} == {
        "in_flight",
        "cpu",
    }


ROUTES = [
    ({"severity": "page"}, "page"),
    ({"severity": "ticket"}, "ticket"),
    ({"severity": "info"}, "info"),
    ({"severity": "scale", "alertname": "ServiceScaleOutNeeded"}, "scale"),
    ({"severity": "watchdog"}, "watchdog"),
    ({"severity": "typo"}, "ticket"),
    ({}, "ticket"),
]


@pytest.mark.parametrize(("labels", "receiver"), ROUTES)
def test_an_alert_goes_where_its_severity_says(alertmanager: Component, labels: dict[str, str], receiver: str) -> None:
    """One that has none, or a wrong one, is still somebody's."""
    arguments = [f"{label}={value}" for label, value in labels.items()]
    said = run(alertmanager, "amtool", "config", "routes", "test", "--config.file=alertmanager.yml", *arguments)

    assert said.strip() == receiver


def test_amtool_accepts_the_configuration(alertmanager: Component) -> None:
    """Templates and inhibitions included."""
    assert "SUCCESS" in run(alertmanager, "amtool", "check-config", "alertmanager.yml")


class _Receiver(ThreadingHTTPServer):
    """Takes messages; the path says from which receiver."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any], str]] = []
        super().__init__(("127.0.0.1", 0), _Taker)


class _Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, _Receiver)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.messages.append((self.path, body, self.headers.get("Authorization", "")))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def listening() -> Iterator[_Receiver]:
    with _Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


@contextmanager
def told(alertmanager: Component, directory: Path) -> Iterator[tuple[str, _Receiver]]:
    """A real Alertmanager with the committed configuration; only addresses and waits are the test's own."""
    with listening() as receiver:
        here = f"http://127.0.0.1:{receiver.server_address[1]}"
        text = (RULES / "alertmanager.yml").read_text()
        text = text.replace("http://127.0.0.1:9095", here).replace("http://127.0.0.1:9096", here)
        text = text.replace("/etc/alertmanager/secrets", str(directory / "secrets"))
        for wait in ("10s", "30s", "1m", "5m"):
            text = text.replace(f"group_wait: {wait}", "group_wait: 1s")
        (directory / "alertmanager.yml").write_text(text)
        shutil.copytree(RULES / "templates", directory / "templates")
        (directory / "secrets").mkdir()
        secrets = {"chat_url": f"{here}/chat", "autoscaler_token": "for-scaling", "watchdog_token": "for-the-dog"}
        for name, secret in secrets.items():
            (directory / "secrets" / name).write_text(secret)
        port = any_free(set())
        command = [
            alertmanager.command("alertmanager"),
            f"--config.file={directory / 'alertmanager.yml'}",
            f"--storage.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"

            def ready() -> bool:
                assert process.poll() is None, (directory / "log").read_text()
                try:
                    return httpx.get(f"{url}/-/ready", trust_env=False).is_success
                except httpx.HTTPError:
                    return False

            eventually(ready, "Alertmanager is ready")
            yield url, receiver
        finally:
            process.terminate()
            process.wait(30)


def post(url: str, *alerts: dict[str, str]) -> None:
    now = datetime.now(UTC)
    annotations = {
        "summary": "shop burns its budget",
        "description": "12% of the events broke it",
        **{f"{page}_url": f"http://{page}/shop?from=1&to=2" for page in ("runbook", "dashboard", "traces", "logs")},
    }
    body = [
        {
            "labels": {"service": "shop", **labels},
            "annotations": annotations,
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(minutes=10)).isoformat(),
        }
        for labels in alerts
    ]
    httpx.post(f"{url}/api/v2/alerts", json=body, trust_env=False).raise_for_status()


BURN = {"alertname": "SLOErrorBudgetBurn", "severity": "page", "kind": "symptom", "slo": "availability", "window": "1h"}


def test_messages_lead_on_and_carry_their_secrets(alertmanager: Component, tmp_path: Path) -> None:
    """A page has its value and four links; the autoscaler and the dead man's switch get their tokens."""
    with told(alertmanager, tmp_path) as (url, receiver):
        post(
            url,
            BURN,
            {"alertname": "ServiceScaleOutNeeded", "severity": "scale", "kind": "scaling"},
            {"alertname": "Watchdog", "severity": "watchdog", "kind": "pipeline"},
        )
        eventually(lambda: {path for path, _, _ in receiver.messages} >= {"/chat", "/alerts", "/watchdog"}, "messages")
        messages = {path: (body, token) for path, body, token in receiver.messages}

    page = messages["/chat"][0]["attachments"][0]
    assert page["title"] == "[FIRING 1] page: SLOErrorBudgetBurn shop"
    assert page["title_link"] == "http://dashboard/shop?from=1&to=2"
    assert page["color"] == "danger"
    assert "12% of the events broke it" in page["text"]
    for name in ("runbook", "dashboard", "traces", "logs"):
        assert f"http://{name}/shop?from=1&to=2|{name}>" in page["text"].replace("&amp;", "&")
    body, token = messages["/alerts"]
    assert token == "Bearer for-scaling"
    assert [alert["labels"]["alertname"] for alert in body["alerts"]] == ["ServiceScaleOutNeeded"]
    assert messages["/watchdog"][1] == "Bearer for-the-dog"


DOWN = {"alertname": "ServiceDown", "severity": "page", "kind": "symptom"}
MAINTENANCE = {"alertname": "Maintenance"}
INHIBITED = [
    (BURN, {"alertname": "SLOErrorBudgetBurn", "severity": "ticket", "slo": "availability", "window": "3d"}, True),
    (BURN, {"alertname": "SLOErrorBudgetBurn", "severity": "ticket", "slo": "latency", "window": "3d"}, False),
    (BURN, {"alertname": "EventLoopLagHigh", "severity": "ticket", "kind": "cause"}, False),
    (BURN, {"alertname": "ServiceScaleInPossible", "severity": "scale", "kind": "scaling"}, True),
    (BURN, {"alertname": "ServiceScaleOutNeeded", "severity": "scale", "kind": "scaling"}, False),
    (DOWN, {"alertname": "EventLoopLagHigh", "severity": "ticket", "kind": "cause"}, True),
    (DOWN, {"alertname": "EventLoopLagHigh", "severity": "ticket", "kind": "cause", "service": "payments"}, False),
    (DOWN, {"alertname": "SpansDropped", "severity": "ticket", "kind": "pipeline"}, False),
    (MAINTENANCE, DOWN, True),
    (MAINTENANCE, {**DOWN, "service": "payments"}, False),
    ({**MAINTENANCE, "scope": "all"}, {**DOWN, "service": "payments"}, True),
    ({**MAINTENANCE, "scope": "all"}, {"alertname": "Watchdog", "severity": "watchdog"}, False),
]


@pytest.mark.parametrize(("source", "target", "silent"), INHIBITED)
def test_what_is_already_known_is_silent(
    alertmanager: Component, tmp_path: Path, source: dict[str, str], target: dict[str, str], silent: bool
) -> None:
    """A page over its tickets, down over causes, a burning budget over scale-in, maintenance over all."""

    def state(wanted: dict[str, str]) -> str:
        labels = {"service": "shop", **wanted}
        answer = httpx.get(f"{url}/api/v2/alerts", trust_env=False).json()
        return "".join(str(alert["status"]["state"]) for alert in answer if alert["labels"] == labels)

    with told(alertmanager, tmp_path) as (url, _):
        # The first is known before the second comes, or the second would be active for a moment.
        post(url, source)
        eventually(lambda: state(source) == "active", "the first alert is known")
        post(url, target)
        # "unprocessed" until its group has been looked at.
        found = eventually(lambda: state(target).replace("unprocessed", ""), "the second alert is known")

    assert found == ("suppressed" if silent else "active")
