"""From a rule that fires to the person who reads it, and to the autoscaler, in the stack as it runs."""

import os
import re
import signal
from collections.abc import Iterator, Mapping

import pytest

from obslib import names
from prometheus import foreign
from stack.alerting import SCALE
from stack.components.catalogue import Component
from stack.notifications import Notification, NotificationLog
from stack.processes import PAYMENTS, SHOP, WORKER
from tests.integration.conftest import a_directory
from tests.integration.running import RunningStack, eventually, frozen, running
from tests.integration.test_commands import command

LAST = 1000


@pytest.fixture(scope="module")
def twin(components: Mapping[str, Component], request: pytest.FixtureRequest) -> Iterator[RunningStack]:
    """A stack of its own with its autoscaler, twenty times as fast."""
    with (
        a_directory(request) as path,
        running(path, components, "--time-scale", "1/20", autoscaler=True) as stack,
    ):
        yield stack


def told(stack: RunningStack, severity: str, status: str, alert: str) -> Notification | None:
    """The newest message of that kind."""
    every = NotificationLog(stack.state.notifications).last(LAST)
    wanted = (severity, status, alert)
    return next((one for one in reversed(every) if (one.severity, one.status, one.alert) == wanted), None)


def test_the_watchdog_is_heard(stack: RunningStack) -> None:
    """Rule, Prometheus, Alertmanager and receiver, in the times of production; people see that it lives."""

    def heard() -> bool:
        age = stack.status().watchdog_age_seconds
        return age is not None and age < 120

    eventually(heard, "the watchdog", 120)
    assert "alive, heard" in command(stack.state, "status").stdout
    assert "Watchdog" not in command(stack.state, "notifications").stdout


def test_a_service_that_is_away_is_a_page_with_its_links(twin: RunningStack) -> None:
    """Payments says nothing: a person is told what and where to look, and told when it is over."""
    alert = f"ServiceDown {PAYMENTS}"
    with frozen(twin.pid(PAYMENTS)):
        page = eventually(lambda: told(twin, "page", "firing", alert), "a page")
    eventually(lambda: told(twin, "page", "resolved", alert), "that it is over")

    assert page.summaries == [f"{PAYMENTS} is down"]
    assert list(page.links) == ["runbook", "dashboard", "traces", "logs"]
    assert page.links["runbook"].endswith("service.md#servicedown")
    shown = command(twin.state, "notifications", "--last", str(LAST)).stdout
    assert re.search(rf"UTC  page  firing  {alert}\n    {PAYMENTS} is down\n    runbook +https://", shown)


def test_the_autoscaler_is_woken_and_gives_its_orders_to_the_supervisor(twin: RunningStack) -> None:
    """Too many replicas for no load: the alert arrives at it with the right token, and a replica leaves in order."""
    twin.begin_to_scale(WORKER, 3)
    url = twin.process_url("autoscaler")

    def woken_by_an_alert() -> float:
        found = twin.query(f'sum(autoscaler_wakes_total{{service="{WORKER}", path="alert"}})')
        return float(found[0]["value"][1]) if found else 0

    eventually(woken_by_an_alert, "an alert has woken it", 120)
    eventually(lambda: twin.replicas(WORKER)["target"] < 3, "an order for fewer", 120)
    (decision, *_) = twin.http.get(f"{url}/v1/decisions", params={"service": WORKER, "limit": 1}).json()
    assert decision["service"] == WORKER
    assert twin.query('sum(autoscaler_rejected_webhooks_total{reason="unauthenticated"})')[0]["value"][1] == "0"
    assert not [one for one in NotificationLog(twin.state.notifications).last(LAST) if one.severity == SCALE]


def test_the_autoscalers_series_speak_of_the_service_they_name(twin: RunningStack) -> None:
    """And those about itself are its own."""
    service = names.LABEL_SERVICE
    running_replicas = twin.query(foreign.AUTOSCALER_REPLICAS)
    assert {one["metric"][service] for one in running_replicas} == {SHOP, WORKER}
    assert all("exported_service" not in one["metric"] for one in running_replicas)
    for own in (f'{foreign.UP}{{job="autoscaler"}}', f'{names.HTTP_SERVER_REQUEST_DURATION}_count{{job="autoscaler"}}'):
        assert {one["metric"][service] for one in twin.query(own)} == {"autoscaler"}, own
    assert {one["metric"][service] for one in twin.query("service:scale_running:replicas")} == {SHOP, WORKER}


def test_killing_the_autoscaler_kills_no_replica(twin: RunningStack) -> None:
    """It is started again, and knows again how many there are."""
    pid = twin.pid("autoscaler")
    replica = twin.pid("shop-1")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: twin.pid_or_none("autoscaler") not in {None, pid}, "another autoscaler")

    eventually(lambda: twin.status().healthy, "all is well")
    assert twin.pid("shop-1") == replica


def test_the_twin_runs_faster_and_all_of_it_is_well(twin: RunningStack) -> None:
    """Prometheus takes its short intervals, and nothing of what it scrapes is down."""
    settings = twin.http.get(f"{twin.prometheus_url}/api/v1/status/config").json()["data"]["yaml"]

    assert "scrape_interval: 250ms" in settings
    eventually(lambda: twin.query(f"{foreign.UP} == 0") == [], "everything answers scrapes")
    eventually(lambda: twin.status().healthy, "all is well")
    assert twin.status().time_scale == 0.05
