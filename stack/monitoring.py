"""Prometheus and Alertmanager, with the committed configuration: only what belongs to this machine is replaced."""

import shutil
from pathlib import Path
from typing import Final

from prometheus.durations import Clock
from prometheus.files import everything
from prometheus.read_policy import read
from stack import alerting
from stack.components.catalogue import Component
from stack.plan import Plan
from stack.ports import HOST
from stack.processes import ProcessSpec
from stack.state import ROOT, StateDirectory
from stack.time_scale import shortened

_SOURCE: Final = ROOT / "prometheus"
_RESEND: Final = "15s"


def prometheus(plan: Plan, component: Component) -> ProcessSpec:
    """Prometheus, which evaluates the rules and tells Alertmanager."""
    settings = plan.state.config / "prometheus.yml"
    settings.write_text(shortened((_SOURCE / "prometheus.yml").read_text(), plan.clock))
    _rules(plan)
    assets = component.shared_file("usr/share/prometheus/web")
    return ProcessSpec(
        name="prometheus",
        service="prometheus",
        command=(
            component.command("prometheus"),
            f"--config.file={settings}",
            f"--storage.tsdb.path={plan.state.data / 'prometheus'}",
            "--storage.tsdb.retention.time=15d",
            "--storage.tsdb.retention.size=8GB",
            f"--web.listen-address={HOST}:{plan.ports['prometheus']}",
            "--enable-feature=exemplar-storage",
            # What was lost on its way, or sent before Alertmanager was found, comes again.
            f"--rules.alert.resend-delay={plan.clock(_RESEND)}",
            *([f"--web.local-assets={assets}"] if assets else []),
        ),
        environment={**component.environment(), "GOMEMLIMIT": "300MiB"},
        port=plan.ports["prometheus"],
        url=plan.url("prometheus"),
        ready_url=plan.url("prometheus", "/-/ready"),
    )


def alertmanager(plan: Plan, component: Component) -> ProcessSpec:
    """Alertmanager, which tells the autoscaler and the supervisor's receiver."""
    settings = plan.state.config / "alertmanager.yml"
    secrets = alerting.Secrets(plan.state.run / "alertmanager", plan.url("notifications"))
    secrets.write(plan.state, plan.webhook_token)
    text = shortened((_SOURCE / "alertmanager.yml").read_text(), plan.clock)
    settings.write_text(alerting.configuration(text, secrets, autoscaler_url=plan.scale_url))
    _link(plan.state, "templates", "templates")
    return ProcessSpec(
        name="alertmanager",
        service="alertmanager",
        command=(
            component.command("alertmanager"),
            f"--config.file={settings}",
            f"--storage.path={plan.state.data / 'alertmanager'}",
            f"--web.listen-address={HOST}:{plan.ports['alertmanager']}",
            # Its messages lead back to it; by itself it would call itself by this machine's name.
            f"--web.external-url={plan.url('alertmanager')}",
            # One is enough here, and it would listen on every address for others.
            "--cluster.listen-address=",
        ),
        environment={**component.environment(), "GOMEMLIMIT": "100MiB"},
        port=plan.ports["alertmanager"],
        url=plan.url("alertmanager"),
        ready_url=plan.url("alertmanager", "/-/ready"),
    )


def _rules(plan: Plan) -> None:
    """The committed rules, or with another clock their twin, in which only durations differ."""
    directory = plan.state.config / "rules"
    if directory.is_dir() and not directory.is_symlink():
        shutil.rmtree(directory)
    if plan.clock == Clock():
        _link(plan.state, "rules", "generated/rules")
        return
    directory.unlink(missing_ok=True)
    directory.mkdir()
    for path, text in everything(read(_SOURCE / "policy.yml"), plan.clock).items():
        if Path(path).parts[0] == directory.name:
            (directory / Path(path).name).write_text(text)


def _link(state: StateDirectory, name: str, source: str) -> None:
    link = state.config / name
    link.unlink(missing_ok=True)
    link.symlink_to(_SOURCE / source)
