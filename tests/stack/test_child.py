"""Real processes, small ones: started, watched, started again, stopped."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from stack import child as child_module
from stack import readiness
from stack.child import Child, Hook, Phase
from stack.errors import ProcessFailedError, StackError
from stack.processes import ProcessSpec

PATIENCE_SECONDS = 180.0

Make = Callable[..., Child]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes children out of Python programs, and stops them all at the end. Back-off is a hundred times shorter."""
    monkeypatch.setattr(child_module, "_SHORTEST_BACKOFF_SECONDS", 0.01)
    made: list[Child] = []

    async def nothing(_: Child) -> None:
        return

    def factory(program: str, *, on_ready: Hook = nothing, on_death: Hook = nothing, **options: object) -> Child:
        spec = ProcessSpec(name="standin", service="standin", command=(sys.executable, "-c", program), **options)  # type: ignore[arg-type] # a test's options are the spec's
        made.append(Child(spec, tmp_path / "standin.log", http, on_ready=on_ready, on_death=on_death))
        return made[-1]

    async with readiness.client() as http:
        yield factory
        for one in made:
            await one.stop()


def counting(counts: list[str], word: str) -> Callable[[Child], Awaitable[None]]:
    async def hook(_: Child) -> None:
        counts.append(word)

    return hook


async def test_what_dies_is_started_again(make: Make) -> None:
    """Each death and each new readiness is told, in this order."""
    told: list[str] = []
    standin = make("import time; time.sleep(60)", on_ready=counting(told, "ready"), on_death=counting(told, "death"))
    await standin.start()
    for _ in range(2):
        first = standin.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda first=first: standin.phase is Phase.READY and standin.pid not in {None, first})  # type: ignore[misc] # a loop's lambda

    assert told == ["ready", "death", "ready", "death", "ready"]
    assert standin.restarts == 2


async def test_the_pause_before_a_new_start_doubles(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """What dies at once each time is not started in a busy loop."""
    standin = make("import time; time.sleep(0.05)")
    await standin.start()
    await until(lambda: standin.restarts >= 4)

    pauses = [
        line.rpartition(" in ")[2] for line in capsys.readouterr().err.splitlines() if "starting it again" in line
    ]
    assert pauses[:4] == ["0.0 s", "0.0 s", "0.0 s", "0.1 s"]


async def test_one_that_cannot_be_announced_is_started_again(make: Make) -> None:
    """Where the target file cannot be written, a replica that came back tries until it can."""
    told: list[str] = []

    async def announce(_: Child) -> None:
        told.append("ready")
        if len(told) == 2:
            raise StackError("services.json cannot be written.")

    standin = make("import time; time.sleep(60)", on_ready=announce)
    await standin.start()
    first = standin.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: len(told) == 3)

    assert standin.phase is Phase.READY


async def test_one_that_is_not_watched_any_more_is_stopped_all_the_same(make: Make) -> None:
    """What broke the watch does not keep the process."""

    async def breaks(_: Child) -> None:
        raise LookupError("nobody thought of it")

    standin = make("import time; time.sleep(60)", on_death=breaks)
    await standin.start()
    first = standin.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: standin._keeper is not None and standin._keeper.done())
    await standin.stop()

    assert standin.phase is Phase.STOPPED


async def test_a_death_before_readiness_is_noticed_at_once(make: Make) -> None:
    """The error has the process' last words and does not wait for the limit."""
    standin = make("print('no database here'); raise SystemExit(3)", ready_url="http://127.0.0.1:1/", ready_seconds=60)
    before = time.monotonic()

    with pytest.raises(ProcessFailedError, match="standin exited with status 3 before it was ready") as failure:
        await standin.start()

    assert "no database here" in str(failure.value)
    assert time.monotonic() - before < 30
    assert standin.pid is None


async def test_a_process_that_never_gets_ready_is_stopped(make: Make) -> None:
    """The limit ends it; nothing is left behind."""
    standin = make(
        "import time; print('dozing', flush=True); time.sleep(60)", ready_url="http://127.0.0.1:1/", ready_seconds=0.5
    )

    with pytest.raises(ProcessFailedError, match="was not ready after"):
        await standin.start()

    assert standin.pid is None


async def test_stop_is_orderly_first(make: Make, tmp_path: Path) -> None:
    """SIGTERM lets it finish."""
    standin = make(
        "import signal, sys, time\n"
        "def bye(*_):\n    print('finished', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, bye); print('begun', flush=True); time.sleep(60)"
    )
    await standin.start()
    await until(lambda: "begun" in (tmp_path / "standin.log").read_text())
    await standin.stop()

    assert (tmp_path / "standin.log").read_text().splitlines() == ["begun", "finished"]


async def test_what_ignores_the_request_to_stop_is_killed_with_its_children(make: Make, tmp_path: Path) -> None:
    """After its time the whole group goes."""
    log = tmp_path / "standin.log"
    standin = make(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True); time.sleep(60)",
        stop_seconds=0.2,
    )
    await standin.start()
    await until(lambda: log.exists() and log.read_text().strip().isdigit())
    grandchild = int(log.read_text())
    await standin.stop()

    assert standin.pid is None
    await until(lambda: not _is_alive(grandchild))


async def test_what_may_end_is_not_started_again(make: Make) -> None:
    """A spike is over when it is over."""
    standin = make("import time; time.sleep(0.1)", restarts=False)
    await standin.start()
    await until(lambda: standin.phase is Phase.STOPPED)

    assert standin.restarts == 0


async def test_the_environment_of_another_setup_does_not_leak_in(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell prepared for a company's collector must not receive the demo's traces."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    program = "import os; print(sorted(k for k in os.environ if k.startswith(('OTEL', 'HTTP_', 'SHOP'))), flush=True); input()"
    standin = make(f"{program}", environment={"SHOP_CACHE_URL": "mem://"}, restarts=False)
    await standin.start()
    await until(lambda: standin.phase is Phase.STOPPED)

    assert (tmp_path / "standin.log").read_text().splitlines()[0] == "['SHOP_CACHE_URL']"


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_http_is_asked_past_proxies() -> None:
    """This machine's loopback cannot be reached through one."""
    assert isinstance(readiness.client(), httpx.AsyncClient)
    assert readiness.client().trust_env is False
