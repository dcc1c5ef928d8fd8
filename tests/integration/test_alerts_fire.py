"""Every alert fires for what it is about, its runbook's first look has something to show, and it is told when it is over."""

import json
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from obslib import names
from prometheus import foreign, recorded
from stack.alerting import SCALE, WATCHDOG
from stack.components.catalogue import Component
from stack.notifications import Notification, NotificationLog
from stack.ports import any_free
from stack.processes import PAYMENTS, SHOP, WORKER
from stack.state import ROOT, write_atomically
from tests.docs.blocks import BLOCKS
from tests.integration.conftest import a_directory
from tests.integration.faults import Faults
from tests.integration.made_up import MadeUp
from tests.integration.running import RunningStack, eventually, frozen, running
from tests.integration.test_rules import run
from tests.integration.traffic import Traffic

GENERATED = ROOT / "prometheus" / "generated" / "rules"
LAST = 100_000
PATIENCE_SECONDS = 240
LEDGER, AUTOSCALER, PROMETHEUS, ALERTMANAGER = "ledger", "autoscaler", "prometheus", "alertmanager"

#: What the stack's faults and made-up targets bring about, and of which service it speaks.
STORIES = {
    "ServiceDown": PAYMENTS,
    "SLOErrorBudgetBurn": PAYMENTS,
    "SLOSignalMissing": SHOP,
    "DiscoveryEmpty": AUTOSCALER,
    "TargetsDown": AUTOSCALER,
    "PlatformDown": "jaeger",
    "ProbeFailing": SHOP,
    "ProbeMissing": SHOP,
    "EdgeDisagrees": SHOP,
    "ReplicaErrorsOutlier": SHOP,
    "ConcurrencySaturated": SHOP,
    "ServiceScaleInPossible": SHOP,
    "ServiceScaleOutNeeded": SHOP,
    "ScaleNotConverging": SHOP,
    "ScaleIneffective": SHOP,
    "ScaleSignalMissing": SHOP,
    "ScaleMaxedOut": WORKER,
    "ScaleFlapping": WORKER,
    "QueueBacklog": WORKER,
    "ConfigReloadFailed": PROMETHEUS,
    "RuleEvaluationFailing": PROMETHEUS,
    "AlertDeliveryFailing": ALERTMANAGER,
    **dict.fromkeys(
        (
            "CpuSaturated",
            "EventLoopLagHigh",
            "MemoryExhaustionPredicted",
            "FdExhaustion",
            "ConnectionPoolExhausted",
            "ThreadsExhausted",
            "DependencyFailing",
            "DatabaseFailing",
            "SpansDropped",
            "LogLinesDropped",
            "TelemetryErrors",
            "LabelBudgetSpent",
            "ServiceNameDisagrees",
        ),
        LEDGER,
    ),
    # Only of services that the policy knows.
    "ScrapeNearSampleLimit": AUTOSCALER,
    "ScrapeSlow": AUTOSCALER,
}
#: What takes days or weeks on any clock: a Prometheus that has seen them.
HISTORIES = {"TrafficDropped": PAYMENTS, "SLOBudgetExhausted": PAYMENTS, "SeriesGrowthPredicted": PROMETHEUS}


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert in the generated files by its name; of one that has several windows, the last."""
    documents = [yaml.safe_load(path.read_text()) for path in sorted(GENERATED.glob("*.yml"))]
    rules = [rule for document in documents for group in document["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


def first_looks(alert: str, service: str) -> list[str]:
    """The questions that an alert's runbook asks first, of the service that it is about."""
    page, _, anchor = alerts()[alert]["annotations"]["runbook_url"].rpartition("/")[2].partition("#")
    path = ROOT / "docs" / "runbooks" / page
    headings = [
        (number, line.removeprefix("## "))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.startswith("## ")
    ]
    begin = next(number for number, heading in headings if heading.lower() == anchor)
    end = next((number for number, _ in headings if number > begin), math.inf)
    blocks = [
        block.text
        for block in BLOCKS
        if block.page == str(path.relative_to(ROOT)) and block.language == "promql" and begin < block.line < end
    ]
    return [text.replace(f'"{SHOP}"', f'"{service}"').replace(f'"{SHOP}-1"', f'"{service}-many"') for text in blocks]


