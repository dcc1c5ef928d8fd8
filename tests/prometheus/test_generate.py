"""What is generated: complete, up to date, and the same at any time scale."""

import re
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo_service import metrics
from demo_service.capacity import DEFAULT
from obslib import names
from prometheus import foreign, recorded
from prometheus.cases import calm
from prometheus.cases.case import Alerting
from prometheus.durations import Clock, Duration
from prometheus.files import alerts, everything, rule_groups
from prometheus.generate import main
from prometheus.links import DASHBOARDS
from prometheus.promtool import all_cases
from prometheus.read_policy import parse, read
from prometheus.rules import SEVERITIES, Alert
from stack.components.catalogue import Component
from stack.components.install import Installation
from stack.foundation import foundation
from stack.plan import Plan
from stack.ports import PREFERRED
from stack.state import StateDirectory
from tests.docs.blocks import BLOCKS, Block
from tests.prometheus.expressions import is_exposed, metrics_in
from tests.prometheus.test_policy import GOOD

ROOT = Path(__file__).parents[2]
COMMITTED = read(ROOT / "prometheus" / "policy.yml")
RUNBOOKS = ROOT / "docs" / "runbooks"
EVERY_ALERT = alerts(group for groups in rule_groups(COMMITTED, Clock()).values() for group in groups)


@cache
def generated(scale: Fraction = Fraction(1)) -> dict[str, str]:
    """The committed policy's files; writing them takes seconds."""
    return everything(COMMITTED, Clock(scale))


def rules_in(files: dict[str, str]) -> list[dict[str, Any]]:
    documents = [yaml.safe_load(text) for path, text in files.items() if path.startswith("rules/")]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]


@cache
def rules() -> list[dict[str, Any]]:
    """The committed policy's rules, as Prometheus reads them."""
    return rules_in(generated())


def test_the_committed_files_are_what_the_policy_says() -> None:
    """`make check` says so, too; here it is said which test would fail."""
    assert main(["--check"]) == 0


def test_a_file_that_was_edited_and_one_that_nobody_wants_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And mended by writing again."""
    policy = tmp_path / "policy.yml"
    policy.write_text(GOOD)
    there = ["--policy", str(policy), "--output", str(tmp_path / "out")]
    assert main(there) == 0
    assert main([*there, "--check"]) == 0

    edited, unwanted = tmp_path / "out/rules/slo.yml", tmp_path / "out/rules/old.yml"
    edited.write_text(edited.read_text() + "\n")
    unwanted.write_text(edited.read_text())

    assert main([*there, "--check"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[0] for line in said] == [str(unwanted), str(edited)]
    assert main(there) == 0
    assert main([*there, "--check"]) == 0


def test_what_somebody_else_keeps_there_stays(tmp_path: Path) -> None:
    """Whoever has the rules written into /etc/prometheus keeps the configuration that is there."""
    own = tmp_path / "prometheus.yml"
    own.write_text("global: {}\n")

    assert main(["--output", str(tmp_path)]) == 0

    assert own.read_text() == "global: {}\n"
    assert main(["--output", str(tmp_path), "--check"]) == 0


def test_rules_for_tests_never_take_the_place_of_the_real_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """They are five times as fast, and would page five times as soon."""
    with pytest.raises(SystemExit):
        main(["--time-scale", "1/5", "--check"])
    assert "--time-scale needs an --output of its own" in capsys.readouterr().err


def test_a_wrong_policy_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake is said, with the file's name."""
    policy = tmp_path / "policy.yml"
    policy.write_text(GOOD.replace("period: 7d", "period: 30d"))

    assert main(["--policy", str(policy), "--output", str(tmp_path / "out")]) == 1

    assert f"{policy}:6: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scale", ["0", "2", "fast", "1/0"])
