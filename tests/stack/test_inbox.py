"""Where people's messages end in containers: printed with the token only, and the watchdog is missed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from stack import receiver as receiver_module
from stack.inbox import Printer, main, watch
from stack.ports import HOST, any_free
from stack.receiver import Receiver
from tests.stack.test_notifications import BEARER, PAGE, TOKEN, WATCHDOG

_START = "import os, sys; from stack.inbox import main; sys.exit(main(os.environ, int(sys.argv[1])))"


def test_messages_are_printed_and_the_watchdog_is_heard(tmp_path: Path) -> None:
    """One address for all three chats: the title says how urgent it is. It ends when it is told to."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    port = any_free(set())
    process = subprocess.Popen(
        [sys.executable, "-c", _START, str(port)],
        env={**os.environ, "NOTIFICATIONS_TOKEN_FILE": str(tmp_path / "token")},
        stdout=subprocess.PIPE,
        text=True,
    )
    with httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False) as http:
        _answering(http)
        statuses = [
            http.post(f"/{TOKEN}/chat", json=PAGE).status_code,
            http.post("/watchdog", json=WATCHDOG, headers=BEARER).status_code,
            http.post("/watchdog", json=WATCHDOG).status_code,
            http.get("/healthz").status_code,
        ]
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)

    assert statuses == [200, 200, 401, 200]
    assert process.returncode == 0
    assert "page  firing  SLOErrorBudgetBurn shop" in printed
    assert "http://runbook/slo" in printed
    assert "Watchdog" not in printed
    assert TOKEN not in printed


def _answering(http: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            assert http.get("/healthz").status_code == 200
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


async def test_a_watchdog_that_stays_away_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said once, with what to read, and once that it is back; whoever asks for its health hears of it, too."""
    receiver = Receiver(any_free(set()), TOKEN, Printer())
    await receiver.start()
    watching = asyncio.create_task(watch(receiver, look_seconds=0.01))
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{receiver.port}", trust_env=False) as http:
        fine = (await http.get("/healthz")).status_code
        monkeypatch.setattr(receiver_module, "_WATCHDOG_SECONDS", 0.0)
        missed = await _said(capsys)
        missing = (await http.get("/healthz")).status_code

        monkeypatch.setattr(receiver_module, "_WATCHDOG_SECONDS", 60.0)
        assert (await http.post("/watchdog", content=json.dumps(WATCHDOG), headers=BEARER)).status_code == 200
        back = await _said(capsys)
    watching.cancel()
    await receiver.stop()

    assert (fine, missing) == (200, 503)
    assert missed == "Alertmanager's watchdog does not come: alerts may reach nobody. See the runbook of Watchdog.\n"
    assert back == "Alertmanager's watchdog comes again.\n"


async def _said(capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed within five looks after the first word."""
    printed = ""
    async with asyncio.timeout(60):
        while not printed:
            await asyncio.sleep(0.05)
            printed = capsys.readouterr().out
    await asyncio.sleep(0.05)
    return printed + capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "NOTIFICATIONS_TOKEN_FILE must name the file"),
        ("", "token is empty"),
        ("directory", "cannot be read: Is a directory"),
    ],
)
def test_without_a_token_it_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, complaint: str
) -> None:
    """Anybody could tell people anything; one sentence says what is missing."""
    path = tmp_path / "token"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_text(content)

    assert main({} if content is None else {"NOTIFICATIONS_TOKEN_FILE": str(path)}) == 2
    assert complaint in capsys.readouterr().err
