"""Ends: a replica's in the middle of its requests, and the whole stack's."""

import os
import signal
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from obslib import names
from stack.components.catalogue import Component
from stack.processes import SHOP
from stack.state import StateDirectory
from tests.integration.running import STOP_SECONDS, RunningStack, eventually, is_alive, running, start, wait_until_up

SERVER = 2
REQUESTS = 24


def test_sigterm_loses_no_request_no_span_and_no_line(stack: RunningStack) -> None:
    """A replica told to stop while it works answers what it has accepted, and each answer has its span and its line."""
    replica = stack.process_url("shop-2")
    pid = stack.pid("shop-2")

    def send(_: int) -> tuple[str, int]:
        request_id = uuid.uuid4().hex
        with httpx.Client(trust_env=False, timeout=30) as http:
            headers = {"X-Request-ID": request_id, "X-API-Key": request_id}
            return request_id, http.get(f"{replica}/v1/products", headers=headers).status_code

    with ThreadPoolExecutor(REQUESTS) as threads:
        # More than the replica works on at once: when the signal comes, some are served and others wait inside it.
        sent = [threads.submit(send, number) for number in range(REQUESTS)]
        eventually(lambda: any(future.done() for future in sent), "the first answer")
        os.kill(pid, signal.SIGTERM)
        answers = [future.result() for future in sent]

    assert {status for _, status in answers} == {200}
    for request_id, _ in answers:
        trace_id = stack.access_line(SHOP, request_id)[names.LOG_TRACE_ID]
        (span,) = [span for span in stack.complete_trace(trace_id, {SHOP}) if span.kind == SERVER]
        assert span.attributes[names.ATTR_STATUS_CODE] == 200
    eventually(lambda: stack.pid_or_none("shop-2") not in {None, pid}, "the replica was started again")
    eventually(lambda: stack.status().healthy, "everything is well again")


def test_a_replica_that_is_killed_is_started_again_and_fails_no_request(stack: RunningStack) -> None:
    """`kill -9` of an idle replica: HAProxy goes to the other one, and the supervisor starts a new one."""
    pid = stack.pid("shop-1")
    os.kill(pid, signal.SIGKILL)
    # While the kernel takes the process apart its port still accepts: who gets in then is among the killed.
    eventually(lambda: not is_alive(pid), "the replica has ended")

    statuses = {
        stack.http.get(f"{stack.url}/v1/products", headers={"X-API-Key": f"killed-{number}"}).status_code
        for number in range(20)
    }

    assert statuses == {200}
    eventually(lambda: stack.pid_or_none("shop-1") not in {None, pid}, "the replica was started again")
    eventually(lambda: stack.status().healthy, "everything is well again")


def test_stop_leaves_no_process(components: Mapping[str, Component], state_directory: Path) -> None:
    """After `stop` nothing that the stack started is alive."""
    with running(state_directory, components) as stack:
        pids = [process.pid for process in stack.status().processes if process.pid]
        assert all(is_alive(pid) for pid in pids)
        stack.ask("stop")
        stack.supervisor.wait(STOP_SECONDS)
        assert not [pid for pid in pids if is_alive(pid)]


def test_kill_9_of_the_supervisor_leaves_no_process(components: Mapping[str, Component], state_directory: Path) -> None:
    """The kernel ends the children of a supervisor that had no chance to."""
    state = StateDirectory.at(state_directory)
    process = start(state, "--no-load")
    wait_until_up(process, state)
    stack = RunningStack(state, components, process)
    pids = [entry.pid for entry in stack.status().processes if entry.pid]
    stack.close()

    process.kill()
    process.wait()

    eventually(lambda: not any(is_alive(pid) for pid in pids), "all processes have ended")
