"""The screen, whole."""

from dataclasses import replace
from pathlib import Path

import pytest

from stack import screen
from stack.status import ProcessStatus, StackStatus
from stack.terminal import Style

MEBIBYTE = 1024 * 1024


def process(
    name: str, *, port: int = 0, mebibytes: int = 100, healthy: bool = True, restarts: int = 0
) -> ProcessStatus:
    return ProcessStatus(
        name=name,
        service=name.partition("-")[0],
        pid=4000 + mebibytes,
        url=f"http://127.0.0.1:{port}" if port else "",
        phase="ready" if healthy else "restarting",
        healthy=healthy,
        restarts=restarts,
        resident_bytes=mebibytes * MEBIBYTE,
        log_file=f"/demo/logs/{name}.log",
    )


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch) -> StackStatus:
    """A stack without Jaeger, one of whose replicas has just died."""
    monkeypatch.setattr("sys.executable", str(Path.cwd() / ".venv/bin/python"))
    return StackStatus(
        state_directory="/demo",
        started=0.0,
        shop_url="http://127.0.0.1:8080",
        processes=[
            process("haproxy", port=8080, mebibytes=15),
            process("shop-1", port=8101, mebibytes=121),
            process("shop-2", port=8102, mebibytes=0, healthy=False, restarts=3),
        ],
        replicas={"shop": 2},
        missing={"jaeger": "Go is not installed. Without Jaeger, no traces."},
        pages={"the shop": "http://127.0.0.1:8080/v1/products"},
        first_data_seconds=12.06,
        faults_token_file="/demo/run/faults-token",
    )


def test_the_demo_prints_one_screen(status: StackStatus) -> None:
    """What runs, what to open, what to try, what is missing; no page that was not found to load."""
    assert screen.render(status, example_trace="", style=Style()).splitlines() == DEMO


def test_a_trace_that_exists_is_offered_by_its_id(status: StackStatus) -> None:
    """Only where there is a Jaeger to ask."""
    example = "4bf92f3577b34da6a3ce929d0e0e4736"
    with_jaeger = StackStatus.from_json({**status.to_json(), "missing": {}})

    assert example not in screen.render(status, example_trace=example, style=Style())
    assert f"trace {example}" in screen.render(with_jaeger, example_trace=example, style=Style())


def test_status_is_the_same_for_programs(status: StackStatus) -> None:
    """JSON there and back; credentials are named by their file."""
    document = status.to_json()

    assert StackStatus.from_json(document) == status
    assert document["healthy"] is False
    assert document["resident_bytes"] == 136 * MEBIBYTE
    assert document["faults_token_file"] == "/demo/run/faults-token"


@pytest.mark.parametrize(
    ("age", "time_scale", "said"),
    [
        (None, 1.0, "not heard yet: no alert would reach anybody"),
        (70.0, 1.0, "alive, heard 1 min 10 s ago"),
        (300.0, 1.0, "silent for 5 min 00 s: no alert would reach anybody"),
        (9.0, 0.05, "alive, heard 9.0 s ago"),
        (15.0, 0.05, "silent for 15.0 s: no alert would reach anybody"),
    ],
)
def test_status_says_whether_the_watchdog_lives(
    status: StackStatus, age: float | None, time_scale: float, said: str
) -> None:
    """As long as it comes, alerts reach people; a faster stack hears it more often."""
    changed = replace(status, watchdog_age_seconds=age, time_scale=time_scale)

    assert f"    watchdog         {said}" in screen.render_status(changed, Style()).splitlines()
    without = replace(changed, missing={"alertmanager": "Go is not installed."})
    assert "watchdog" not in screen.render_status(without, Style())


DEMO = """\

  The stack is running, not all of it well: 3 processes, 136 MiB resident, first data in Prometheus after 12.1 s

    PROCESS           PID    MEMORY  STATE       AT
    haproxy          4015    15 MiB  ready       http://127.0.0.1:8080
    shop-1           4121   121 MiB  ready       http://127.0.0.1:8101
    shop-2           4000     0 MiB  restarting  http://127.0.0.1:8102  (started again 3×)

  Open
    the shop         http://127.0.0.1:8080/v1/products

  Try
    place an order   curl -i http://127.0.0.1:8080/v1/orders -H 'Idempotency-Key: '$RANDOM \\
                       -H 'Content-Type: application/json' -d '{"items": [{"product_id": 1, "quantity": 2}]}'
    send a spike     .venv/bin/python -m stack --state-dir /demo spike
    scale by hand    .venv/bin/python -m stack --state-dir /demo scale shop 4
    what runs now    .venv/bin/python -m stack --state-dir /demo status
    stop             Ctrl-C here, or .venv/bin/python -m stack --state-dir /demo stop

  Missing
    Go is not installed. Without Jaeger, no traces.
""".splitlines()
