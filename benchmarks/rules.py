"""
`make bench-rules`: what all rules cost a Prometheus that watches two hundred services of eight replicas.

A made-up past of them is written into a database: hours of scrapes of what the long windows read, a week of what the
rules had recorded of it, and the last minutes of everything. A real Prometheus evaluates the generated rules on it, and
says how long each group took. That much past of two hundred services is more than promtool can write: it is fifty of
them, and what it costs is taken four times. `--services` shows whether that is right.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import httpx

from obslib import names
from prometheus import foreign, recorded
from prometheus.durations import Clock
from prometheus.files import everything
from prometheus.policy import AVAILABILITY, LATENCY
from prometheus.read_policy import parse
from stack.components.catalogue import PROMETHEUS, Component
from stack.components.install import Installer, cache_directory
from stack.components.progress import Progress
from stack.ports import any_free

_STEP_SECONDS: Final = 5
_PAST_SECONDS: Final = 720
#: The longest window over what is scraped, and a little.
_LONG_PAST_SECONDS: Final = 3600 + 300
_RECORDED_SECONDS: Final = 7 * 86_400
_RECORDED_STEP_SECONDS: Final = 300
#: The slowest group is evaluated once a minute, and at a phase of its own.
_EVALUATED_SECONDS: Final = 130
_ROUTES: Final = ("/v1/orders", "/v1/products/{product_id}")
_BUDGET: Final = 0.1
_POLICY: Final = """\
prometheus: {retention: 15d, scrape_interval: 5s, scrape_timeout: 4s, sample_limit: 50000}
links: {runbooks: "http://r", dashboards: "http://d", traces: "http://t", logs: "http://l"}
services:
"""
_SERVICE: Final = """\
  %s:
    slo: {period: 7d, availability: 99.9%%, latency: {objective: 99%%, within: 500ms}}
    scaling: {min_replicas: 1, max_replicas: 16, in_flight_per_replica: 3, cpu: 70%%}
"""


@dataclass(frozen=True, kw_only=True)
class GroupCost:
    """One group of rules."""

    name: str
    interval_seconds: float
    last_seconds: float

    @property
    def share(self) -> float:
        """The part of its interval that its evaluation takes."""
        return self.last_seconds / self.interval_seconds


def policy(services: list[str]) -> str:
    """A policy in which each promises and scales."""
    return _POLICY + "".join(_SERVICE % name for name in services)


def replica_series(service: str, instance: str) -> Iterator[tuple[str, float]]:
    """Each series of a replica, with what it grows by a second; negative: a gauge that stays there."""
    own = f'service="{service}",instance="{instance}",job="services"'
    yield f"{foreign.UP}{{{own}}}", -1
    yield f'{names.HTTP_SERVER_ACTIVE_REQUESTS}{{{own},http_request_method="GET",url_scheme="http"}}', -2
    for route in _ROUTES:
        for status, error, rate in (("200", "", 5.0), ("500", "500", 0.002)):
            labels = (
                f'{own},http_request_method="GET",http_route="{route}",http_response_status_code="{status}",'
                f'url_scheme="http",error_type="{error}",worker="0"'
            )
            metric = names.HTTP_SERVER_REQUEST_DURATION
            bounds = [str(float(bound)) for bound in names.DURATION_BUCKETS_SECONDS]
            for place, bound in enumerate([*bounds, "+Inf"]):
                yield f'{metric}_bucket{{{labels},le="{bound}"}}', rate * min(1.0, (place + 1) / 8)
            yield f"{metric}_count{{{labels}}}", rate
            yield f"{metric}_sum{{{labels}}}", rate * 0.1
    for bound in ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "+Inf"):
        yield f'{names.ASYNCIO_EVENT_LOOP_LAG}_bucket{{{own},le="{bound}"}}', 4.0
    yield f"{foreign.PROCESS_CPU}{{{own}}}", 0.3
    gauges = {
        foreign.PROCESS_MEMORY: 1e8,
        foreign.PROCESS_START: 1.7e9,
        foreign.PROCESS_OPEN_FDS: 60,
        foreign.PROCESS_MAX_FDS: 1024,
        names.PROCESS_CPU_LIMIT: 2,
        names.PROCESS_MEMORY_LIMIT: 1e9,
    }
    for metric, value in gauges.items():
        yield f"{metric}{{{own}}}", -value
    for reason in (names.DROPPED_QUEUE_FULL, names.DROPPED_EXPORT_FAILED, names.DROPPED_REJECTED):
        yield f'{names.SPANS_DROPPED}{{{own},reason="{reason}"}}', 0.0
    yield f'{names.LOG_LINES_DROPPED}{{{own},reason="{names.DROPPED_BUFFER_FULL}"}}', 0.0
    yield f'{names.TARGET_INFO}{{{own},service_name="{service}"}}', -1


def is_long(series: str) -> bool:
    """Whether rules read hours of it: answers, and those within the policy's bound."""
    metric = names.HTTP_SERVER_REQUEST_DURATION
    return series.startswith(f"{metric}_count{{") or (series.startswith(f"{metric}_bucket{{") and 'le="0.5"' in series)


