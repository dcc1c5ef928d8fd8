"""uvicorn and gunicorn with several worker processes: one `/metrics`, nothing lost at the end of a worker or of all."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from obslib import names
from obslib._worker_slot import read_file
from tests.integration.running import is_alive
from tests.obslib.collector import running_collector
from tests.obslib.processes import Server, environment, free_port, serving, serving_by

pytestmark = pytest.mark.computes

Found = TypeVar("Found")
DEADLINE_SECONDS = 180

APP = """
import os
import obslib
from fastapi import FastAPI
app = FastAPI()
observability = obslib.instrument(app)
log = obslib.get_logger("served")
@app.get("/pid")
async def pid():
    log.info("asked", pid=os.getpid())
    return os.getpid()
"""

UVICORN = "uvicorn"
GUNICORN = "gunicorn-uvicorn"
PRELOAD = "gunicorn-uvicorn-preload"
GUNICORN_ASGI = "gunicorn-asgi-preload"


def eventually(probe: Callable[[], Found | None]) -> Found:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := probe()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def command(server: str, port: int, *options: str) -> list[str]:
    if server == UVICORN:
        return ["uvicorn", "served:app", "--port", str(port), "--workers", "2", *options]
    worker_class = "asgi" if server == GUNICORN_ASGI else "uvicorn.workers.UvicornWorker"
    preload = ["--preload"] if server.endswith("preload") else []
    address = f"127.0.0.1:{port}"
    own = ["--no-control-socket", "-k", worker_class, "-w", "2", "-b", address]
    return ["gunicorn", "served:app", *own, *preload, *options]


class Workers:
    """Several workers behind a server's port, and what was asked of them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.asked_of: Counter[int] = Counter()

    @property
    def asked(self) -> int:
        return self.asked_of.total()

    def ask(self) -> int:
        """Send one request; return which process has answered."""
        status, body = self.server.get("/pid")
        assert status == 200
        self.asked_of[int(body)] += 1
        return int(body)

    def ask_all(self, known: frozenset[int] = frozenset(), workers: int = 2) -> set[int]:
        """Send requests until so many workers have answered that are not known."""
        pids: set[int] = set()

        def enough() -> bool:
            pids.add(self.ask())
            return len(pids - known) >= workers

        eventually(enough)
        return pids - known

    def scrape(self) -> dict[str, dict[str, float]]:
        """Return the values of all samples, summed over other labels, by name and worker."""
        text = self.scrape_text()
        found: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
            for sample in family.samples:
                by_worker = found.setdefault(sample.name, {})
                worker = sample.labels[names.LABEL_WORKER]
                by_worker[worker] = by_worker.get(worker, 0.0) + sample.value
        return found

    def scrape_text(self) -> str:
        status, body = self.server.get("/metrics", {"accept": "application/openmetrics-text"})
        assert status == 200
        return body.decode()

    def counted(self) -> float:
        """Return how many requests all workers say that they have answered."""
        return sum(self.scrape()[f"{names.HTTP_SERVER_REQUEST_DURATION}_count"].values())


@pytest.mark.parametrize("server_class", [UVICORN, GUNICORN, PRELOAD, GUNICORN_ASGI])
def test_life_of_a_server(tmp_path: Path, server_class: str) -> None:
    """
    One answer for all workers; totals that go on when one ends or is killed; nothing lost when all end.

    One test for each server, because starting one takes seconds.
    """
    port, directory = free_port(), tmp_path / "run"
    with running_collector() as collector:
        env = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OBSLIB_SPAN_FLUSH_INTERVAL_SECONDS": "60",
            "OBSLIB_LOG_FLUSH_INTERVAL_SECONDS": "60",
            "OBSLIB_WORKER_DIRECTORY": str(directory),
            "PYTHONWARNINGS": "ignore",  # uvicorn.workers is deprecated in favour of a package with the same class
        }
        with serving_by(command(server_class, port), port, APP, tmp_path, **env) as server:
            workers = Workers(server)
            pids = workers.ask_all()
            check_one_answer(workers)
            for with_signal in (signal.SIGTERM, signal.SIGKILL):
                known = frozenset(pids)
                victim = pids.pop()
                assert workers.counted() == workers.asked  # so that it was shown
                os.kill(victim, with_signal)
                # A request that it accepts meanwhile is lost with its connection, with any server.
                wait_for_end(victim)
                pids |= workers.ask_all(known, workers=1)
                assert workers.counted() == workers.asked
            workers.ask_all()
            server.stop()
            check_end(directory, workers)
        # The one that was killed, the last victim, took its lines and spans with it; nobody else lost any.
        del workers.asked_of[victim]
        lines = [line for line in server.lines if line["event"] == "asked"]
        assert Counter(line["pid"] for line in lines) == workers.asked_of
        traces = sorted(line[names.LOG_TRACE_ID] for line in lines)
        access = [line for line in server.lines if line["event"] == names.ACCESS_EVENT]
        assert sorted(line[names.LOG_TRACE_ID] for line in access) == traces
        assert sorted(span.trace_id.hex() for span in collector.spans) == traces


def wait_for_end(pid: int) -> None:
    eventually(lambda: not is_alive(pid))


