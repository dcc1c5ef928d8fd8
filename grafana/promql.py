"""Parts of expressions that panels share."""

from typing import Final

from obslib import names
from prometheus import foreign, promql
from prometheus.rules import SCALE, WATCHDOG

#: What makes a rate right at any zoom: Grafana puts four scrape intervals or more here.
WINDOW: Final = "$__rate_interval"
#: The whole of what the dashboard shows.
RANGE: Final = "$__range"

# What the dashboard's variables have chosen. `namespace` is absent outside Kubernetes: its "all" matches that, too.
NAMESPACES: Final = f'{names.LABEL_NAMESPACE}=~"$namespace"'
SERVICE: Final = f'{NAMESPACES}, {names.LABEL_SERVICE}="$service"'
INSTANCES: Final = f'{SERVICE}, {names.LABEL_INSTANCE}=~"$instance"'
ROUTES: Final = f'{INSTANCES}, {names.LABEL_ROUTE}=~"$route"'

# What the rules write alike
BY_SERVICE: Final = promql.SERVICE
BY_INSTANCE: Final = promql.INSTANCE
COUNTED: Final = promql.COUNTED
BAD: Final = promql.BAD
select: Final = promql.selector

#: The menu's "all replicas", which matches series of no replica, too.
EVERY_INSTANCE: Final = "|.*"
#: A matcher that lets nothing pass while all replicas are chosen, and everything while some are.
_SOME_CHOSEN: Final = f'{names.LABEL_INSTANCE}!~"@$instance"'
#: Before there was any Prometheus.
LONG_AGO: Final = "20y"

#: Alerts that fire and that somebody is expected to act on; the others are for programs.
FOR_PEOPLE: Final = f'{foreign.FIRING}, {foreign.LABEL_SEVERITY}!~"{SCALE}|{WATCHDOG}"'


def label_of(attribute: str) -> str:
    """What a resource's attribute is called as a label of `target_info`."""
    return attribute.replace(".", "_")


def rate(metric: str, *matchers: str, window: str = WINDOW) -> str:
    """How much a counter grows a second."""
    return f"rate({select(metric, *matchers)}[{window}])"


def recorded_rate(series: str, metric: str, *matchers: str, by: str = "", also: str = "", over: str = "") -> str:
    """
    The sum of a recorded rate; where single replicas are chosen, which no rule records, of what it was recorded from.

    Hours of every bucket of every replica cost Prometheus a hundred times what the rule's sum of them costs.

    Args:
        series: the recorded rate, by more labels than are asked for.
        metric: what it was recorded from.
        matchers: for both.
        by: the labels to keep.
        also: what the rule leaves out, a matcher.
        over: the mean over so long, else the present rate.

    """
    kept = select(series, *matchers)
    left = rate(metric, *matchers, _SOME_CHOSEN, *([also] if also else []), window=over or WINDOW)
    return f"({total(f'avg_over_time({kept}[{over}])' if over else kept, by=by)} or {total(left, by=by)})"


def dots(metric: str, *matchers: str) -> str:
    """A counter's exemplars alone: those are of the time that is shown, the counter of one where it was not there."""
    return f"{select(metric, *matchers)} offset {LONG_AGO}"


def total(expression: str, by: str = "") -> str:
    """The sum over everything but `by`."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def or_zero(expression: str, whole: str) -> str:
    """Zero, not absent, where the whole exists and the expression does not yet."""
    return f"({expression} or 0 * {whole})"


def share(part: str, whole: str) -> str:
    """What part of the whole it is; no sample where there is nothing to be part of, and never NaN."""
    return f"{or_zero(part, whole)} / ({whole} > 0)"


def quantile(number: float, metric: str, *matchers: str, by: str = "") -> str:
    """A quantile of a histogram; `metric` is its name without `_bucket`."""
    groups = f"{by}, le" if by else "le"
    return f"histogram_quantile({number}, sum by ({groups}) ({rate(f'{metric}_bucket', *matchers)}))"