def write_past(file: TextIO, services: list[str], replicas: int, until: int) -> int:
    """
    Write what was scraped of all services as OpenMetrics; how many series they have.

    Args:
        file: where to.
        services: their names.
        replicas: of each.
        until: the last moment, in seconds since the epoch.

    """
    count = 0
    for service in services:
        for number in range(1, replicas + 1):
            for series, growth in replica_series(service, f"{service}-{number}"):
                count += 1
                past = _LONG_PAST_SECONDS if is_long(series) else _PAST_SECONDS
                for passed in range(0, past + 1, _STEP_SECONDS):
                    value = -growth if growth < 0 else growth * passed
                    file.write(f"{series} {value:g} {until - past + passed}\n")
    file.write("# EOF\n")
    return count


def write_recorded(file: TextIO, services: list[str], until: int) -> None:
    """Write a week of what rules sum up over days: events and bad events of each promise in five minutes."""
    for service in services:
        for slo in (AVAILABILITY, LATENCY):
            labels = f'{{service="{service}",slo="{slo}"}}'
            for name, value in ((recorded.slo_events("5m"), 24_000), (recorded.slo_bad_events("5m"), 10)):
                moments = range(until - _RECORDED_SECONDS, until - _RECORDED_STEP_SECONDS, _RECORDED_STEP_SECONDS)
                file.writelines(f"{name}{labels} {value} {at}\n" for at in moments)
    file.write("# EOF\n")


def promtool(component: Component, directory: Path, *arguments: str) -> None:
    """Run it there."""
    subprocess.run(
        [component.command("promtool"), *arguments],
        cwd=directory,
        env={**os.environ, **component.environment()},
        check=True,
        stdout=subprocess.DEVNULL,
    )


@dataclass(frozen=True, kw_only=True)
class Server:
    """A Prometheus that runs."""

    url: str
    pid: int


@contextlib.contextmanager
def server(component: Component, directory: Path) -> Iterator[Server]:
    """A Prometheus on the made-up past."""
    port = any_free(set())
    url = f"http://127.0.0.1:{port}"
    command = [
        component.command("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=15d",
    ]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **component.environment()}, cwd=directory, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/-/ready", trust_env=False).is_success:
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"Prometheus does not start:\n{(directory / 'prometheus.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield Server(url=url, pid=process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def costs(url: str) -> list[GroupCost]:
    """What each group took last time, in Prometheus' own words."""
    answer = httpx.get(f"{url}/api/v1/rules", trust_env=False, timeout=60)
    answer.raise_for_status()
    return [
        GroupCost(
            name=group["name"], interval_seconds=float(group["interval"]), last_seconds=float(group["evaluationTime"])
        )
        for group in answer.json()["data"]["groups"]
    ]


def main() -> int:
    """Measure; the exit status says whether every group stays below a tenth of its interval."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__)
    parser.add_argument("--services", type=int, default=50, help="of those that there are")
    parser.add_argument("--of", type=int, default=200)
    parser.add_argument("--replicas", type=int, default=8)
    options = parser.parse_args()
    component = Installer(cache_directory(), Progress()).provide(PROMETHEUS)
    services = [f"service-{number:03d}" for number in range(options.services)]
    with tempfile.TemporaryDirectory(prefix="obslib-rules-") as name:
        directory = Path(name)
        for path, text in everything(parse(policy(services)), Clock()).items():
            if path.startswith("rules/"):
                (directory / path).parent.mkdir(exist_ok=True)
                (directory / path).write_text(text)
        (directory / "prometheus.yml").write_text(
            "global: {scrape_interval: 5s, evaluation_interval: 5s}\nrule_files: [rules/*.yml]\n"
        )
        until = int(time.time())
        with (directory / "past.txt").open("w") as file:
            series = write_past(file, services, options.replicas, until)
        with (directory / "recorded.txt").open("w") as file:
            write_recorded(file, services, until)
        for part in ("past.txt", "recorded.txt"):
            promtool(component, directory, "tsdb", "create-blocks-from", "openmetrics", part, "data")
            (directory / part).unlink()
        with server(component, directory) as running:
            time.sleep(_EVALUATED_SECONDS)
            found = sorted(costs(running.url), key=lambda group: -group.share)
            (desired,) = httpx.get(
                f"{running.url}/api/v1/query",
                params={"query": "count(service:scale_desired:replicas)"},
                trust_env=False,
            ).json()["data"]["result"]
    times = options.of / options.services
    print(
        f"{options.services} services of {options.replicas} replicas, {series} series, {desired['value'][1]} scaled; "
        f"times {times:g}, for {options.of} services:"
    )
    print("\n| group | every | evaluation | of its interval |\n|---|---|---|---|")
    for group in found:
        seconds, share = times * group.last_seconds, times * group.share
        print(f"| {group.name} | {group.interval_seconds:g} s | {seconds:.3f} s | {share:.1%} |")
    print(f"| all together | | | {times * sum(group.share for group in found):.1%} of one core |")
    return 0 if times * found[0].share < _BUDGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