def test_every_alert_has_a_story() -> None:
    """A new alert is one nobody has seen fire yet; each says where to look first, with a question that can be asked."""
    assert {*STORIES, *HISTORIES, "Watchdog"} == set(alerts())
    assert [alert for alert in alerts() if not first_looks(alert, SHOP)] == []


class Told:
    """What a stack's receiver has been told."""

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack

    def notification(self, alert: str, status: str) -> Notification | None:
        every = NotificationLog(self._stack.state.notifications).last(LAST)
        wanted = (alerts()[alert]["labels"]["severity"], f"{alert} {STORIES[alert]}", status)
        if alert == "SLOErrorBudgetBurn":
            wanted = ("page", *wanted[1:])
        return next((one for one in every if (one.severity, one.alert, one.status) == wanted), None)

    def firing(self, *names_of_alerts: str) -> None:
        """Wait until people know of each, and its runbook's first look has something to show."""
        for alert in names_of_alerts:
            eventually(lambda alert=alert: self.notification(alert, "firing"), f"{alert} fires", PATIENCE_SECONDS)  # type: ignore[misc]
            for question in first_looks(alert, STORIES[alert]):
                eventually(
                    lambda question=question: self._stack.query(question),  # type: ignore[misc]
                    f"the runbook of {alert} has something to show: {question}",
                )

    def resolved(self, *names_of_alerts: str) -> None:
        for alert in names_of_alerts:
            if alerts()[alert]["labels"]["severity"] not in {SCALE, WATCHDOG}:
                eventually(lambda alert=alert: self.notification(alert, "resolved"), f"{alert} ends", PATIENCE_SECONDS)  # type: ignore[misc]


