"""A stack whose rules, scrapes and alerts run faster, for tests that go through minutes in seconds."""

import re
from fractions import Fraction
from typing import Final

from prometheus.durations import Clock, Duration
from stack.errors import StackError

# Prometheus looks every 5 s; more often than four times a second it would do little else.
_SMALLEST: Final = Fraction(1, 20)
# `group_wait: 10s`, `scrape_interval: 5s`; that of nothing is nothing.
_LENGTH: Final = re.compile(r"^(?P<key>\s*(?:- )?\w+_(?:interval|timeout|wait): )(?P<length>(?!0s)\w+)$", re.MULTILINE)


def parse(text: str) -> Fraction:
    """
    Read `1/20`.

    Raises:
        StackError: it is no fraction, or one the stack does not run at.

    """
    try:
        scale = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise StackError(f"--time-scale {text!r} is no fraction; write 1/20.") from None
    if not _SMALLEST <= scale <= 1:
        raise StackError(f"--time-scale {text} is not between {_SMALLEST} and 1.")
    return scale


def shortened(configuration: str, clock: Clock) -> str:
    """
    A configuration of Prometheus or Alertmanager with shorter intervals, waits and timeouts, and nothing else changed.

    Args:
        configuration: its text.
        clock: by how much.

    """
    if clock == Clock():
        return configuration
    return _LENGTH.sub(lambda match: f"{match['key']}{clock(Duration.parse(match['length']))}", configuration)
