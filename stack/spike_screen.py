"""How a spike is shown: a table drawn anew on terminals, lines everywhere else."""

import time
from typing import Final, Protocol, TextIO

from stack.components.progress import elapsed
from stack.spike_view import Moment
from stack.terminal import Style

_EVERY_SECONDS: Final = 1.0
# Where lines are not drawn over: so often, and when something has changed.
_LINE_EVERY_SECONDS: Final = 10.0
_UNKNOWN: Final = "-"
_HEADER: Final = f"{'time':>11}  {'desired':>7}  {'running':>7}  {'req/s':>6}  {'p95':>7}  {'errors/s':>8}  autoscaler"
_ROWS: Final = 5
# Up by so many lines; each line is cleared to its end before it is written.
_UP: Final = f"\x1b[{_ROWS}A"
_CLEAR: Final = "\x1b[K"


class View(Protocol):
    """What looks, and says when enough has been seen."""

    def look(self) -> Moment:
        """The present."""

    def has_recovered(self, moment: Moment) -> bool:
        """Whether there is nothing more to see."""


def show(view: View, stream: TextIO, style: Style) -> None:
    """
    Show the spike until the shop has recovered: a table drawn anew each second on terminals, else lines.

    Args:
        view: looks.
        stream: where to.
        style: colours, or none.

    """
    shown: Moment | None = None
    redraws = stream.isatty()
    if not redraws:
        print(_HEADER, file=stream)
    while True:
        moment = view.look()
        is_last = view.has_recovered(moment)
        if redraws:
            stream.write(("" if shown is None else _UP) + table(moment, style))
            shown = moment
        elif shown is None or is_last or _is_news(moment, shown):
            stream.write(line(moment) + "\n")
            shown = moment
        if is_last:
            stream.write(f"It is over, and the shop has {moment.running} replica{'s' * (moment.running != 1)}.\n")
        stream.flush()
        if is_last:
            return
        time.sleep(_EVERY_SECONDS)


def _is_news(moment: Moment, shown: Moment) -> bool:
    return moment.differs(shown) or moment.seconds - shown.seconds >= _LINE_EVERY_SECONDS


def line(moment: Moment) -> str:
    """One moment on one line."""
    return (
        f"{elapsed(moment.seconds):>11}  {_number(moment.desired, 0):>7}  {_running(moment):>7}  "
        f"{_number(moment.requests_rps, 1):>6}  {_milliseconds(moment.p95_seconds):>7}  "
        f"{_number(moment.errors_rps, 1):>8}  {moment.said}"
    ).rstrip()


def table(moment: Moment, style: Style) -> str:
    """One moment as a table of `_ROWS` lines that covers the one before."""
    state = "recovering" if moment.is_over else "spike"
    errors = _number(moment.errors_rps, 1)
    rows = [
        f"  {style.strong(state)}  {elapsed(moment.seconds)}  (Ctrl-C ends this view, nothing else)",
        f"  {'replicas':<10} {_running(moment)} running, {_number(moment.desired, 0)} desired",
        f"  {'requests':<10} {_number(moment.requests_rps, 1)}/s, p95 {_milliseconds(moment.p95_seconds)}",
        f"  {'errors':<10} {style.error(errors) if moment.errors_rps else errors}/s",
        f"  {'autoscaler':<10} {moment.said[:100] or _UNKNOWN}",
    ]
    return "".join(f"{row}{_CLEAR}\n" for row in rows)


def _running(moment: Moment) -> str:
    return str(moment.running) if moment.running == moment.target else f"{moment.running}→{moment.target}"


def _number(value: float | None, decimals: int) -> str:
    return _UNKNOWN if value is None else f"{value:.{decimals}f}"


def _milliseconds(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else f"{seconds * 1000:.0f} ms"