class Configuration:
    """The files that a stack's Prometheus and Alertmanager read; the supervisor writes none of them again."""

    def __init__(self, stack: RunningStack, made_up: MadeUp) -> None:
        self._stack = stack
        self._directory = stack.state.config
        self._made_up = made_up
        self._targets: dict[str, tuple[str, str, str]] = {}
        self._write_targets()
        document = yaml.safe_load((self._directory / "prometheus.yml").read_text())
        services = next(job for job in document["scrape_configs"] if job["job_name"] == "services")
        document["scrape_configs"] += [
            {**services, "job_name": job, "file_sd_configs": [{"files": [f"targets/{job}.json"]}]}
            | {"scrape_interval": often, "scrape_timeout": often}
            # Not the services' own interval, a time-out in tenths of a second: the test's process has other things to do.
            for job, often in (("made-up", "1s"), ("many", "3s"))
        ]
        self._good = yaml.safe_dump(document, sort_keys=False)

    def load(self) -> None:
        """Return when Prometheus has read it: what is written after that, it has not."""
        before = self._loaded_at()
        self._give(self._good)
        eventually(lambda: self._loaded_at() > before, "Prometheus has read its configuration")

    def spoil(self) -> None:
        self._give(self._good + "\nnonsense: [")

    def _give(self, text: str) -> None:
        # In one piece: a file that is just being written is empty, and to Prometheus that is a configuration.
        write_atomically(self._directory / "prometheus.yml", text)
        os.kill(self._stack.pid(PROMETHEUS), signal.SIGHUP)

    def _loaded_at(self) -> float:
        text = self._stack.http.get(f"{self._stack.prometheus_url}/metrics").text
        (value,) = re.findall(rf"^{foreign.CONFIG_LOADED_AT} (\S+)$", text, flags=re.MULTILINE)
        return float(value)

    def tell_at_once(self) -> None:
        """Shorter waits between messages than a tenth of fifteen minutes; who is told what stays as it is."""
        path = self._directory / "alertmanager.yml"
        path.write_text(re.sub(r"group_(wait|interval): \w+", r"group_\1: 2s", path.read_text()))
        os.kill(self._stack.pid(ALERTMANAGER), signal.SIGHUP)

    def add(self, service: str, replica: str, path: str, address: str = "") -> None:
        self._targets[replica] = (service, path, address or self._made_up.address)
        self._write_targets()

    def remove(self, *replicas: str) -> None:
        for replica in replicas:
            del self._targets[replica]
        self._write_targets()

    def _write_targets(self) -> None:
        for job in ("made-up", "many"):
            groups = [
                {"targets": [address], "labels": {"service": service, "replica": replica, "__metrics_path__": path}}
                for replica, (service, path, address) in self._targets.items()
                if (path == "/many") == (job == "many")
            ]
            write_atomically(self._directory / "targets" / f"{job}.json", json.dumps(groups))

    @contextmanager
    def failing_rule(self) -> Iterator[None]:
        """A group whose rule matches many to many."""
        path = self._directory / "rules" / "failing.yml"
        rule = {"record": "made_up:up:sum", "expr": "up * on () up"}
        path.write_text(yaml.safe_dump({"groups": [{"name": "failing", "interval": "500ms", "rules": [rule]}]}))
        self.load()
        try:
            yield
        finally:
            path.unlink()
            self.load()

    @contextmanager
    def no_probe(self) -> Iterator[None]:
        """The probe runs, and discovery does not know of it."""
        path = self._stack.state.platform_targets
        before = path.read_text()
        write_atomically(path, json.dumps([one for one in json.loads(before) if "probed" not in one["labels"]]))
        try:
            yield
        finally:
            write_atomically(path, before)

    @contextmanager
    def wrong_chat(self) -> Iterator[None]:
        """The secret of one chat is not the one that it knows."""
        path = self._stack.state.run / "alertmanager" / "chat_url_info"
        before = path.read_text()
        self._stack.state.write_secret(path, re.sub(r"/[^/]+/info", "/forgotten/info", before))
        try:
            yield
        finally:
            self._stack.state.write_secret(path, before)


def test_every_alert_fires_and_ends(components: Mapping[str, Component], request: pytest.FixtureRequest) -> None:
    """On a stack ten times as fast: twice as fast again, and scrapes time out on a busy machine."""
    with (
        a_directory(request) as path,
        running(path, components, "--time-scale", "1/10") as stack,
        MadeUp() as made_up,
    ):
        told, faults, configuration = Told(stack), Faults(stack), Configuration(stack, made_up)
        configuration.tell_at_once()
        configuration.add(LEDGER, "ledger-1", "/ill")
        with configuration.failing_rule(), configuration.wrong_chat(), configuration.no_probe():
            with frozen(stack.pid(PAYMENTS)), frozen(stack.pid("jaeger")):
                told.firing("ServiceDown", "DiscoveryEmpty", "PlatformDown")
            told.firing("ServiceScaleInPossible")
            _surround(configuration)
            faults.set("shop-1", latency_seconds=0.7, error_rate=1)
            faults.set("shop-2", latency_seconds=0.7)
            # One half goes past the balancer, to the replica that fails: it sees fewer errors than the shop.
            with Traffic(stack.url, 16), Traffic(stack.process_url("shop-1"), 16):
                began = time.monotonic()
                _flap(stack, configuration)
                told.firing("RuleEvaluationFailing", "ProbeMissing", "AlertDeliveryFailing")
                eventually(lambda: time.monotonic() - began > 60, "the shop has been slow for a while", 90)
                stack.scale(SHOP, 3)
                # A third one does not help: what they wait for takes longer, and how busy the machine was before is no matter.
                for replica in ("shop-1", "shop-2", "shop-3"):
                    faults.set(replica, latency_seconds=1.2, error_rate=1 if replica == "shop-1" else 0)
                _fail(stack, faults)
                told.firing("SLOErrorBudgetBurn", "ReplicaErrorsOutlier", "EdgeDisagrees", "ConcurrencySaturated")
                told.firing("ServiceScaleOutNeeded", "ScaleNotConverging", "ScaleSignalMissing", "ScaleFlapping")
                told.firing("ScaleIneffective", "QueueBacklog", "ScaleMaxedOut")
        configuration.spoil()
        with frozen(stack.pid("haproxy")):
            told.firing(*(alert for alert, service in STORIES.items() if service == LEDGER))
            told.firing("ScrapeNearSampleLimit", "ScrapeSlow", "TargetsDown")
            made_up.cure()
            configuration.remove("autoscaler-many", "autoscaler-slow", "autoscaler-2", "shop-reporter")
            configuration.remove(*(f"worker-idle-{number}" for number in range(1, 10)))
            told.firing("ProbeFailing", "ConfigReloadFailed", "SLOSignalMissing")
        for replica in ("shop-1", "shop-2", "shop-3"):
            faults.clear(replica)
        configuration.load()
        told.resolved(*STORIES)
        age = stack.status().watchdog_age_seconds
        assert age is not None
        assert stack.query(first_looks("Watchdog", PROMETHEUS)[0])