def check_one_answer(workers: Workers) -> None:
    """Every worker's numbers are in one answer, with exemplars and those of processes and collectors of garbage."""
    samples = workers.scrape()
    assert sum(samples[f"{names.HTTP_SERVER_REQUEST_DURATION}_count"].values()) == workers.asked
    for name in (
        names.BUILD_INFO,
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "python_gc_collections_total",
    ):
        assert set(samples[name]) == {"0", "1"}, name
    exemplars = re.findall(
        rf'{names.HTTP_SERVER_REQUEST_DURATION}_bucket{{.*worker="(\d)".*}} \d+ # {{trace_id', workers.scrape_text()
    )
    assert set(exemplars) == {"0", "1"}


def check_end(directory: Path, workers: Workers) -> None:
    """What the workers have written down at their end is every request."""
    snapshots = [read_file(path) for path in directory.glob("*/*.metrics")]
    assert len(snapshots) == 2
    counts = [
        sum(state[0])  # type: ignore[index, arg-type]
        for snapshot in snapshots
        if snapshot is not None
        for metric in snapshot.own
        if metric.name == names.HTTP_SERVER_REQUEST_DURATION
        for _, state in metric.children
    ]
    assert sum(counts) == workers.asked


def test_workers_that_are_recycled(tmp_path: Path) -> None:
    """With `--max-requests` workers come and go under load: totals never fall, and slots stay few."""
    port, directory = free_port(), tmp_path / "run"
    env = {"OBSLIB_WORKER_DIRECTORY": str(directory), "PYTHONWARNINGS": "ignore"}
    recycled = command(PRELOAD, port, "--max-requests", "4")
    with serving_by(recycled, port, APP, tmp_path, **env) as server:
        workers, before = Workers(server), 0.0
        pids: set[int] = set()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(pids) < 8:
            assert time.monotonic() < deadline
            try:
                pids.add(workers.ask())
                counted = workers.counted()
            except OSError:  # a worker that ends closes connections it has not answered
                continue
            assert counted >= before
            before = counted
        assert int(max(directory.glob("*/*.metrics")).stem) < 4


def test_reload(tmp_path: Path) -> None:
    """A worker that is started anew because the code has changed goes on from its predecessor's counts."""
    env = {"OBSLIB_WORKER_DIRECTORY": str(tmp_path / "run")}
    with serving(APP, tmp_path, "--reload", **env) as server:
        workers = Workers(server)
        first = workers.ask()
        assert workers.counted() == 1
        (tmp_path / "served.py").write_text(textwrap.dedent(APP) + "\n# changed\n")

        def replaced() -> bool:
            try:
                return workers.ask() != first
            except OSError:
                return False

        eventually(replaced)
        counted = workers.scrape()[f"{names.HTTP_SERVER_REQUEST_DURATION}_count"]
    assert counted == {"0": workers.asked}


TWO_SERVICES = """
import multiprocessing, sys
import obslib, uvicorn
from fastapi import FastAPI
def serve(port):
    app = FastAPI()
    obslib.instrument(app)
    uvicorn.run(app, port=port)
if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    children = [spawn.Process(target=serve, args=(int(port),)) for port in sys.argv[1:]]
    for child in children: child.start()
    for child in children: child.join()
"""

PREFORK = """
import os, signal, socket, sys, warnings
warnings.simplefilter("ignore")
import obslib, uvicorn
from fastapi import FastAPI
app = FastAPI()
obslib.instrument(app)
@app.get("/pid")
async def pid():
    return os.getpid()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        uvicorn.Server(uvicorn.Config(app)).run(sockets=[listener])
        os._exit(0)
    children.append(child)
def end(*_):
    for child in children: os.kill(child, signal.SIGTERM)
signal.signal(signal.SIGTERM, end)
for child in children: os.waitpid(child, 0)
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Runs a program that serves on ports that it is given."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *ports: int, **env: str) -> Server:
        (tmp_path / "program.py").write_text(code)
        output = tmp_path / "output.txt"
        with output.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "program.py", *map(str, ports)],
                cwd=tmp_path,
                env=environment(OBSLIB_WORKER_DIRECTORY=str(tmp_path / "run"), **env),
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        started.append(process)
        for port in ports:
            Server(process, port, output).wait_until_it_answers()
        return Server(process, ports[0], output)

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(DEADLINE_SECONDS)


def test_two_services_of_one_parent(tmp_path: Path, run: Callable[..., Server]) -> None:
    """Two servers that one program has started with multiprocessing show themselves alone, though the service is one."""
    ports = free_port(), free_port()
    server = run(TWO_SERVICES, *ports)
    for port in ports:
        _, body = Server(server.process, port, tmp_path / "output.txt").get("/metrics")
        assert body.count(b"obslib_build_info{") == 1
    assert not (tmp_path / "run").exists()


def test_server_of_ones_own(tmp_path: Path, run: Callable[..., Server]) -> None:
    """A program that forks after it was instrumented names its group, and has one `/metrics`, too."""
    workers = Workers(run(PREFORK, free_port(), OBSLIB_WORKER_GROUP="shop"))
    workers.ask_all()
    counts = workers.scrape()[f"{names.HTTP_SERVER_REQUEST_DURATION}_count"]
    assert set(counts) == {"0", "1"}
    assert sum(counts.values()) == workers.asked


def test_workers_that_cannot_meet(tmp_path: Path) -> None:
    """Where the directory does not work the server ends by itself, and says what to set."""
    (tmp_path / "served.py").write_text(APP)
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", *command(UVICORN, free_port())],
        cwd=tmp_path,
        env=environment(OBSLIB_WORKER_DIRECTORY=str(tmp_path / "file")),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert "Application startup failed. Exiting." in done.stdout + done.stderr
    assert "Set OBSLIB_WORKER_DIRECTORY to a directory" in done.stdout + done.stderr
