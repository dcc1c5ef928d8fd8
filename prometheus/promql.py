"""Parts of expressions that every rule needs."""

from typing import Final

from obslib import names

#: What tells a service from every other one. Any other label, `worker` first of all, is summed away.
SERVICE: Final = f"{names.LABEL_NAMESPACE}, {names.LABEL_SERVICE}"
INSTANCE: Final = f"{SERVICE}, {names.LABEL_INSTANCE}"
BY_SERVICE: Final = f"by ({SERVICE})"
BY_INSTANCE: Final = f"by ({INSTANCE})"
ON_SERVICE: Final = f"on ({SERVICE})"
ON_INSTANCE: Final = f"on ({INSTANCE})"

#: An answer that counts: what its caller gave up is neither good nor bad.
COUNTED: Final = f'{names.LABEL_ERROR_TYPE}!="{names.ERROR_CLIENT_DISCONNECT}"'
#: An answer that broke its promise: a 5xx, or a response that ended before its end.
BAD: Final = f'{names.LABEL_ERROR_TYPE}!~"|{names.ERROR_CLIENT_DISCONNECT}"'


def selector(metric: str, /, *matchers: str, **labels: str) -> str:
    """A metric with matchers as they are, and with labels that must be equal."""
    parts = [*matchers, *(f'{label}="{value}"' for label, value in labels.items())]
    return f"{metric}{{{', '.join(parts)}}}" if parts else metric


def bound(seconds: float) -> str:
    """A bucket's bound as Prometheus 2 and 3 and obslib all spell it: 1 is `1.0`."""
    return str(float(seconds))


def conjunction(*expressions: str) -> str:
    """All of them hold for the same service; the first one's value counts."""
    return f"\nand {ON_SERVICE}\n".join(expressions)


def lines(text: str) -> str:
    """An expression without the indentation it has in the source."""
    rows = [row for row in text.strip("\n").splitlines() if row.strip()]
    indent = min(len(row) - len(row.lstrip()) for row in rows)
    return "\n".join(row[indent:].rstrip() for row in rows)
