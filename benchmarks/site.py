"""Where the bench takes place: a temporary directory, a collector, load generators and the servers of a round."""

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks import application, variants
from benchmarks.children import LOAD_CPU, SERVER_CPU, Child, Children, pinned_to
from benchmarks.disturbance import Disturbance
from benchmarks.load import Generators, Load, PausableLoad, checked
from benchmarks.tools import Tools
from benchmarks.variants import Variant

_WARM_UP_SECONDS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """
    One thing to measure.

    Args:
        label: Unique in a round.
        variant: What runs.
        routes: How many routes the application has.
        workers: How many worker processes serve it.
        endpoint: The collector's URL; None for the bench's own, healthy one.
        environment: What its server finds beside the variant's own variables.
        stretches: How often it is measured where another is once.
    """

    label: str
    variant: Variant
    routes: int = application.ROUTES
    workers: int = 1
    endpoint: str | None = None
    environment: Mapping[str, str] | None = None
    stretches: int = 1


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one case did in one stretch of a round."""

    label: str
    round: int
    cpu_seconds_per_request: float
    resident_bytes: int
    load: Load
    #: What others took of the server's CPU, as a part of the stretch.
    disturbed_part: float = 0.0
    tries: int = 1

    def labelled(self, label: str) -> "Sample":
        """The same under another label."""
        return replace(self, label=label)

    def as_json(self) -> dict[str, object]:
        """Flat, for the raw results; their percentiles stand for the latencies."""
        fields = asdict(self)
        load = fields.pop("load")
        del load["latencies"]
        return {**fields, **load}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A case that runs."""

    case: Case
    child: Child

    @property
    def url(self) -> str:
        """What the load asks for."""
        return self.child.url + application.PATH


class _Before:
    """What is compared with at the end of a stretch."""

    def __init__(self, server: Server) -> None:
        self.at_seconds = time.monotonic()
        self.disturbance = Disturbance()
        self.cpu_seconds = server.child.cpu_seconds()


class Site:
    """
    Starts servers and puts load on them.

    Args:
        children: Owns every process.
        generators: Make the load.
        collector: Takes the spans.
    """

    def __init__(self, children: Children, generators: Generators, collector: Child) -> None:
        self._children = children
        self._generators = generators
        self._collector = collector
        self._requests: Counter[str] = Counter()
        self._lines: Counter[str] = Counter()

    @contextmanager
    def serving(self, cases: Sequence[Case]) -> Iterator[list[Server]]:
        """Run a fresh, warm server for each case, for the time of a block."""
        servers = [Server(case=case, child=self._start(case)) for case in cases]
        try:
            for server in servers:
                server.child.wait_until_ready(application.PATH)
            with ThreadPoolExecutor(len(servers)) as pool:
                list(pool.map(self._warm_up, servers))
            yield servers
        finally:
            for server in servers:
                self._stop(server)

    def closed_loop(self, server: Server, round_: int, seconds: float) -> Sample:
        """Measure a server at its limit."""
        before = _Before(server)
        load = self._generators.closed_loop(server.url, seconds)
        return self._sample(server, round_, load, before)

    def open_loop(self, server: Server, round_: int, seconds: float, rate: int) -> Sample:
        """Measure a server at a fixed rate."""
        before = _Before(server)
        load = self._generators.open_loop(server.url, seconds, rate)
        if server.case.variant not in variants.PEERS:
            checked(load, server.url)
        return self._sample(server, round_, load, before)

    def paused_load(self, server: Server) -> AbstractContextManager[PausableLoad]:
        """Run a load for one server, paused at first, for the time of a block."""
        return self._generators.pausable(server.url)

    def finished(self, server: Server, load: PausableLoad) -> int:
        """End a load; return how many requests it sent."""
        requests = load.finish()
        self._requests[server.case.label] += requests
        return requests

    def deliveries(self) -> dict[str, dict[str, float]]:
        """What each case sent and wrote so far, a request: proof that the telemetry was really made."""
        spans: dict[str, int] = json.loads(self._collector.get("/counts"))
        return {
            label: {
                "requests": requests,
                "spans": spans.get(label, 0) / requests,
                "lines": self._lines[label] / requests,
            }
            for label, requests in self._requests.items()
        }

    @contextmanager
    def collecting(self, behaviour: str) -> Iterator[Child]:
        """Run a further collector for the time of a block."""
        collector = start_collector(self._children, behaviour)
        try:
            yield collector
        finally:
            self._children.stop(collector)

    def free_port(self) -> int:
        """Return a port on which nobody listens."""
        return self._children.free_port()

    def _warm_up(self, server: Server) -> None:
        load = self._generators.closed_loop(server.url, _WARM_UP_SECONDS, 2)
        self._requests[server.case.label] += load.requests

    def _stop(self, server: Server) -> None:
        server.child.stop()
        self._lines[server.case.label] += server.child.lines()
        self._children.stop(server.child)

    def _sample(self, server: Server, round_: int, load: Load, before: "_Before") -> Sample:
        cpu_seconds = server.child.cpu_seconds() - before.cpu_seconds
        disturbed_seconds = before.disturbance.seconds(cpu_seconds)
        self._requests[server.case.label] += load.requests
        return Sample(
            label=server.case.label,
            round=round_,
            cpu_seconds_per_request=cpu_seconds / load.requests,
            resident_bytes=server.child.resident_bytes(),
            load=load,
            disturbed_part=disturbed_seconds / (time.monotonic() - before.at_seconds),
        )

    def _start(self, case: Case) -> Child:
        port = self._children.free_port()
        command = [sys.executable, "-m", "uvicorn", "benchmarks.server:create", "--factory", "--port", str(port)]
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--workers", str(case.workers)]
        # Workers that are paused answer no health check, and their connections wait.
        command += ["--timeout-worker-healthcheck", "3600", "--timeout-keep-alive", "3600"]
        environment = {
            "BENCH_VARIANT": case.variant.name,
            "BENCH_ROUTES": str(case.routes),
            "BENCH_CPU": str(SERVER_CPU),
            "OTEL_SERVICE_NAME": case.label,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._collector.url if case.endpoint is None else case.endpoint,
            **case.variant.environment,
            **(case.environment or {}),
        }
        return self._children.start(case.label, command, port, environment)


@contextmanager
def open_site(tools: Tools) -> Iterator[Site]:
    """Set up a site for the time of a block; afterwards nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="obslib-bench-") as directory, Children(Path(directory)) as children:
        collector = start_collector(children, "healthy")
        yield Site(children, Generators(tools, Path(directory)), collector)


def start_collector(children: Children, behaviour: str) -> Child:
    """Start a collector and wait until it answers."""
    port = children.free_port()
    command = [sys.executable, "-m", "benchmarks.collector", "--port", str(port), "--behaviour", behaviour]
    collector = children.start(f"collector-{behaviour}", pinned_to(LOAD_CPU, command), port, {})
    collector.wait_until_ready("/counts")
    return collector