def test_a_time_scale_that_makes_no_sense_is_refused(scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence has an example that does."""
    with pytest.raises(SystemExit):
        main(["--time-scale", scale])

    assert "1/20" in capsys.readouterr().err


TOKEN = re.compile(r"(?<![\w.])((?:\d+(?:ms|[dhms]))+|\d+(?:\.\d+)?)(?!\w)")


def test_at_another_time_scale_only_durations_differ() -> None:
    """Word by word: what differs is a duration, or a number of seconds, and is a twentieth of it."""
    scale = Fraction(1, 20)
    real, twin = generated(), generated(scale)
    # A cluster is never a twin: Kubernetes takes whole seconds.
    assert set(twin) == {path for path in real if path.startswith("rules/") or path.endswith("/prometheus-rule.yml")}
    shorter = 0
    for path, text in twin.items():
        ours, theirs = TOKEN.split(real[path]), TOKEN.split(text)
        assert ours[::2] == theirs[::2], path
        for one, other in zip(ours[1::2], theirs[1::2], strict=True):
            if one != other:
                assert _length(other) == _length(one) * scale, f"{path}: {one} became {other}"
                shorter += 1
    assert shorter > 200


def _length(text: str) -> Fraction:
    return Duration.parse(text).seconds if text[-1].isalpha() else Fraction(text)


def test_no_duration_escapes_the_time_scale() -> None:
    """Each range, offset, wait and interval of the twin differs from the real one's."""
    places = re.compile(
        r"\[([^\]:]+)(?::([^\]]+))?\]|offset (\w+)|^\s+(?:for|keep_firing_for|interval): (\w+)$", re.MULTILINE
    )
    real, twin = generated(), generated(Fraction(1, 20))
    for path, text in twin.items():
        for one, other in zip(places.finditer(real[path]), places.finditer(text), strict=True):
            for ours, theirs in zip(one.groups(), other.groups(), strict=True):
                assert ours is None or ours != theirs, f"{path}: {one.group()}"


@pytest.mark.parametrize("alert", EVERY_ALERT, ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_an_alert_says_how_bad_it_is_and_where_to_look(alert: Alert) -> None:
    """Its runbook has a section, its dashboard a uid that is promised, its link the service and the time."""
    (rule, *_) = [
        rule
        for rule in rules()
        if rule.get("alert") == alert.name and rule["labels"].items() >= {"severity": alert.severity}.items()
    ]
    said = rule["annotations"]

    assert rule["labels"]["severity"] in SEVERITIES
    assert set(said) == {"summary", "description", "runbook_url", "dashboard_url", "traces_url", "logs_url"}
    page, anchor = said["runbook_url"].rpartition("/")[2].split("#")
    headings = re.findall(r"^## (\w+)$", (RUNBOOKS / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower() for heading in headings}
    assert alert.dashboard in DASHBOARDS
    assert f"/d/{alert.dashboard}?" in said["dashboard_url"]
    for part in ("var-namespace={{ $labels.namespace }}", "var-service={{ $labels.service }}", "&from={{", "&to={{"):
        assert part in said["dashboard_url"]
    assert "$value" in said["description"] or alert.name in WITHOUT_VALUE


#: What these are about is that something is not there.
WITHOUT_VALUE = {
    "AlertDeliveryFailing",
    "ConfigReloadFailed",
    "DiscoveryEmpty",
    "PlatformDown",
    "ProbeMissing",
    "SLOSignalMissing",
    "ServiceNameDisagrees",
    "Watchdog",
}


def test_every_section_of_a_runbook_is_complete() -> None:
    """What it means, what to look at, what to do, how to know that it is over; and it is about an alert that exists."""
    known = {alert.name for alert in EVERY_ALERT} | {"Maintenance"}
    found = []
    for page in RUNBOOKS.glob("*.md"):
        for section in page.read_text().split("\n## ")[1:]:
            name, text = section.split("\n", 1)
            found.append(name)
            parts = re.split(r"\*\*(Look first\.|Do\.|Over)\*\*", text)
            assert parts[1::2] == ["Look first.", "Do.", "Over"], f"{page.name}: {name}"
            assert all(len(part.strip()) > 15 for part in parts[::2]), f"{page.name}: {name}"
    assert sorted(found) == sorted(known)


def test_links_between_runbooks_lead_somewhere() -> None:
    """A link in the night must not be a dead end."""
    for page in [*RUNBOOKS.glob("*.md"), ROOT / "docs/alerting.md", ROOT / "docs/policy.md"]:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            file, _, anchor = target.partition("#")
            path = page.parent / file if file else page
            assert path.exists(), f"{page.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
                assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, f"{page.name}: {target}"


def test_every_alert_is_tested_to_fire_and_not_to_fire() -> None:
    """An alert that nobody has seen fire does not; one that nobody has seen silent cries wolf."""
    checks = [
        check
        for cases in all_cases(COMMITTED).values()
        for case in cases
        for check in case.checks
        if isinstance(check, Alerting)
    ]
    every = {alert.name for alert in EVERY_ALERT}

    assert {check.alert for check in checks if check.fires} == every
    assert {check.alert for check in checks if not check.fires} == every - {"Watchdog"}


def test_a_calm_day_has_every_series_that_rules_read() -> None:
    """Silence proves nothing about an alert whose series are not there; only kube-state-metrics' stand for others."""
    made = {rule["record"] for rule in rules() if "record" in rule}
    read_by_rules = {metric for rule in rules() for metric in metrics_in(rule["expr"])} - made

    for case in calm.cases(COMMITTED):
        there = {selector.partition("{")[0] for selector in case.series}
        assert read_by_rules - there == {foreign.KUBE_REPLICAS, foreign.ALERTS}, case.name


def test_rules_read_only_what_somebody_exposes() -> None:
    """obslib, a program that is named in `foreign`, the policy's own queue, or another rule."""
    made = {rule["record"] for rule in rules() if "record" in rule}
    read_by_rules = {metric for rule in rules() for metric in metrics_in(rule["expr"])}

    assert {metric for metric in read_by_rules if not is_exposed(metric, made)} == set()


RUNBOOK_QUERIES = [block for block in BLOCKS if block.language == "promql"]


@pytest.mark.parametrize("block", RUNBOOK_QUERIES, ids=str)
def test_a_runbooks_query_reads_what_there_is(block: Block) -> None:
    """In the night nobody should have to find out that a metric is called otherwise."""
    made = {rule["record"] for rule in rules() if "record" in rule}

    assert {metric for metric in metrics_in(block.text) if not is_exposed(metric, made)} == set()


def _is_series(name: str, value: object) -> bool:
    return name.isupper() and isinstance(value, str) and not name.startswith("LABEL_")


def test_what_is_promised_to_readers_is_recorded() -> None:
    """Dashboards and the autoscaler read series by the names in `recorded`."""
    made = {rule["record"] for rule in rules() if "record" in rule}
    promised = {value for name, value in vars(recorded).items() if _is_series(name, value)}

    assert promised - made == set()


def test_no_rule_groups_by_worker() -> None:
    """Workers are one service's inside: every rule sums them away."""
    assert not [rule for rule in rules() if names.LABEL_WORKER + "," in rule["expr"] or "worker)" in rule["expr"]]


def test_the_policy_knows_the_demo() -> None:
    """Its queue, its target, its retention and its limits are the demo's own."""
    shop, worker = COMMITTED.services["shop"], COMMITTED.services["worker"]
    assert shop.scaling is not None
    assert worker.scaling is not None
    assert worker.scaling.backlog is not None
    assert shop.scaling.in_flight_per_replica == DEFAULT.in_flight_target
    assert worker.scaling.backlog.metric == metrics.BACKLOG
    assert worker.scaling.backlog.jobs_per_replica == 5 / Fraction(str(DEFAULT.job_seconds))

    server = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    assert server["global"]["scrape_interval"] == str(COMMITTED.server.scrape_interval)
    assert server["global"]["scrape_timeout"] == str(COMMITTED.server.scrape_timeout)
    limits = {job["sample_limit"] for job in server["scrape_configs"] if "sample_limit" in job}
    assert limits == {COMMITTED.server.sample_limit}


def test_the_demos_prometheus_is_started_as_the_policy_says(tmp_path: Path) -> None:
    """It keeps what the budgets are counted over, and its rules are the committed ones."""
    state = StateDirectory.at(tmp_path)
    state.create()
    program = Component(name="prometheus", version="2.42.0", source="PATH", executables={"prometheus": "prometheus"})
    plan = Plan(state=state, ports=dict(PREFERRED), installation=Installation(components={"prometheus": program}))

    (prometheus,) = foundation(plan)

    assert f"--storage.tsdb.retention.time={COMMITTED.server.retention}" in prometheus.command
    assert (state.config / "rules" / "slo.yml").read_text() == generated()["rules/slo.yml"]


def test_a_policy_without_promises_has_no_rules_about_them() -> None:
    """A user may begin with a name."""
    start = GOOD.index("services:")
    bare = parse(GOOD[:start] + "services:\n  api: {}\n")

    files = everything(bare, Clock())

    assert {path for path in files if path.startswith("rules/")} == {
        "rules/requests.yml",
        "rules/symptoms.yml",
        "rules/causes.yml",
        "rules/pipeline.yml",
    }


def test_the_cluster_gets_the_same_rules() -> None:
    """The operator's object holds every group of every file, in their order."""
    files = generated()
    cluster = yaml.safe_load(files["kubernetes/prometheus-rule.yml"])
    local = [
        group for path, text in files.items() if path.startswith("rules/") for group in yaml.safe_load(text)["groups"]
    ]

    assert cluster["kind"] == "PrometheusRule"
    assert cluster["spec"]["groups"] == local


def test_a_namespace_is_part_of_a_services_name() -> None:
    """Two services of one name in two namespaces are two."""
    policy = parse(GOOD.replace("  shop:\n", "  shop:\n    namespace: eu\n"))
    labels = [
        rule["labels"] for rule in rules_in(everything(policy, Clock())) if rule.get("record") == recorded.SCALE_MAX
    ]

    assert {"namespace": "eu", "service": "shop"} in labels
