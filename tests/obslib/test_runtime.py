"""The process in metrics: the event loop's lag, threads, garbage collections, limits."""

import gc
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from obslib import _loop_lag, names
from obslib._instruments import Instruments
from obslib._loop_lag import BUSY_SECONDS, IDLE_SECONDS, LoopLagSampler
from obslib._runtime import RuntimeMetrics
from obslib.settings import Settings
from obslib.testing import capture
from tests.obslib.processes import run_python

DEADLINE_SECONDS = 180

PRELUDE = """
import asyncio, gc, json, os, sys, threading, time
import anyio.to_thread
import obslib
from obslib import Settings, names
from starlette.applications import Starlette
def say(**values): print(json.dumps(values), flush=True)
async def first_event(app):
    async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message): pass
    await app({"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "headers": [], "client": None,
        "server": None}, receive, send)
def value(name, **labels): return observability.registry.get_sample_value(name, labels)
async def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
SETTINGS = Settings(service_name="tested", extra_registries=(), logs_enabled=False, traces_enabled=False)
LAG = names.ASYNCIO_EVENT_LOOP_LAG
"""


def run(code: str) -> dict[str, Any]:
    """Run code after the prelude; return what it said."""
    return run_python(PRELUDE + code)[-1]


@pytest.mark.parametrize("runner", ["asyncio.run", "uvloop.run"])
def test_a_blocked_loop_is_seen(runner: str) -> None:
    """Whoever blocks the loop for a second leaves a sample that late; the loop ends none the later for our timer."""
    said = run(f"""
import uvloop
async def main():
    await first_event(app)
    time.sleep(1.0)
    await until(lambda: value(LAG + "_count"))
    say(lag=value(LAG + "_sum"))
app = Starlette()
observability = obslib.instrument(app, SETTINGS)
{runner}(main())
observability.shutdown()
""")
    assert said["lag"] >= 1.0 - 1.5 * BUSY_SECONDS


def test_the_first_event_starts_and_shutdown_stops() -> None:
    """Before the first event there is no callback and no timer; after shutdown neither is left."""
    said = run("""
async def main():
    loop = asyncio.get_running_loop()
    def timers(): return sum("obslib" in repr(handle) or "LoopLag" in repr(handle) for handle in loop._scheduled)
    def state(): return [timers(), len(gc.callbacks), value(names.ANYIO_THREAD_LIMITER_MAX)]
    before = state()
    await first_event(app)
    during = state()
    await asyncio.to_thread(observability.shutdown)
    await until(lambda: not any(not handle.cancelled() for handle in loop._scheduled if "LoopLag" in repr(handle)))
    say(before=before, during=during, callbacks=len(gc.callbacks))
app = Starlette()
observability = obslib.instrument(app, SETTINGS)
asyncio.run(main())
""")
    assert said["before"] == [0, 0, None]
    assert said["during"] == [1, 1, 40.0]
    assert said["callbacks"] == 0


def test_a_second_loop_has_its_own_sampler() -> None:
    """After a lifespan the next event starts anew, on the loop it comes from."""
    said = run("""
async def main():
    await first_event(app)
    await until(lambda: value(LAG + "_count") > counts[-1])
    counts.append(value(LAG + "_count"))
app = Starlette()
observability = obslib.instrument(app, SETTINGS)
counts = [0]
for _ in range(2):
    asyncio.run(main())
    observability.pause()
say(counts=counts, callbacks=len(gc.callbacks))
observability.shutdown()
""")
    assert sorted(set(said["counts"])) == said["counts"]
    assert said["callbacks"] == 0


def test_busy_threads_and_those_who_wait() -> None:
    """The limiter's threads in use, its size and who waits are read when asked for."""
    said = run("""
async def main():
    await first_event(app)
    anyio.to_thread.current_default_thread_limiter().total_tokens = 2
    release = threading.Event()
    tasks = [asyncio.create_task(anyio.to_thread.run_sync(release.wait)) for _ in range(3)]
    gauges = names.ANYIO_THREAD_LIMITER_BORROWED, names.ANYIO_THREAD_LIMITER_MAX, names.ANYIO_THREAD_LIMITER_WAITING
    await until(lambda: value(gauges[2]))
    say(values=[value(name) for name in gauges])
    release.set()
    await asyncio.gather(*tasks)
app = Starlette()
observability = obslib.instrument(app, SETTINGS)
asyncio.run(main())
observability.shutdown()
""")
    assert said["values"] == [2.0, 2.0, 1.0]