def _flap(stack: RunningStack, configuration: Configuration) -> None:
    """A tenth worker comes and goes, each time until the rules have seen it."""
    running_workers = f'{recorded.SCALE_RUNNING}{{{names.LABEL_SERVICE}="{WORKER}"}}'

    def seen(count: int) -> None:
        eventually(lambda: stack.query(f"{running_workers} == {count}"), f"{count} workers")

    for _ in range(5):
        configuration.add(WORKER, "worker-idle-10", "/idle")
        seen(11)
        configuration.remove("worker-idle-10")
        seen(10)


def _fail(stack: RunningStack, faults: Faults) -> None:
    """Every request to payments fails for as long as it takes to notice."""
    faults.set(PAYMENTS, error_rate=1)
    url = f"{stack.process_url(PAYMENTS)}/v1/authorisations"

    def burns() -> bool:
        assert stack.http.get(url).status_code == 500
        return bool(stack.query(f'ALERTS{{alertname="SLOErrorBudgetBurn", service="{PAYMENTS}", {foreign.FIRING}}}'))

    eventually(burns, "payments burns its budget")
    faults.clear(PAYMENTS)


def _surround(configuration: Configuration) -> None:
    """Replicas that are not there beside those that are: one is silent, one slow, one says too much, ten are idle."""
    configuration.add(AUTOSCALER, "autoscaler-1", "/idle")
    configuration.add(AUTOSCALER, "autoscaler-2", "/idle", f"127.0.0.1:{any_free(set())}")
    configuration.add(AUTOSCALER, "autoscaler-many", "/many")
    configuration.add(AUTOSCALER, "autoscaler-slow", "/slow")
    for number in range(1, 10):
        configuration.add(WORKER, f"worker-idle-{number}", "/idle")
    configuration.add(SHOP, "shop-reporter", "/backlog")


