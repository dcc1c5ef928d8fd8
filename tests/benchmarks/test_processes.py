"""What the bench starts: it is measured, and it is gone afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from benchmarks.children import SERVER_CPU, Child, ChildError, Children
from benchmarks.disturbance import Disturbance
from benchmarks.site import start_collector


def test_the_collector_counts_spans_by_service(tmp_path: Path) -> None:
    """What is posted to the collector is counted under its service's name."""
    service = KeyValue(key="service.name", value=AnyValue(string_value="tested"))
    spans = ScopeSpans(spans=[Span(name="a"), Span(name="b")])
    body = ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=Resource(attributes=[service]), scope_spans=[spans])]
    ).SerializeToString()
    with Children(tmp_path) as children:
        collector = start_collector(children, "healthy")
        for _ in range(2):
            request = urllib.request.Request(f"{collector.url}/v1/traces", data=body, method="POST")
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 200
        assert json.loads(collector.get("/counts")) == {"tested": 4}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ChildError])
def test_whatever_ends_the_bench_ends_its_processes(tmp_path: Path, error: type[BaseException]) -> None:
    """Neither a process nor its children outlive the block that started them."""
    pids: list[int] = []

    def run() -> None:
        with Children(tmp_path) as children:
            pids.extend(start_collector(children, "healthy").pids)
            raise error

    with pytest.raises(error):
        run()
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_process_that_dies_says_why(tmp_path: Path) -> None:
    """The error contains what the process printed last."""
    with Children(tmp_path) as children:
        command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
        child = children.start("dying", command, children.free_port(), {})
        with pytest.raises(ChildError, match="no such thing"):
            child.wait_until_ready("/")


def test_a_paused_process_uses_no_cpu_goes_on_and_can_be_ended(tmp_path: Path) -> None:
    """Paused, it is stopped in the kernel's eyes; resumed, it answers; and pausing keeps nobody from ending it."""
    with Children(tmp_path) as children:
        collector = start_collector(children, "healthy")
        process = psutil.Process(collector.pids[0])
        collector.pause()
        deadline = time.monotonic() + 10
        while process.status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline
        collector.resume()
        assert collector.get("/counts") == b"{}"
        collector.pause()
    assert not psutil.pid_exists(process.pid)
    # By the polite signal, not by the one that ends whoever does not react.
    assert collector._process.returncode == -signal.SIGTERM


def test_what_others_do_on_the_servers_cpu_is_seen() -> None:
    """A process that is not the server's counts, and one that is does not."""
    program = f"import os, time; os.sched_setaffinity(0, {{{SERVER_CPU}}})\nwhile time.process_time() < 1: pass"
    disturbance = Disturbance()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    foreign_seconds = disturbance.seconds(0.0)
    assert foreign_seconds >= 0.5  # the kernel counts in ticks
    assert disturbance.seconds(foreign_seconds) < foreign_seconds / 2


def test_cpu_time_is_that_of_all_threads(tmp_path: Path) -> None:
    """What a process has used grows, and is no less than the kernel's own account of it in ticks."""
    with Children(tmp_path) as children:
        collector: Child = start_collector(children, "healthy")
        ticks = psutil.Process(collector.pids[0]).cpu_times()
        assert collector.cpu_seconds() >= ticks.user + ticks.system - 2 / os.sysconf("SC_CLK_TCK")
        before = collector.cpu_seconds()
        collector.get("/counts")
        assert collector.cpu_seconds() > before
