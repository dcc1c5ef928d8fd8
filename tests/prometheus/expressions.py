"""What expressions read, and whether anybody exposes it."""

import re

from demo_service import metrics as demo
from obslib import names
from prometheus import foreign

_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)")
_LITERALS = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|offset \w+')
_KEYWORDS = {"and", "or", "unless", "bool", "Inf"}
_AGGREGATIONS = {"sum", "count", "max", "avg", "min", "topk", "group"}
_PARTS = re.compile(r"_(bucket|count|sum)$")


def metrics_in(expression: str) -> set[str]:
    """The names of metrics in an expression."""
    bare = _GROUPING.sub(" ", _LITERALS.sub(" ", expression))
    words = re.findall(r"([a-zA-Z_][\w:]*)\s*(\(?)", bare)
    functions_too = {word for word, called in words if called != "("}
    return functions_too - _KEYWORDS - _AGGREGATIONS


def is_exposed(metric: str, made: set[str]) -> bool:
    """
    Whether a rule makes a metric, or obslib, the demo or a program named in `foreign` exposes it.

    Args:
        metric: its name, or that of a histogram's part.
        made: what rules record.

    """
    known = {
        value
        for module in (names, foreign, demo)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    return metric in made | known or _PARTS.sub("", metric) in known
