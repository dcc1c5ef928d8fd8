"""Workers that are forked, stopped, killed and followed by others: totals only go up, and nothing gathers."""

from pathlib import Path
from typing import Any

from tests.obslib.processes import run_python

SUPERVISOR = """
import asyncio, json, os, signal, sys, warnings
warnings.simplefilter("ignore")
import obslib, prometheus_client
from fastapi import FastAPI
from obslib import names
from tests.obslib.asgi import call, http_scope

app = FastAPI()
observability = obslib.instrument(app)
jobs = observability.counter("jobs_total", "Jobs.")
level = observability.gauge("level", "Level.")
foreign = prometheus_client.Counter("foreign", "Foreign.")

def scrape():
    body = asyncio.run(call(app, http_scope("/metrics"))).body.decode()
    samples = {}
    for line in body.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name, _, labels = series.partition("{")
            samples.setdefault(name, {})[labels.partition('worker="')[2].split('"')[0]] = float(value)
    return samples, body

class Worker:
    def __init__(self):
        self.commands, commands = os.pipe()
        answers, self.answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(answers); os.close(commands)
            try:
                self.run()
            finally:
                os._exit(1)
        os.close(self.commands); os.close(self.answers)
        self.to = os.fdopen(commands, "w", buffering=1); self.back = os.fdopen(answers)

    def run(self):
        signal.alarm(120)
        with os.fdopen(self.commands) as commands, os.fdopen(self.answers, "w", buffering=1) as answers:
            for command in commands:
                signal.alarm(120)  # for each: how long all of them take is the machine's business
                word, _, number = command.strip().partition(" ")
                if word == "work":
                    asyncio.run(call(app, http_scope("/nothing")))  # the first event starts everything
                    jobs.inc(int(number)); foreign.inc(int(number)); level.set(int(number))
                elif word == "end":
                    observability.shutdown()
                samples, body = scrape() if word == "scrape" else ({}, "")
                answers.write(json.dumps([samples, body]) + "\\n")
                if word == "end":
                    os._exit(0)

    def ask(self, command):
        self.to.write(command + "\\n")
        return json.loads(self.back.readline())

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self):
        self.to.close(); self.back.close()
        return os.waitpid(self.pid, 0)[1]

def files():
    [directory] = [path for path in os.listdir(os.environ["OBSLIB_WORKER_DIRECTORY"])]
    return sorted(os.listdir(os.path.join(os.environ["OBSLIB_WORKER_DIRECTORY"], directory)))
"""


def supervise(tmp_path: Path, code: str) -> list[dict[str, Any]]:
    return run_python(
        SUPERVISOR + code,
        OBSLIB_WORKER_GROUP="lives",
        OBSLIB_WORKER_DIRECTORY=str(tmp_path),
        OBSLIB_LOGS_ENABLED="false",
        OBSLIB_TRACES_ENABLED="false",
    )


def test_two_hundred_lives(tmp_path: Path) -> None:
    """Two hundred workers one after the other, ended in every way: totals never fall, and no file and no line gathers."""
    [found] = supervise(
        tmp_path,
        """
reader = Worker()
reader.ask("work 0")
shown = dict.fromkeys(("jobs_total", "foreign_total", names.HTTP_SERVER_REQUEST_DURATION + "_count"), 0)
falls, certain, unseen, lines = [], 0, 0, set()
for life in range(200):
    worker = Worker()
    worker.ask("work 7")
    if life % 3 == 0:
        worker.ask("end"); worker.wait(); certain += 7
    elif life % 3 == 1:
        reader.ask("scrape"); worker.kill(); certain += 7  # it was shown
    else:
        worker.kill(); unseen += 7  # nobody has seen it, so that it may be lost
    samples, body = reader.ask("scrape")
    for name, before in shown.items():
        total = sum(samples[name].values())
        if total < before or set(samples[name]) - {"0", "1"}:
            falls.append([life, name, before, samples[name]])
        shown[name] = total
    lines.add(body.count("\\n"))
reader.ask("end"); reader.wait()
print(json.dumps({"falls": falls, "shown": shown, "certain": certain, "unseen": unseen, "lines": sorted(lines), "files": files(),
    "gauges": samples["level"], "rejected": samples[names.WORKER_SNAPSHOTS_REJECTED]}))
""",
    )
    assert found["falls"] == []
    for name in ("jobs_total", "foreign_total"):
        lost = found["certain"] + found["unseen"] - found["shown"][name]
        assert 0 <= lost <= found["unseen"]
    assert found["gauges"] == {"0": 0.0}
    assert set(found["rejected"].values()) == {0.0}
    assert len(found["lines"]) == 1
    assert found["files"] == ["0.lock", "0.metrics", "1.lock", "1.metrics", "1.sock"]