def test_a_forks_child_starts_afresh() -> None:
    """In the child nothing of the parent's runs, and its own first event starts its own; the parent's goes on."""
    said = run("""
async def child():
    idle = [len(gc.callbacks), observability._telemetry.runtime_metrics._sampler is not None]
    await first_event(app)
    before = value(LAG + "_count")
    await until(lambda: value(LAG + "_count") > before)
    return [*idle, len(gc.callbacks)]
async def main():
    await first_event(app)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        def in_child(): os.write(writer, json.dumps(asyncio.run(child())).encode())
        asyncio._set_running_loop(None)
        in_child()
        os._exit(0)
    os.waitpid(pid, 0)
    before = value(LAG + "_count")
    await until(lambda: value(LAG + "_count") > before)
    say(child=json.loads(os.read(reader, 100)), parent=len(gc.callbacks))
app = Starlette()
observability = obslib.instrument(app, SETTINGS)
asyncio.run(main())
observability.shutdown()
""")
    assert said == {"child": [0, False, 1], "parent": 1}


def test_a_program_without_asgi_has_what_it_can_have() -> None:
    """A worker has its collections and limits, and no series of an event loop it does not have."""
    said = run("""
observability = obslib.instrument_process(SETTINGS)
gc.collect()
say(
    collections=value(names.CPYTHON_GC_PAUSE_DURATION + "_count", **{names.LABEL_GC_GENERATION: "2"}),
    cores=value(names.PROCESS_CPU_LIMIT), memory=value(names.PROCESS_MEMORY_LIMIT), loop=value(LAG + "_count"))
observability.shutdown()
""")
    assert said["collections"] >= 1
    assert said["cores"] > 0
    assert said["memory"] > 1e6
    assert said["loop"] is None


def test_where_no_loop_runs() -> None:
    """Started outside of a loop, there are collections and limits, and no series of a loop."""
    instruments = Instruments(CollectorRegistry(), 100, before_reading=lambda: None, on_error=lambda _: None)
    runtime = RuntimeMetrics(instruments)
    runtime.start()
    runtime.stop()
    made = {metric.name for metric in instruments.all()}
    assert names.CPYTHON_GC_PAUSE_DURATION in made
    assert names.ASYNCIO_EVENT_LOOP_LAG not in made


async def test_started_again() -> None:
    """A second start has one sampler, as the first had."""
    instruments = Instruments(CollectorRegistry(), 100, before_reading=lambda: None, on_error=lambda _: None)
    runtime = RuntimeMetrics(instruments)
    runtime.start()
    runtime.start()
    runtime.stop()
    assert [metric.name for metric in instruments.all()].count(names.ASYNCIO_EVENT_LOOP_LAG) == 1


def test_runtime_metrics_can_be_off() -> None:
    """Off means: no series, no callback, no timer."""
    said = run("""
import dataclasses
app = Starlette()
observability = obslib.instrument(app, dataclasses.replace(SETTINGS, runtime_metrics_enabled=False))
asyncio.run(first_event(app))
say(callbacks=len(gc.callbacks), families=[family.name for family in observability.registry.collect()])
observability.shutdown()
""")
    assert said["callbacks"] == 0
    families = set(said["families"])
    assert names.HTTP_SERVER_REQUEST_DURATION in families
    assert not families & {names.CPYTHON_GC_PAUSE_DURATION, names.PROCESS_CPU_LIMIT, names.ASYNCIO_EVENT_LOOP_LAG}


# --- the sampler alone -----------------------------------------------------------------------------------------------


class FakeLoop:
    """A loop that has been asked for one call, and clocks that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_seconds = 100.0
        self.cpu_seconds = 1.0
        self.delay_seconds = 0.0
        self.is_closed = False
        self.timers: list[Callable[[], None]] = []
        clocks = SimpleNamespace(perf_counter=lambda: self.now_seconds, process_time=lambda: self.cpu_seconds)
        monkeypatch.setattr(_loop_lag, "time", clocks)
        monkeypatch.setattr(_loop_lag, "random", SimpleNamespace(uniform=lambda _low, _high: 1.0))

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> Any:
        self.delay_seconds = delay_seconds
        self.timers.append(callback)
        return SimpleNamespace(cancel=lambda: self.timers.remove(callback))

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        if self.is_closed:
            raise RuntimeError("Event loop is closed")
        callback()

    def fire(self, *, late_seconds: float = 0.0, cpu_share: float = 0.0) -> None:
        passed_seconds = self.delay_seconds + late_seconds
        self.now_seconds += passed_seconds
        self.cpu_seconds += passed_seconds * cpu_share
        self.timers.pop()()


def sampler_on(loop: Any, observe: Callable[[float], None]) -> LoopLagSampler:
    return LoopLagSampler(loop, observe)


def test_an_idle_process_is_woken_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses double up to four seconds while nothing is done; work, or a late sample, makes them short again."""
    loop = FakeLoop(monkeypatch)
    sampler_on(loop, lambda _seconds: None)
    delays = []
    for _ in range(6):
        delays.append(loop.delay_seconds)
        loop.fire()
    assert delays == [BUSY_SECONDS, 0.5, 1.0, 2.0, IDLE_SECONDS, IDLE_SECONDS]
    loop.fire(cpu_share=0.5)
    assert loop.delay_seconds == BUSY_SECONDS
    loop.fire()
    loop.fire(late_seconds=1.0)  # it slept, which takes no processor time
    assert loop.delay_seconds == BUSY_SECONDS


