"""Start and end of life in real processes: nothing before the first event, and nothing lost after the last."""

import signal
import time
from pathlib import Path

import pytest

from obslib import names
from tests.obslib.collector import running_collector
from tests.obslib.otlp_collector import Collector, drip, garbage, hang, reset, status
from tests.obslib.processes import Server, run_python, serving

APP = """
import asyncio
import obslib
from fastapi import FastAPI
app = FastAPI()
observability = obslib.instrument(app)
log = obslib.get_logger("served")
@app.get("/items/{item_id}")
async def item(item_id: int):
    log.info("looked_up", item_id=item_id)
    return item_id
@app.get("/boom")
async def boom():
    raise RuntimeError("broken")
"""


#: Ends without a word to obslib, and says how long the end took.
SCRIPT = """
import atexit, json, time
import obslib
from opentelemetry import trace
atexit.register(lambda: print(json.dumps({"event": "ended", "seconds": time.monotonic() - began})))
obslib.instrument_process()
with trace.get_tracer("script").start_as_current_span("work"):
    pass
obslib.get_logger("script").info("last_words")
began = time.monotonic()
"""


def served_lines(server: Server) -> list[int]:
    return sorted(line["item_id"] for line in server.lines if line["event"] == "looked_up")


@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_sigterm_loses_nothing(tmp_path: Path, lifespan: str) -> None:
    """Spans and lines of every request answered before SIGTERM arrive; without lifespan through atexit, or the interval."""
    with running_collector() as collector:
        env = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OBSLIB_SPAN_FLUSH_INTERVAL_SECONDS": "60" if lifespan == "on" else "0.1",
        }
        with serving(APP, tmp_path, "--lifespan", lifespan, **env) as server:
            for number in range(20):
                assert server.get(f"/items/{number}")[0] == 200
            if lifespan == "off":
                wait_for(lambda: len(collector.spans) == 20)
                wait_for(lambda: served_lines(server) == list(range(20)))
            server.stop()
            assert served_lines(server) == list(range(20))
            access = [line for line in server.lines if line["logger"] == names.ACCESS_LOGGER]
        assert len(access) == 20
        assert {span.name for span in collector.spans} == {"GET /items/{item_id}"}
        assert {span.trace_id.hex() for span in collector.spans} == {line["trace_id"] for line in access}


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("behaviour", ["dead", "hang", "drip", "garbage", "refuses", "reset"])
@pytest.mark.parametrize("kind", ["server", "script"])
def test_no_collector_delays_the_end(tmp_path: Path, kind: str, behaviour: str) -> None:
    """With a collector that takes nothing the process ends with the shutdown's deadline, and says what went wrong."""
    behaviours = {"hang": hang, "drip": drip, "garbage": garbage, "refuses": status(400), "reset": reset}
    collector = Collector()
    collector.behaviour = behaviours.get(behaviour, hang)
    env = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/" if behaviour == "dead" else collector.url,
        "OBSLIB_SHUTDOWN_TIMEOUT_SECONDS": "0.5",
    }
    try:
        if kind == "script":
            lines = run_python(SCRIPT, **env)
        else:
            with serving(APP, tmp_path, **env) as server:
                server.get("/items/1")
                began = time.monotonic()
                server.stop()
                # The timeout for a batch is ten seconds, and nobody may wait for that.
                assert time.monotonic() - began < 9
                assert served_lines(server) == [1]
                lines = server.lines
    finally:
        collector.stop()
    [lost] = [line for line in lines if line["event"] == "obslib_spans_not_exported"]
    assert lost["endpoint"] == env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
    assert lost["reason"]
    if kind == "script":
        [ended] = [line for line in lines if line["event"] == "ended"]
        assert ended["seconds"] < 9
        assert any(line["event"] == "last_words" for line in lines)


def test_exception_comes_out_once(tmp_path: Path) -> None:
    """An exception nobody handles stands on the access line, and the server's own line about it is left out."""
    with serving(APP, tmp_path) as server:
        assert server.get("/boom")[0] == 500
        server.stop()
        traced = [line for line in server.lines if names.LOG_EXCEPTION_TYPE in line]
    assert [line["event"] for line in traced] == [names.ACCESS_EVENT]