def test_stopped_worker(tmp_path: Path) -> None:
    """A worker that is stopped is shown as it was last, and counted; when it goes on it answers again."""
    [found] = supervise(
        tmp_path,
        """
reader, worker = Worker(), Worker()
reader.ask("work 1"); worker.ask("work 5"); reader.ask("scrape")
os.kill(worker.pid, signal.SIGSTOP)
os.waitpid(worker.pid, os.WUNTRACED)
stopped, _ = reader.ask("scrape")
os.kill(worker.pid, signal.SIGCONT)
worker.ask("work 6")
awake, _ = reader.ask("scrape")
for each in (reader, worker):
    each.ask("end"); each.wait()
print(json.dumps({"stopped": stopped, "awake": awake}))
""",
    )
    stopped, awake = found["stopped"], found["awake"]
    assert stopped["jobs_total"] == stopped["level"] == {"0": 1.0, "1": 5.0}
    assert awake["jobs_total"] == {"0": 1.0, "1": 11.0}
    assert awake["level"] == {"0": 1.0, "1": 6.0}
    assert awake["obslib_worker_answers_missed_total"]["0"] == 1.0


def test_child_of_a_worker(tmp_path: Path) -> None:
    """What a worker had counted before a fork is the worker's alone, and its child holds neither its slot nor its socket."""
    [found] = supervise(
        tmp_path,
        """
parent = Worker()
if parent.pid:
    parent.ask("work 5")
jobs.inc(100)  # in the supervisor, which nobody scrapes
waits = observability.histogram("wait_seconds", "Wait.")
waits.observe(1)
child = Worker()
child.ask("work 2")
both, _ = parent.ask("scrape")
for each in (parent, child):
    each.ask("end"); each.wait()

# A worker that forks, and is survived by its child: the slot is free.
reads, writes = os.pipe()
forking = os.fork()
if forking == 0:
    asyncio.run(call(app, http_scope("/nothing")))
    orphan = os.fork()
    if orphan == 0:
        signal.alarm(60)
        signal.pause()
    other = os.fork()
    if other == 0:
        observability.start()  # a worker of a worker: in a group of its own
        own, _ = scrape()
        os._exit(0 if own[names.BUILD_INFO] == {"0": 1.0} else 1)
    assert os.waitpid(other, 0)[1] == 0
    os.write(writes, str(orphan).encode())
    os._exit(0)
os.waitpid(forking, 0)
successor = Worker()
successor.ask("work 1")
after, _ = successor.ask("scrape")
os.kill(int(os.read(reads, 20)), signal.SIGKILL)
successor.ask("end"); successor.wait()
print(json.dumps({"both": both["jobs_total"], "waits": both["wait_seconds_count"], "after": after[names.BUILD_INFO]}))
""",
    )
    assert found["both"] == {"0": 5.0, "1": 2.0}
    assert found["waits"] == {"1": 0.0}
    assert found["after"] == {"0": 1.0}


def test_port_of_several_processes(tmp_path: Path) -> None:
    """Programs without ASGI that a parent forks have one port, and it answers for all, whoever of them is gone."""
    from tests.obslib.processes import free_port

    [found] = run_python(
        """
        import json, os, signal, time, urllib.request, warnings
        warnings.simplefilter("ignore")
        import obslib
        def scrape():
            url = f"http://127.0.0.1:{os.environ['OBSLIB_METRICS_PORT']}/metrics"
            body = urllib.request.urlopen(url, timeout=60).read().decode()
            return sorted(line for line in body.splitlines() if line.startswith("jobs_total{"))
        def child(number):
            reads, writes = os.pipe()
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                observability = obslib.instrument_process()
                observability.counter("jobs_total", "Jobs.").inc(number)
                grandchild = os.fork()  # it leaves the port and the slot to its parent
                if grandchild == 0:
                    os._exit(0)
                os.waitpid(grandchild, 0)
                os.write(writes, b"x")
                signal.pause()
            os.read(reads, 1)
            return pid
        pids = [child(number) for number in (1, 2)]
        first = scrape()
        os.kill(pids[0], signal.SIGKILL)
        os.waitpid(pids[0], 0)
        deadline = time.monotonic() + 60
        while True:
            try:
                second = scrape()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        os.kill(pids[1], signal.SIGKILL)
        os.waitpid(pids[1], 0)
        print(json.dumps({"first": first, "second": second}))
        """,
        OBSLIB_WORKER_GROUP="jobs",
        OBSLIB_WORKER_DIRECTORY=str(tmp_path),
        OBSLIB_METRICS_PORT=str(free_port()),
    )
    both = ['jobs_total{worker="0"} 1.0', 'jobs_total{worker="1"} 2.0']
    assert found == {"first": both, "second": both}
