"""The command line."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from stack import control, screen
from stack.errors import NotRunningError, StackError
from stack.logs import lines_of_trace, tail
from stack.state import StateDirectory
from stack.status import StackStatus
from stack.terminal import Style, complain, say

_STOP_SECONDS: Final = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run one command.

    Args:
        arguments: without the program's name; default: the process' own.

    Returns:
        The exit status: 0, or 1 after an error that was explained, or 130 after Ctrl-C.

    """
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed, StateDirectory.at(parsed.state_dir)) or 0)
    except StackError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("Interrupted.")
        return 130
    except BrokenPipeError:
        # The reader, `head` perhaps, has seen enough.
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stack",
        description="The instrumented shop, Prometheus, Jaeger, HAProxy and Redis on this machine.",
    )
    parser.add_argument("--state-dir", type=Path, help="where it keeps everything (default: .stack in the tree)")
    parser.set_defaults(
        run=_up,
        replicas=2,
        no_load=False,
        no_alertmanager=False,
        no_autoscaler=False,
        autoscaler_tick_seconds=None,
        port_base=None,
        time_scale="1",
        seconds=None,
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands (default: up)")

    up = commands.add_parser("up", help="start everything and run until Ctrl-C")
    up.add_argument("--replicas", type=int, default=2, help="shop replicas to begin with, 1 to 8 (default: 2)")
    up.add_argument("--no-load", action="store_true", help="send no requests")
    up.add_argument(
        "--no-alertmanager", action="store_true", help="tell nobody of alerts; the autoscaler looks by itself"
    )
    up.add_argument("--no-autoscaler", action="store_true", help="let nobody scale but you")
    up.add_argument(
        "--autoscaler-tick-seconds",
        type=_seconds,
        help="how often it looks without an alert, 0 for never (default: at each evaluation of the rules)",
    )
    up.add_argument(
        "--port-base", type=int, help="use the ports from this one on; 0 for free ones (default: fixed ports)"
    )
    up.add_argument(
        "--time-scale", default="1", metavar="1/20", help="make rules, scrapes and alerts so much faster, for tests"
    )
    up.add_argument("--seconds", type=float, help="stop orderly after this time")
    up.set_defaults(run=_up)

    status = commands.add_parser("status", help="what runs, where, how much memory")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(run=_status)

    scale = commands.add_parser("scale", help="change the number of replicas: scale shop 4")
    scale.add_argument("service", help="shop or worker")
    scale.add_argument("replicas", type=int, help="1 to 8")
    scale.set_defaults(run=_scale)

    spike = commands.add_parser("spike", help="send extra load for a while and show what becomes of it")
    spike.add_argument("--rate-rps", type=float, help="requests a second (default: up to the demo's spike rate)")
    spike.add_argument("--duration-seconds", type=float, help="(default: the demo's spike)")
    spike.set_defaults(run=_spike)

    notifications = commands.add_parser("notifications", help="whom Alertmanager told what")
    notifications.add_argument("--last", type=int, default=20, help="how many (default: 20)")
    notifications.set_defaults(run=_notifications)

    trace = commands.add_parser("trace", help="show a trace as a tree")
    trace.add_argument("id", nargs="?", help="32 hexadecimal digits, as in logs, exemplars and traceparent")
    trace.add_argument("--last", action="store_true", help="the newest order that reached the worker")
    trace.set_defaults(run=_trace)

    logs = commands.add_parser("logs", help="the end of the logs")
    logs.add_argument("name", nargs="?", help="a process, e.g. shop-1 (default: all)")
    logs.add_argument("--trace", metavar="ID", help="every line of one request, in all processes")
    logs.add_argument("--lines", type=int, default=20, help="how many of each log (default: 20)")
    logs.set_defaults(run=_logs)

    commands.add_parser("stop", help="stop the stack that runs here").set_defaults(run=_stop)
    commands.add_parser("install", help="install the components, start nothing").set_defaults(run=_install)
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600")
    return seconds


def _up(parsed: argparse.Namespace, state: StateDirectory) -> None:
    from prometheus.durations import Clock  # noqa: PLC0415 - only this command needs all of it
    from stack import time_scale  # noqa: PLC0415
    from stack.demo import Options, up  # noqa: PLC0415

    options = Options(
        state=state,
        replicas=parsed.replicas,
        load=not parsed.no_load,
        alertmanager=not parsed.no_alertmanager,
        autoscaler=not parsed.no_autoscaler,
        tick_seconds=parsed.autoscaler_tick_seconds,
        port_base=parsed.port_base,
        clock=Clock(time_scale.parse(parsed.time_scale)),
        run_seconds=parsed.seconds,
    )
    up(options, Style.of(sys.stdout))


def _install(_: argparse.Namespace, __: StateDirectory) -> None:
    from stack.demo import install  # noqa: PLC0415 - only this command needs it

    install(Style.of(sys.stdout))


def _status(parsed: argparse.Namespace, state: StateDirectory) -> int:
    status = _ask_status(state)
    if parsed.json:
        say(json.dumps(status.to_json(), indent=2))
    else:
        say(screen.render_status(status, Style.of(sys.stdout)))
    return 0 if status.healthy else 1


def _scale(parsed: argparse.Namespace, state: StateDirectory) -> None:
    request = {"command": "scale", "service": parsed.service, "replicas": parsed.replicas}
    answer = control.ask(state.control_socket, request)
    running = answer["running"]
    has = f"{answer['service']} has {running} replica{'s' * (running != 1)}"
    if answer["superseded"]:
        say(f"Another order took the place of this one: {has} and is to have {answer['target']}.")
    else:
        say(f"{has} now ({answer['seconds']} s).")


def _spike(parsed: argparse.Namespace, state: StateDirectory) -> None:
    from demo_service.capacity import DEFAULT  # noqa: PLC0415 - only this command needs it
    from stack import spike_screen  # noqa: PLC0415
    from stack.spike_view import SpikeView  # noqa: PLC0415

    status = _ask_status(state)
    steady = DEFAULT.steady_rps if status.process("load") else 0.0
    rate = parsed.rate_rps or DEFAULT.spike_rps - steady
    duration = parsed.duration_seconds or DEFAULT.spike_seconds
    control.ask(state.control_socket, {"command": "spike", "rate_rps": rate, "duration_seconds": duration})
    say(f"Sending {rate:g} requests a second for {duration:g} s, on top of the {steady:g} that are there.")
    with closing(SpikeView.of(status, state, duration)) as view:
        spike_screen.show(view, sys.stdout, Style.of(sys.stdout))


def _notifications(parsed: argparse.Namespace, state: StateDirectory) -> None:
    from stack import notifications  # noqa: PLC0415 - only this command needs it

    told = notifications.NotificationLog(state.notifications).last(parsed.last)
    say(notifications.render(told, Style.of(sys.stdout)))


def _trace(parsed: argparse.Namespace, state: StateDirectory) -> None:
    from stack.example import example_trace  # noqa: PLC0415 - only this command needs it
    from stack.trace_tree import render  # noqa: PLC0415
    from stack.traces import JaegerApi  # noqa: PLC0415

    if (parsed.id is None) == (not parsed.last):
        raise StackError("Name a trace id, or --last for the newest order.")
    jaeger = _ask_status(state).process("jaeger")
    if jaeger is None:
        raise StackError("Jaeger does not run here, so no trace was stored.")
    wanted = parsed.id or example_trace(jaeger.url)
    if not wanted:
        raise StackError("Jaeger has no trace yet. Send a request, or start the stack with its load.")
    with closing(JaegerApi(jaeger.url)) as api:
        say(render(api.fresh_trace(wanted), Style.of(sys.stdout)))


def _logs(parsed: argparse.Namespace, state: StateDirectory) -> None:
    from stack.demo import log_paths  # noqa: PLC0415 - only this command needs it

    style = Style.of(sys.stdout)
    if parsed.trace:
        lines = list(lines_of_trace(state.logs, parsed.trace.strip().lower()))
        if not lines:
            raise StackError(f"No log line carries the trace id {parsed.trace}.")
        for name, line in lines:
            say(f"{style.service(f'{name:<10}')} {line}")
        return
    for path in log_paths(state, parsed.name):
        say(style.strong(f"── {path}"))
        for line in tail(path, parsed.lines):
            say(line)


def _stop(_: argparse.Namespace, state: StateDirectory) -> None:
    control.ask(state.control_socket, {"command": "stop"})
    end = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < end:
        try:
            control.ask(state.control_socket, {"command": "status"}, timeout_seconds=5)
        except NotRunningError:
            say("Stopped.")
            return
        time.sleep(0.2)
    raise StackError(f"The stack is still stopping after {_STOP_SECONDS:.0f} s.")


def _ask_status(state: StateDirectory) -> StackStatus:
    return StackStatus.from_json(control.ask(state.control_socket, {"command": "status"}, timeout_seconds=15))
