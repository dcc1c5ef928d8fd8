"""What Prometheus and Alertmanager are started with: the committed files, and what differs from them."""

import difflib
import json
import os
import re
import stat
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from prometheus.durations import Clock
from stack import ports, time_scale
from stack.alerting import Secrets, configuration
from stack.components.catalogue import ALERTMANAGER, PROMETHEUS, Component
from stack.components.install import Installation
from stack.errors import StackError
from stack.foundation import foundation
from stack.plan import Plan
from stack.state import ROOT, StateDirectory

SOURCE = ROOT / "prometheus"
TOKEN = "the-webhook-token"


def planned(path: Path, *, scale: str = "1", autoscales: bool = True) -> Plan:
    """A plan with Prometheus and Alertmanager, whose configurations have been written."""
    components = {
        name: Component(name=name, version="1", source="here", executables={name: f"/bin/{name}"})
        for name in (PROMETHEUS.name, ALERTMANAGER.name)
    }
    state = StateDirectory.at(path)
    state.create()
    plan = Plan(
        state=state,
        ports=dict(ports.PREFERRED),
        installation=Installation(components=components),
        webhook_token=TOKEN,
        autoscales=autoscales,
        clock=Clock(Fraction(scale)),
    )
    foundation(plan)
    return plan


def differences(committed: Any, written: Any, place: str = "") -> dict[str, Any]:
    """What stands in the one and not in the other, by place."""
    if isinstance(committed, dict) and isinstance(written, dict) and committed.keys() == written.keys():
        pairs = [(f"{place}.{key}", committed[key], written[key]) for key in committed]
    elif isinstance(committed, list) and isinstance(written, list) and len(committed) == len(written):
        both = zip(committed, written, strict=True)
        pairs = [(f"{place}.{number}", old, new) for number, (old, new) in enumerate(both)]
    else:
        return {} if committed == written else {place.lstrip("."): written}
    return {key: value for pair in pairs for key, value in differences(pair[1], pair[2], pair[0]).items()}


def test_only_secrets_places_and_addresses_differ(tmp_path: Path) -> None:
    """Routes, waits, templates and inhibitions are the committed ones."""
    plan = planned(tmp_path)
    run = plan.state.run / "alertmanager"
    committed = yaml.safe_load((SOURCE / "alertmanager.yml").read_text())
    written = yaml.safe_load((plan.state.config / "alertmanager.yml").read_text())

    webhook, token = "webhook_configs.0.url", "webhook_configs.0.http_config.authorization.credentials_file"
    chat = "slack_configs.0.api_url_file"
    assert differences(committed, written) == {
        f"receivers.0.{token}": f"{run}/autoscaler_token",
        f"receivers.1.{token}": f"{run}/watchdog_token",
        f"receivers.2.{chat}": f"{run}/chat_url_page",
        f"receivers.3.{chat}": f"{run}/chat_url_ticket",
        f"receivers.4.{chat}": f"{run}/chat_url_info",
    }
    assert written["receivers"][0]["webhook_configs"][0]["url"] == "http://127.0.0.1:9095/alerts"
    elsewhere = yaml.safe_load((planned(tmp_path, autoscales=False).state.config / "alertmanager.yml").read_text())
    assert differences(written, elsewhere) == {f"receivers.0.{webhook}": "http://127.0.0.1:9096/scale"}
    assert (plan.state.config / "templates" / "obslib.tmpl").read_text() == (
        SOURCE / "templates" / "obslib.tmpl"
    ).read_text()


def test_alertmanagers_secrets_are_for_one_pair_of_eyes(tmp_path: Path) -> None:
    """0600 in a 0700 directory; no configuration has them."""
    plan = planned(tmp_path)
    secrets = plan.state.run / "alertmanager"

    assert {path.name: path.read_text() for path in secrets.iterdir()} == {
        "autoscaler_token": f"{TOKEN}\n",
        "watchdog_token": f"{TOKEN}\n",
        **{f"chat_url_{name}": f"http://127.0.0.1:9096/{TOKEN}/{name}\n" for name in ("page", "ticket", "info")},
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o600}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    for path in plan.state.config.iterdir():
        if path.is_file():
            assert TOKEN not in path.read_text()


def test_a_receiver_that_nobody_is_here_is_a_sentence(tmp_path: Path) -> None:
    """A new one in the committed file must not be lost without a word."""
    with pytest.raises(StackError, match="nobody takes messages for the receiver 'sms' here"):
        configuration("receivers: [{name: sms, webhook_configs: []}]", Secrets(tmp_path, ""), autoscaler_url="")


