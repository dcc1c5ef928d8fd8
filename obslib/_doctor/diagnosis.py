"""Examines in a process of its own, so that importing an application leaves nothing behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from obslib._doctor.report import Finding, Report

#: The import's own deadline is shorter; this one is for what not even that can end.
_TIMEOUT_SECONDS: Final = 300.0
#: Loaded by the zero-code agent, and by nobody else.
AGENT: Final = "opentelemetry.instrumentation.auto_instrumentation"


def diagnose(application: str) -> Report:
    """
    Return the report on an application, or on the environment alone.

    Args:
        application: `module:attribute`, or "".
    """
    with tempfile.TemporaryFile("w+") as stream:
        ended = _examine_elsewhere(application, stream.fileno())
        stream.seek(0)
        text = stream.read()
    if ended == 0:
        return Report.from_json(json.loads(text))
    if not application:
        raise RuntimeError(f"The examination {_how(ended)}; what it printed is above.")
    report = diagnose("")
    report.application = application
    finding = Finding(
        level="error",
        code="application_not_imported",
        what=f"The process that imported {application} {_how(ended)}.",
        fix="What it printed is above: the server will not start either.",
    )
    report.findings.insert(0, finding)
    return report


def _examine_elsewhere(application: str, descriptor: int) -> int:
    """Return the exit status of a process that examined, and has written its report to a file."""
    process = subprocess.Popen(  # noqa: S603 -- ourselves
        [sys.executable, "-m", "obslib._doctor", str(descriptor), application],
        env=_environment(),
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(_TIMEOUT_SECONDS)
    finally:
        # Processes that the application has started are in the group, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment() -> dict[str, str]:
    """Return the environment, in which the zero-code agent is loaded again if it is loaded here."""
    environment = dict(os.environ)
    agent = getattr(sys.modules.get(AGENT), "__file__", None)
    if agent is not None:  # it takes itself out of PYTHONPATH, lest every child have it
        path = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(agent).parent), *([path] if path else [])])
    return environment


def _how(status: int) -> str:
    return f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
