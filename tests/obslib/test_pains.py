"""What users of other libraries suffer from most, and obslib's users do not: docs/comparison.md says which test shows it."""

import ast
import asyncio
import re
import time
from pathlib import Path

import pytest
from fastapi import FastAPI, Response

from obslib import names
from obslib.settings import Settings
from obslib.testing import capture
from tests.obslib.asgi import call, http_scope
from tests.obslib.processes import DEADLINE_SECONDS, ROOT, serving

SETTINGS = Settings(service_name="shop", extra_registries=())
PAGE = ROOT / "docs" / "comparison.md"
APP = """
import obslib
from fastapi import FastAPI
app = FastAPI()
obslib.instrument(app)
@app.get("/items/{item_id}")
async def item(item_id: int):
    return item_id
"""


async def test_sizes_of_requests_at_the_same_time() -> None:
    """Each response has its own size, whichever ends first, and one without a body has none of another's."""
    app = FastAPI()
    started, go_on = asyncio.Event(), asyncio.Event()

    @app.get("/large")
    async def large() -> Response:
        started.set()
        await go_on.wait()
        return Response(b"x" * 1234)

    @app.get("/empty")
    async def empty() -> Response:
        return Response(status_code=204)

    with capture(app, SETTINGS) as telemetry:
        waiting = asyncio.create_task(call(app, http_scope("/large")))
        await started.wait()
        await call(app, http_scope("/empty"))
        go_on.set()
        await waiting
        await call(app, http_scope("/empty"))
        sizes = [(line[names.LABEL_ROUTE], line[names.LOG_RESPONSE_BODY_SIZE]) for line in telemetry.access_lines]
    assert sizes == [("/empty", 0), ("/large", 1234), ("/empty", 0)]


async def test_a_large_scrape_leaves_the_loop_free() -> None:
    """While thousands of series are rendered, the loop goes round again and again."""
    rounds, series = 0, 4000

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    app = FastAPI()
    with capture(app, Settings(service_name="shop", extra_registries=(), max_label_sets=2 * series)) as telemetry:
        gauge = telemetry._telemetry.instruments.gauge("many", "Many series.", ("key",))
        for number in range(series):
            gauge.labels(str(number)).set(number)
        counting = asyncio.create_task(count_rounds())
        exchange = await call(app, http_scope("/metrics"))
        counting.cancel()
    assert exchange.body.count(b"\nmany{") == series
    # 4000 lines in slices of 200, with a pause after each.
    assert rounds >= series / 200


@pytest.mark.parametrize("option", ["--workers=2", "--reload"])
def test_servers_that_start_processes(tmp_path: Path, option: str) -> None:
    """Under a server's workers and reloader a request is recorded like anywhere else: nothing hangs on how Python starts."""
    with serving(APP, tmp_path, option, PYTHONWARNINGS="default") as server:
        assert server.get("/items/3") == (200, b"3")
        deadline = time.monotonic() + DEADLINE_SECONDS
        lines: list[dict[str, object]] = []
        while not lines and time.monotonic() < deadline:
            lines = [line for line in server.lines if line.get("logger") == "obslib.access"]
            time.sleep(0.05)
        server.stop()
    assert [(line[names.LABEL_ROUTE], line[names.LABEL_STATUS_CODE]) for line in lines] == [("/items/{item_id}", 200)]


# --- the page ------------------------------------------------------------------------------------------------------


def rows() -> list[tuple[int, str]]:
    """Return number and last cell of every row of the table of pains."""
    table = PAGE.read_text().partition("## What hurts elsewhere")[2].partition("\n## ")[0]
    return [(int(match[1]), match[2]) for match in re.finditer(r"^\| (\d+) \|.*\| (.+) \|$", table, re.MULTILINE)]


def test_every_pain_has_a_row() -> None:
    """All twenty-five are there, and each has a test."""
    assert [number for number, _ in rows()] == list(range(1, 26))
    assert all("::" in cell for _, cell in rows())


def test_every_test_that_is_named_exists() -> None:
    """The page names no test that was renamed or removed."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 25
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, f"{file}::{name}"
