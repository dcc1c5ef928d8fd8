"""A trace as a tree for the terminal, with each span's place in time."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from obslib import names
from stack.terminal import Style
from stack.traces import Span

_TREE_WIDTH: Final = 46
_BAR_WIDTH: Final = 20


def render(spans: Sequence[Span], style: Style) -> str:
    """
    The tree of a trace.

    Args:
        spans: all of one trace, earliest first; a span whose parent is missing stands at the top level.
        style: colours, or none.

    """
    start = min(span.start_ns for span in spans)
    total = max(max(span.end_ns for span in spans) - start, 1)
    services = sorted({span.service for span in spans})
    moment = datetime.fromtimestamp(start / 1e9, UTC)
    errors = sum(span.is_error for span in spans)
    header = [
        f"{len(spans)} span{'s' * (len(spans) != 1)}",
        ", ".join(services),
        duration(total),
        f"{moment:%Y-%m-%d %H:%M:%S} UTC",
    ]
    if errors:
        header.append(style.error(f"{errors} with an error"))
    lines = [style.strong(f"trace {spans[0].trace_id}"), "  ·  ".join(header), ""]
    width = max(len(service) for service in services)
    for branch, span in _walk(spans):
        lines.extend(_lines(branch, span, width, start, total, style))
    return "\n".join(lines)


def duration(nanoseconds: int) -> str:
    """A span's length in the unit that reads best: `812 µs`, `14.2 ms`, `1.38 s`."""
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1e3:.0f} µs"
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1e6:.1f} ms"
    return f"{nanoseconds / 1e9:.2f} s"


def _walk(spans: Sequence[Span]) -> Iterator[tuple[str, Span]]:
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        children[span.parent_id if span.parent_id in known else ""].append(span)

    def below(parent: str, indent: str) -> Iterator[tuple[str, Span]]:
        siblings = children[parent]
        for span in siblings:
            last = span is siblings[-1]
            yield indent + ("└─ " if last else "├─ "), span
            yield from below(span.span_id, indent + ("   " if last else "│  "))

    for root in children[""]:
        yield "", root
        yield from below(root.span_id, "")


def _lines(branch: str, span: Span, width: int, start: int, total: int, style: Style) -> Iterator[str]:
    room = _TREE_WIDTH - len(branch)
    name = span.name if len(span.name) <= room else span.name[: room - 1] + "…"
    status = span.attributes.get(names.ATTR_STATUS_CODE, "")
    left = f"  {style.service(f'{span.service:<{width}}')}  {style.faint(branch)}"
    text = f"{name:<{room}} {duration(span.duration_ns):>9}  "
    bar = _bar(span, start, total)
    if span.is_error:
        yield f"{left}{style.error(f'{text}{bar}')}  {style.error(str(status or 'error'))}"
        reason = str(span.message or span.attributes.get(names.ATTR_ERROR_TYPE, ""))
        if reason and reason != str(status):
            rails = branch.replace("├─ ", "│  ").replace("└─ ", "   ")
            yield f"  {'':<{width}}  {style.faint(rails)}{style.error(f'! {reason}'[:80])}"
        return
    yield f"{left}{text}{style.bar(bar)}  {status}".rstrip()


def _bar(span: Span, start: int, total: int) -> str:
    first = min(round((span.start_ns - start) / total * _BAR_WIDTH), _BAR_WIDTH - 1)
    length = max(1, min(round(span.duration_ns / total * _BAR_WIDTH), _BAR_WIDTH - first))
    return f"{' ' * first}{'━' * length}".ljust(_BAR_WIDTH)