def test_server_lines_have_the_same_shape(tmp_path: Path) -> None:
    """From the lifespan on every line of the server is JSON, and its access log is replaced by ours."""
    with serving(APP, tmp_path) as server:
        server.get("/items/1")
        server.stop()
        events = [line["event"] for line in server.lines]
        assert all(line.startswith("{") for line in server.text.splitlines() if line)
    assert "Application startup complete." in events
    assert events.count(names.ACCESS_EVENT) == 1
    assert not any('"GET /items/1' in event for event in events)


def test_metrics_on_their_own_port(tmp_path: Path) -> None:
    """With a port of their own the metrics are there, and the service's port has none."""
    from tests.obslib.processes import free_port

    port = free_port()
    with serving(APP, tmp_path, OBSLIB_METRICS_PORT=str(port), OBSLIB_METRICS_TOKEN="s3cret") as server:
        assert server.get("/metrics")[0] == 404
        beside = Server(server.process, port, tmp_path / "output.txt")
        token = {"authorization": "Bearer s3cret"}
        status, body = beside.get("/metrics", {"accept-encoding": "identity", **token})
        assert (status, b"target_info" in body) == (200, True)
        assert beside.get("/metrics", {"accept-encoding": "gzip", **token})[1].startswith(b"\x1f\x8b")
        assert beside.get("/metrics", token, method="HEAD") == (200, b"")
        assert beside.get("/metrics")[0] == 401
        assert beside.get("/other")[0] == 404


def test_metrics_port_taken_harms_no_request(tmp_path: Path) -> None:
    """A metrics port that is taken is a line and a count; requests are served."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with serving(APP, tmp_path, OBSLIB_METRICS_PORT=str(taken.getsockname()[1])) as server:
            assert server.get("/items/1")[0] == 200
            server.stop()
            assert any(line["event"] == "obslib_internal_error" for line in server.lines)


def test_interrupt_ends_orderly(tmp_path: Path) -> None:
    """Ctrl-C is an orderly end, too."""
    with serving(APP, tmp_path) as server:
        server.get("/items/5")
        server.stop(signal.SIGINT)
        assert served_lines(server) == [5]


def test_process_without_asgi() -> None:
    """`instrument_process` starts at once: spans and lines arrive at exit, and the metrics are on their port."""
    from tests.obslib.processes import free_port

    port = free_port()
    with running_collector() as collector:
        lines = run_python(
            """
            import os, urllib.request
            import obslib
            from opentelemetry import trace
            observability = obslib.instrument_process()
            assert obslib.instrument_process() is observability
            observability.counter("jobs_total", "Jobs.").inc()
            with trace.get_tracer("jobs").start_as_current_span("job"):
                obslib.get_logger("jobs").info("job_done")
            url = f"http://127.0.0.1:{os.environ['OBSLIB_METRICS_PORT']}/metrics"
            obslib.get_logger("jobs").info("scraped", found="jobs_total" in urllib.request.urlopen(url).read().decode())
            """,
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="60000",
            OBSLIB_METRICS_PORT=str(port),
        )
        [span] = collector.spans
    assert [line["event"] for line in lines] == ["job_done", "scraped"]
    assert lines[0]["trace_id"] == span.trace_id.hex()
    assert lines[1]["found"] is True


def test_process_with_other_settings() -> None:
    """A process is instrumented once; other settings raise, as does a port that is taken."""
    [line] = run_python(
        """
        import json, socket
        import obslib
        taken = socket.socket(); taken.bind(("127.0.0.1", 0)); taken.listen()
        sentences = []
        settings = obslib.Settings.from_env()
        try:
            obslib.instrument_process(obslib.Settings.from_env(metrics_port=taken.getsockname()[1]))
        except obslib.exceptions.ConfigurationError as error:
            sentences.append(str(error))
        taken.close()
        with obslib.instrument_process(settings):
            try:
                obslib.instrument_process(obslib.Settings.from_env(service_name="other"))
            except obslib.exceptions.AlreadyInstrumentedError as error:
                sentences.append(str(error))
        print(json.dumps({"sentences": sentences}))
        """
    )
    assert "Choose another OBSLIB_METRICS_PORT" in line["sentences"][0]
    assert "shutdown()" in line["sentences"][1]


def test_fork_after_start() -> None:
    """A child of a fork sends its own spans and writes its own lines, and never the parent's."""
    with running_collector() as collector:
        lines = run_python(
            """
            import os, warnings
            warnings.simplefilter("ignore")
            import obslib
            from opentelemetry import trace
            observability = obslib.instrument_process()
            log, tracer = obslib.get_logger("f"), trace.get_tracer("f")
            def work(who):
                with tracer.start_as_current_span(who):
                    log.info("worked", who=who)
            work("parent")
            child = os.fork()
            if child == 0:
                observability.start()
                work("child")
                observability.shutdown()
                os._exit(0)
            os.waitpid(child, 0)
            observability.shutdown()
            """,
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="60000",
            OBSLIB_LOG_FLUSH_INTERVAL_SECONDS="60",
        )
        assert sorted(span.name for span in collector.spans) == ["child", "parent"]
    assert sorted(line["who"] for line in lines) == ["child", "parent"]


