"""`obslib doctor` on the demo's services: nothing to complain about, and the exit status says so."""

import json
import subprocess
import sys

import pytest

from tests.obslib.collector import running_collector
from tests.obslib.processes import DEADLINE_SECONDS, ROOT, environment


@pytest.mark.parametrize(("app", "engine"), [("app", "obslib"), ("payments", "contrib")])
def test_all_is_well_with_the_demo(app: str, engine: str) -> None:
    """Both engines' applications are found, observed once, and their collector takes what it is sent."""
    with running_collector() as collector:
        done = subprocess.run(
            [sys.executable, "-m", "obslib", "doctor", f"demo_service.{app}:create_app", "--json"],
            cwd=ROOT,
            env=environment(OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert len(collector.requests) == 1
    report = json.loads(done.stdout)
    assert [finding for finding in report["findings"] if finding["level"] != "note"] == []
    assert done.returncode == 0, done.stderr
    settings = {item["name"]: item["value"] for item in report["settings"]}
    assert (settings["engine"], settings["excluded_paths"]) == (engine, "/healthz,/readyz")