def test_one_block_is_one_late_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten seconds without the loop the next timer is due as long after as ever, and nothing drifts."""
    loop = FakeLoop(monkeypatch)
    lags: list[float] = []
    sampler_on(loop, lags.append)
    loop.fire(late_seconds=10.0)
    loop.fire(late_seconds=-0.001)  # a loop may be early by its clock's resolution
    loop.fire(late_seconds=0.02)
    assert lags == pytest.approx([10.0, 0.0, 0.02])
    assert len(loop.timers) == 1


def test_a_stopped_sampler_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its timer is cancelled; one that fires all the same, after a fork or beside a stop, does nothing."""
    loop = FakeLoop(monkeypatch)
    lags: list[float] = []
    sampler_on(loop, lags.append).stop()
    assert loop.timers == []
    sampler_on(loop, lags.append).abandon()
    loop.fire()
    assert (loop.timers, lags) == ([], [])


def test_stopping_after_the_loop_has_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed loop has no timer to cancel."""
    loop = FakeLoop(monkeypatch)
    loop.is_closed = True
    sampler_on(loop, lambda _seconds: None).stop()


# --- collections -----------------------------------------------------------------------------------------------------


def test_collections_are_counted_by_generation() -> None:
    """Each collection is one observation of its generation, told when the metric is read."""
    with capture(Starlette()) as telemetry:
        pauses = telemetry._telemetry.runtime_metrics
        assert pauses is not None
        pauses.start()
        try:
            pauses.start()
            assert gc.callbacks.count(pauses._gc_pauses._on_collection) == 1
            gc.disable()
            gc.collect(0)
            gc.collect(0)
            gc.collect(2)
        finally:
            pauses.stop()
            pauses.stop()
            gc.enable()
        counts = telemetry.samples(f"{names.CPYTHON_GC_PAUSE_DURATION}_count")
        sums = telemetry.samples(f"{names.CPYTHON_GC_PAUSE_DURATION}_sum")
    by_generation = {dict(labels)[names.LABEL_GC_GENERATION]: count for labels, count in counts.items()}
    assert by_generation == {"0": 2, "1": 0, "2": 1}
    assert all((seconds > 0) is (count > 0) for seconds, count in zip(sums.values(), counts.values(), strict=True))


def test_a_collection_while_the_histogram_is_locked() -> None:
    """A collection that begins inside the histogram's own lock, in the same thread, does not wait for it for ever."""
    with capture(Starlette()) as telemetry:
        runtime = telemetry._telemetry.runtime_metrics
        assert runtime is not None
        pauses = runtime._gc_pauses
        pauses.start()

        def collect_inside() -> None:
            with pauses._children[0]._lock, pauses._children[2]._lock, pauses._lock:
                gc.collect()

        thread = threading.Thread(target=collect_inside, daemon=True)
        thread.start()
        thread.join(DEADLINE_SECONDS)
        pauses.stop()
        assert not thread.is_alive()
        counts = telemetry.samples(f"{names.CPYTHON_GC_PAUSE_DURATION}_count")
        assert max(counts.values()) >= 1


def test_a_collection_that_was_running_already_is_left_out() -> None:
    """Only an end with a beginning is timed."""
    with capture(Starlette()) as telemetry:
        runtime = telemetry._telemetry.runtime_metrics
        assert runtime is not None
        runtime._gc_pauses._on_collection("stop", {"generation": 2})
        assert set(telemetry.samples(f"{names.CPYTHON_GC_PAUSE_DURATION}_count").values()) == {0.0}


def test_settings_from_the_environment() -> None:
    """`OBSLIB_RUNTIME_METRICS_ENABLED` is the setting's variable."""
    assert Settings.from_env({"OBSLIB_RUNTIME_METRICS_ENABLED": "false"}).runtime_metrics_enabled is False
