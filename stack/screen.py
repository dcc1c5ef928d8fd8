"""The one screen the demo prints, and the table of `status`."""

import os
import sys
from pathlib import Path
from typing import Final

from stack.components.progress import elapsed
from stack.plan import MEBIBYTE, state_file
from stack.state import DEFAULT_STATE
from stack.status import RUNNING, ProcessStatus, StackStatus
from stack.terminal import Style

_LABEL_WIDTH: Final = 16
# The watchdog comes every minute; two lost ones and a late third are no accident.
_SILENT_SECONDS: Final = 200.0


def command(state_directory: str) -> str:
    """How to call this program from here: with the Python that runs it, which has what it needs."""
    # Not resolved: a virtual environment's python is a link to one that does not know its packages.
    python = state_file(Path(sys.executable))
    option = "" if Path(state_directory) == DEFAULT_STATE else f" --state-dir {state_directory}"
    return f"{python} -m stack{option}"


def render(status: StackStatus, *, example_trace: str, style: Style) -> str:
    """
    The demo's screen.

    Args:
        status: what runs; only its pages that were found non-empty are shown.
        example_trace: the id of a trace that exists, "" when there is none.
        style: colours, or none.

    """
    run = command(status.state_directory)
    lines = ["", f"  {style.strong(_headline(status))}", ""]
    lines += _table(status, style)
    lines += ["", f"  {style.strong('Open')}"]
    lines += [_entry(title, url) for title, url in status.pages.items()]
    lines += [
        "",
        f"  {style.strong('Try')}",
        _entry("place an order", _order(status)[0]),
        _entry("", _order(status)[1]),
    ]
    if "jaeger" not in status.missing:
        lines.append(_entry("see a trace", f"{run} trace --last"))
        if example_trace:
            lines += [
                _entry("one by its id", f"{run} trace {example_trace}"),
                _entry("its log lines", f"{run} logs --trace {example_trace}"),
            ]
    lines += [
        _entry("send a spike", "make spike" if _is_default(status) else f"{run} spike"),
        _entry("scale by hand", f"{run} scale {'worker 2' if 'haproxy' in status.missing else 'shop 4'}"),
        _entry("what runs now", f"{run} status"),
        _entry("stop", "Ctrl-C here, or `make stop`" if _is_default(status) else f"Ctrl-C here, or {run} stop"),
    ]
    if status.missing:
        lines += ["", f"  {style.error('Missing')}", *(f"    {sentence}" for sentence in status.missing.values())]
    return "\n".join([*lines, ""])


def render_status(status: StackStatus, style: Style) -> str:
    """The table of `status`."""
    lines = [f"  {style.strong(_headline(status))}", "", *_table(status, style), ""]
    lines += [_entry("faults' token", state_file(Path(status.faults_token_file)))]
    if "alertmanager" not in status.missing:
        lines.append(_entry("watchdog", _watchdog(status, style)))
    lines += [f"  {style.error('Missing')}: {sentence}" for sentence in status.missing.values()]
    return "\n".join(lines)


def memory(resident: int) -> str:
    """Resident memory for a person: `611 MiB`."""
    return f"{resident / MEBIBYTE:.0f} MiB"


def _watchdog(status: StackStatus, style: Style) -> str:
    age = status.watchdog_age_seconds
    if age is None:
        return style.error("not heard yet: no alert would reach anybody")
    if age > _SILENT_SECONDS * status.time_scale:
        return style.error(f"silent for {elapsed(age)}: no alert would reach anybody")
    return style.good(f"alive, heard {elapsed(age)} ago")


def _headline(status: StackStatus) -> str:
    parts = [f"{len(status.processes)} processes", f"{memory(status.resident_bytes)} resident"]
    if status.first_data_seconds is not None:
        parts.append(f"first data in Prometheus after {elapsed(status.first_data_seconds)}")
    state = f"is {status.phase}" if status.healthy or status.phase != RUNNING else "is running, not all of it well"
    return f"The stack {state}: {', '.join(parts)}"


def _table(status: StackStatus, style: Style) -> list[str]:
    lines = [style.faint(f"    {'PROCESS':<12} {'PID':>8} {'MEMORY':>9}  {'STATE':<11} AT")]
    return lines + [_row(process, style) for process in status.processes]


def _row(process: ProcessStatus, style: Style) -> str:
    state = "ready" if process.healthy else process.phase if process.phase != "ready" else "not well"
    shown = style.good(f"{state:<11}") if process.healthy else style.error(f"{state:<11}")
    again = f"  (started again {process.restarts}×)" if process.restarts else ""
    size = memory(process.resident_bytes)
    return f"    {process.name:<12} {process.pid or '-':>8} {size:>9}  {shown} {process.url}{again}".rstrip()


def _entry(title: str, text: str) -> str:
    return f"    {title:<{_LABEL_WIDTH}} {text}"


def _is_default(status: StackStatus) -> bool:
    return Path(status.state_directory) == DEFAULT_STATE and os.access(DEFAULT_STATE.parent / "Makefile", os.R_OK)


def _order(status: StackStatus) -> tuple[str, str]:
    body = """-d '{"items": [{"product_id": 1, "quantity": 2}]}'"""
    return (
        f"curl -i {status.shop_url}/v1/orders -H 'Idempotency-Key: '$RANDOM \\",
        f"  -H 'Content-Type: application/json' {body}",
    )
