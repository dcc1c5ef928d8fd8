"""Messages of Alertmanager: taken with the token only, kept as lines, shown to people."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from stack import readiness
from stack.notifications import Notification, NotificationLog, render
from stack.ports import HOST, any_free
from stack.receiver import Receiver
from stack.terminal import Style

TOKEN = "a-token-of-this-stack"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGE = {
    "channel": "#alerts",
    "attachments": [
        {
            "title": "[FIRING 2] page: SLOErrorBudgetBurn shop",
            "title_link": "http://dashboard/shop",
            "text": "*shop burns its budget*\n12% of the events broke it.\n"
            "<http://runbook/slo|runbook> · <http://dashboard/shop?from=1&amp;to=2|dashboard>\nsince … · a=b \n\n"
            "*shop is slow* (over)\n…\n<http://runbook/other|runbook>\n",
        }
    ],
}
WATCHDOG = {
    "status": "firing",
    "groupLabels": {"alertname": "Watchdog"},
    "alerts": [{"annotations": {"summary": "Alerting works", "runbook_url": "http://runbook/watchdog"}}],
}


@asynccontextmanager
async def receiving(path: Path) -> AsyncIterator[tuple[Receiver, httpx.AsyncClient, str]]:
    port = any_free(set())
    receiver = Receiver(port, TOKEN, NotificationLog(path / "notifications.log"))
    await receiver.start()
    try:
        async with readiness.client() as http:
            yield receiver, http, f"http://{HOST}:{port}"
    finally:
        await receiver.stop()


async def test_a_chat_message_is_kept_with_its_links(tmp_path: Path) -> None:
    """The address says how urgent it is, the text what and where; the answer is what Alertmanager expects of a chat."""
    async with receiving(tmp_path) as (receiver, http, url):
        answer = await http.post(f"{url}/{TOKEN}/page", json=PAGE)

        assert (answer.status_code, answer.text) == (200, "ok")
        assert receiver.watchdog_age_seconds is None
    (kept,) = NotificationLog(tmp_path / "notifications.log").last(5)
    assert kept == Notification(
        time=kept.time,
        severity="page",
        status="firing",
        alert="SLOErrorBudgetBurn shop",
        summaries=["shop burns its budget", "shop is slow"],
        links={"dashboard": "http://dashboard/shop?from=1&to=2", "runbook": "http://runbook/slo"},
    )


async def test_the_watchdog_is_heard_and_told_to_nobody(tmp_path: Path) -> None:
    """It is kept with the others, and its age is known; people are shown the rest."""
    log = NotificationLog(tmp_path / "notifications.log")
    async with receiving(tmp_path) as (receiver, http, url):
        assert (await http.post(f"{url}/watchdog", json=WATCHDOG, headers=BEARER)).status_code == 200

        age = receiver.watchdog_age_seconds
        assert age is not None
        assert 0 <= age < 60
    (line,) = (tmp_path / "notifications.log").read_text().splitlines()
    assert json.loads(line)["alert"] == "Watchdog"
    assert log.last(5) == []


async def test_without_an_autoscaler_people_read_what_it_would_be_told(tmp_path: Path) -> None:
    """In Alertmanager's own form: whom it is about, and what each alert of the group says."""
    alerts = [{"annotations": {"summary": f"shop needs {count} replicas"}} for count in (4, 6)]
    message = {
        "status": "resolved",
        "groupLabels": {"alertname": "ServiceScaleOutNeeded", "namespace": "", "service": "shop"},
        "alerts": alerts,
    }
    async with receiving(tmp_path) as (_, http, url):
        assert (await http.post(f"{url}/scale", json=message, headers=BEARER)).status_code == 200

    (kept,) = NotificationLog(tmp_path / "notifications.log").last(5)
    assert (kept.severity, kept.status, kept.alert) == ("scale", "resolved", "ServiceScaleOutNeeded shop")
    assert kept.summaries == ["shop needs 4 replicas", "shop needs 6 replicas"]


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/watchdog", {}, json.dumps(WATCHDOG), 401),
        ("/watchdog", {"Authorization": "Bearer another"}, json.dumps(WATCHDOG), 401),
        ("/another/page", {}, json.dumps(PAGE), 401),
        ("/", {}, "{}", 401),
        ("/nobody", BEARER, json.dumps(WATCHDOG), 404),
        (f"/{TOKEN}/page", {}, "no JSON", 400),
        (f"/{TOKEN}/page", {}, "[]", 400),
        (f"/{TOKEN}/page", {}, '{"attachments": [{"title": "hello", "text": ""}]}', 400),
        ("/watchdog", BEARER, '{"alerts": []}', 400),
        ("/watchdog", BEARER, "x" * (1024 * 1024 + 1), 413),
    ],
)
async def test_what_is_no_message_for_us_is_refused(
    tmp_path: Path, path: str, headers: dict[str, str], body: str, status: int
) -> None:
    """Without the token, for an unknown receiver, in no known form, too large: nothing is kept, and the next one is."""
    async with receiving(tmp_path) as (receiver, http, url):
        assert (await http.post(f"{url}{path}", content=body, headers=headers)).status_code == status
        assert receiver.watchdog_age_seconds is None
        assert not (tmp_path / "notifications.log").exists()
        assert (await http.get(f"{url}/watchdog", headers=BEARER)).status_code == 405
        assert (await http.post(f"{url}/watchdog", json=WATCHDOG, headers=BEARER)).status_code == 200


def test_people_read_when_what_and_where() -> None:
    """The newest last."""
    one = Notification(
        time="2026-11-23T02:14:05.123+00:00",
        severity="page",
        status="firing",
        alert="ServiceDown shop",
        summaries=["shop is down"],
        links={"runbook": "http://runbook/down"},
    )

    assert render([one], Style()).splitlines() == [
        "2026-11-23 02:14:05 UTC  page  firing  ServiceDown shop",
        "    shop is down",
        "    runbook    http://runbook/down",
    ]
    assert render([], Style()) == "Nobody was told anything yet."


def test_links_that_lead_nowhere_here_are_named() -> None:
    """Without containers there is no Grafana: whoever clicks would otherwise look for the mistake."""
    links = {
        "runbook": "https://runbook/down",
        "dashboard": "http://127.0.0.1:3000/d/obslib-slo",
        "traces": "http://127.0.0.1:16686/search",
        "logs": "http://127.0.0.1:3000/d/obslib-service",
    }
    one = Notification(
        time="2026-11-23T02:14:05.123+00:00", severity="page", status="firing", alert="ServiceDown shop", links=links
    )

    lines = render([one, one], Style(), answers=lambda port: port == 16686).splitlines()

    assert lines[-1] == (
        "Nobody answers at 127.0.0.1:3000 (dashboard, logs). Grafana runs in containers: docs/compose.md."
    )
    assert len(lines) == 2 * 5 + 1
    assert "Nobody" not in render([one], Style(), answers=lambda _: True)