def test_second_lifespan() -> None:
    """A second lifespan after the first one starts telemetry again."""
    [lifespans] = run_python(
        """
        import asyncio, json
        import httpx, obslib
        from fastapi import FastAPI
        app = FastAPI()
        observability = obslib.instrument(app)
        async def lifespan():
            incoming, states = asyncio.Queue(), []
            async def send(message):
                states.append((message["type"], observability.running))
            task = asyncio.create_task(app({"type": "lifespan", "asgi": {}, "state": {}}, incoming.get, send))
            for event in ("startup", "shutdown"):
                await incoming.put({"type": f"lifespan.{event}"})
            await task
            return states
        print(json.dumps({"states": [asyncio.run(lifespan()), asyncio.run(lifespan())]}))
        """
    )
    once = [["lifespan.startup.complete", True], ["lifespan.shutdown.complete", False]]
    assert lifespans["states"] == [once, once]


def test_fork_of_an_instrumented_process() -> None:
    """In a fork's child `instrument_process` starts telemetry again, the parent's port is closed, and shutdown ends."""
    from tests.obslib.processes import free_port

    port = free_port()
    lines = run_python(
        f"""
        import json, os, signal, socket, warnings
        warnings.simplefilter("ignore")
        import obslib
        def sockets():
            links = (f"/proc/self/fd/{{number}}" for number in os.listdir("/proc/self/fd"))
            return sum(os.readlink(link).startswith("socket:") for link in links if os.path.islink(link))
        settings = obslib.Settings.from_env(metrics_port={port})
        parent = obslib.instrument_process(settings)
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            inherited = sockets()
            same = obslib.instrument_process(settings) is parent
            running = parent.running
            parent.shutdown()
            os.write(1, json.dumps({{"inherited": inherited, "same": same, "running": running}}).encode() + b"\\n")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        socket.create_connection(("127.0.0.1", {port})).close()
        parent.shutdown()
        """,
    )
    assert {"inherited": 0, "same": True, "running": True} in lines


def test_fork_before_anything_was_served() -> None:
    """A server that forks after it has loaded the application, as `gunicorn --preload` does, gets workers that live."""
    [before, after] = run_python(
        """
        import json, os, sys, time
        import obslib
        from starlette.applications import Starlette

        print(json.dumps({"is_imported": "concurrent.futures.thread" in sys.modules}), flush=True)
        obslib.instrument(Starlette())
        child = os.fork()
        if not child:
            os._exit(0)
        deadline = time.monotonic() + 20
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, 9)
            time.sleep(0.01)
        print(json.dumps({"status": os.waitstatus_to_exitcode(ended[1])}))
        """,
        PYTHONWARNINGS="ignore",
    )
    assert before == {"is_imported": False}
    assert after == {"status": 0}