def test_alertmanager_listens_to_this_machine_only(tmp_path: Path) -> None:
    """Nor for others of its kind."""
    specs = {spec.name: spec for spec in foundation(planned(tmp_path))}

    assert "--web.listen-address=127.0.0.1:9093" in specs["alertmanager"].command
    assert "--cluster.listen-address=" in specs["alertmanager"].command


def test_prometheus_is_started_with_the_committed_files(tmp_path: Path) -> None:
    """To the letter."""
    config = planned(tmp_path).state.config

    assert (config / "prometheus.yml").read_text() == (SOURCE / "prometheus.yml").read_text()
    assert os.path.realpath(config / "rules") == str(SOURCE / "generated" / "rules")


@pytest.mark.parametrize("name", ["prometheus.yml", "alertmanager.yml"])
def test_in_the_twin_only_durations_differ(tmp_path: Path, name: str) -> None:
    """Each is a twentieth of what is committed, but for those of nothing; every one is changed."""
    twin = (planned(tmp_path, scale="1/20").state.config / name).read_text()
    committed = (planned(tmp_path).state.config / name).read_text()
    if name == "alertmanager.yml":
        # Written by a program, so that the lines correspond.
        twin = twin.replace("/", "")
        committed = committed.replace("/", "")
    changed = [
        line for line in difflib.ndiff(committed.splitlines(), twin.splitlines()) if line.startswith(("- ", "+ "))
    ]

    assert len(changed) >= 2 * 7
    for line in changed:
        assert re.fullmatch(r"[-+]\s+(- )?\w+_(interval|timeout|wait): \w+", line), line
    left = {line.strip() for line in twin.splitlines() if re.search(r"_(interval|timeout|wait):", line)}
    assert not left & {line.strip() for line in committed.splitlines()} - {"group_wait: 0s"}
    assert "scrape_interval: 250ms" in twin or "repeat_interval: 500ms" in twin


def test_the_twins_rules_are_loaded_and_left_again(tmp_path: Path) -> None:
    """Whichever stack ran in the directory before."""
    rules = planned(tmp_path).state.config / "rules"
    names = {path.name for path in rules.iterdir()}
    planned(tmp_path, scale="1/20")
    assert not rules.is_symlink()
    assert {path.name for path in rules.iterdir()} == names
    assert "interval: 250ms" in (rules / "scaling.yml").read_text()
    planned(tmp_path, scale="1/10")
    assert "interval: 500ms" in (rules / "scaling.yml").read_text()
    planned(tmp_path)
    assert rules.is_symlink()
    assert "interval: 5s" in (SOURCE / "generated" / "rules" / "scaling.yml").read_text()


@pytest.mark.parametrize("text", ["1/21", "0", "2", "-1", "1/0", "fast", ""])
def test_an_impossible_time_scale_is_a_sentence(text: str) -> None:
    """With what would do."""
    with pytest.raises(StackError, match=r"--time-scale .*(write 1/20|between 1/20 and 1)\."):
        time_scale.parse(text)
    assert time_scale.parse("1/20") == Fraction(1, 20)


def test_the_autoscaler_is_told_everything_by_its_environment(tmp_path: Path) -> None:
    """Ports, files, the twin's clock; no secret but by its file."""
    plan = planned(tmp_path, scale="1/20")
    spec = plan.autoscaler()
    settings = {key: value for key, value in spec.environment.items() if key.startswith("AUTOSCALER_")}

    assert settings == {
        "AUTOSCALER_HOST": "127.0.0.1",
        "AUTOSCALER_PORT": "9095",
        "AUTOSCALER_POLICY_FILE": str(SOURCE / "policy.yml"),
        "AUTOSCALER_PROMETHEUS_URL": "http://127.0.0.1:9090",
        "AUTOSCALER_ACTUATOR": "processes",
        "AUTOSCALER_SUPERVISOR_SOCKET": str(plan.state.control_socket),
        "AUTOSCALER_WEBHOOK_TOKEN_FILE": str(plan.state.webhook_token),
        "AUTOSCALER_OPERATOR_TOKEN_FILE": str(plan.state.operator_token),
        "AUTOSCALER_TICK_SECONDS": "",
        "AUTOSCALER_TIME_SCALE": "1/20",
    }
    assert json.dumps(spec.environment).count("autoscaler") >= 2