def _history(now: int) -> str:
    """Seven days and more of what rules and scrapes would have left, as OpenMetrics."""
    day, hour, minute = 86_400, 3_600, 60
    slo = f'{{{names.LABEL_SERVICE}="{PAYMENTS}",{recorded.LABEL_SLO}="availability"}}'
    service = f'{{{names.LABEL_SERVICE}="{PAYMENTS}"}}'
    itself = f'{{{names.LABEL_SERVICE}="{PROMETHEUS}",{names.LABEL_INSTANCE}="{PROMETHEUS}"}}'
    requests = (
        f'{names.HTTP_SERVER_REQUEST_DURATION}_count{{{names.LABEL_SERVICE}="{PAYMENTS}",{names.LABEL_INSTANCE}="1"}}'
    )
    week_ago = range(now - 7 * day - 10 * minute, now - 7 * day + 10 * minute, 15)
    # In order of time within each name, as promtool wants it.
    families: list[tuple[str, list[tuple[str, float, int]]]] = [
        (recorded.REQUESTS, [(f"{recorded.REQUESTS}{service}", 100, moment) for moment in week_ago]),
        # One request in ten seconds where a hundred a second came a week ago.
        (
            f"{names.HTTP_SERVER_REQUEST_DURATION}_count",
            [(requests, (moment - now + hour) / 10, moment) for moment in range(now - 10 * minute, now, 5)],
        ),
        *(
            (name, [(f"{name}{slo}", value, moment) for moment in range(now - 6 * day, now, 5 * minute)])
            # A hundredth fails, and a two-hundredth may.
            for name, value in ((recorded.slo_events("5m"), 100.0), (recorded.slo_bad_events("5m"), 1.0))
        ),
        (
            foreign.HEAD_SERIES,
            [
                (f"{foreign.HEAD_SERIES}{itself}", 60_000 + (moment - now), moment)
                for moment in range(now - 6 * hour, now, 30)
            ],
        ),
    ]
    lines = []
    for name, samples in families:
        lines += [f"# TYPE {name} gauge", *(f"{series} {value} {moment}" for series, value, moment in samples)]
    return "\n".join([*lines, "# EOF", ""])


@contextmanager
def _prometheus(component: Component, directory: Path, rules: dict[str, str]) -> Iterator[str]:
    """A Prometheus that scrapes nothing and has a past."""
    (directory / "rules").mkdir()
    for name, text in rules.items():
        (directory / "rules" / name).write_text(text)
    (directory / "prometheus.yml").write_text("global: {evaluation_interval: 1s}\nrule_files: [rules/*.yml]\n")
    (directory / "history").write_text(_history(int(time.time())))
    run(component, "promtool", "tsdb", "create-blocks-from", "openmetrics", "history", "data", directory=directory)
    port = any_free(set())
    command = [
        component.command("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        "--storage.tsdb.retention.time=15d",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **component.environment()}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert process.poll() is None, (directory / "log").read_text()
            try:
                return httpx.get(f"{url}/-/ready", trust_env=False).is_success
            except httpx.HTTPError:
                return False

        eventually(ready, "Prometheus is ready")
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("state", ["pending", "firing"])
def test_what_takes_a_week_fires_on_a_week_that_was(
    components: Mapping[str, Component], tmp_path: Path, state: str
) -> None:
    """The rules of production on a made-up past; for the firing ones only how long it has to last is cut short."""
    rules = {path.name: path.read_text() for path in GENERATED.glob("*.yml")}
    # The group of the long windows is evaluated once a minute.
    rules = {name: text.replace("interval: 1m\n", "interval: 1s\n") for name, text in rules.items()}
    if state == "firing":
        rules = {name: re.sub(r"^( +for: )\w+$", r"\g<1>1s", text, flags=re.MULTILINE) for name, text in rules.items()}
    with _prometheus(components["prometheus"], tmp_path, rules) as url:

        def found(alert: str) -> list[dict[str, Any]]:
            every = httpx.get(f"{url}/api/v1/alerts", trust_env=False).json()["data"]["alerts"]
            wanted = {"alertname": alert, names.LABEL_SERVICE: HISTORIES[alert]}
            return [one for one in every if one["state"] == state and one["labels"].items() >= wanted.items()]

        for alert, service in HISTORIES.items():
            eventually(lambda alert=alert: found(alert), f"{alert} is {state}")  # type: ignore[misc]
            for question in first_looks(alert, service):
                answer = httpx.get(f"{url}/api/v1/query", params={"query": question}, trust_env=False).json()
                assert answer["data"]["result"], question
