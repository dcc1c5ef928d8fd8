"""
Where the microseconds go: a sampled profile of a server with all signals under load, as a flame graph and a table.

`python -m benchmarks.profile` prints the table; `--docs` writes both into docs/performance.md. py-spy looks at the
process from outside, which costs the server nothing; it must be allowed to (`CAP_SYS_PTRACE`, or root).
"""

import argparse
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, performance_page, report, variants
from benchmarks.children import ROOT
from benchmarks.site import Case, Server, Site, open_site
from benchmarks.tools import provide
from stack.components.progress import Progress

_SECONDS: Final = 20
_SAMPLES_PER_SECOND: Final = 500
#: What the rows of the table stand for: the innermost frame of these files decides.
_PARTS: Final = {
    "the layer: headers, ids, status, sizes, the end": ("_middleware.py", "_exchange.py", "_record.py"),
    "the route's template": ("_framework.py",),
    "rows of finished requests": ("_backlog.py",),
    "spans: start and end": ("_traces.py", "_span_factory.py", "_server_span.py", "_provider.py"),
    "spans: bytes and queue": ("_encode.py", "_otlp_queue.py", "_otlp.py", "_otlp_http.py"),
    "metrics": ("_metrics.py", "_children.py", "_instruments.py"),
    "log lines": ("_logs.py", "_access_line.py", "_log_render.py", "_sink.py"),
}  # fmt: skip
#: Narrower boxes are left out of the picture.
_LEAST_PART: Final = 0.002
_LEAST_LABEL: Final = 0.02

Stack = tuple[str, ...]


#: Whose frames end the search for the part of obslib that called: what they do is theirs.
_OTHERS: Final = ("benchmarks/application", "fastapi", "starlette", "uvicorn")


class ProfileError(Exception):
    """py-spy could not look at the server."""


@dataclass
class Box:
    """A function and all that it called, in one place of the flame graph."""

    count: int = 0
    callees: dict[str, "Box"] = field(default_factory=dict)


def take(site: Site, directory: Path) -> tuple[Counter[Stack], float]:
    """Return how often each stack was seen, and the CPU seconds of a request."""
    raw = directory / "profile.txt"
    with site.serving([Case(label="profile", variant=variants.ALL)]) as [server]:
        profiler = threading.Thread(target=_record, args=(server, raw))
        profiler.start()
        sample = site.closed_loop(server, 0, _SECONDS + 4)
        profiler.join()
    if not raw.exists():
        raise ProfileError("py-spy could not look at the server: it needs CAP_SYS_PTRACE, or root.")
    return parse(raw.read_text()), sample.cpu_seconds_per_request


def _record(server: Server, raw: Path) -> None:
    command = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(server.child.pids[0])]
    # Without it, threads that wait count as if they worked, where py-spy cannot tell.
    command += [
        "--gil",
        "--format",
        "raw",
        "--nolineno",
        "--rate",
        str(_SAMPLES_PER_SECOND),
        "--duration",
        str(_SECONDS),
    ]
    subprocess.run([*command, "--output", str(raw)], capture_output=True, check=False, timeout=_SECONDS + 60)


def parse(raw: str) -> Counter[Stack]:
    """Read py-spy's lines: frames from the outermost on, separated by semicolons, and a number of samples."""
    stacks: Counter[Stack] = Counter()
    for line in raw.splitlines():
        frames, _, count = line.rpartition(" ")
        stacks[tuple(frames.split(";"))] += int(count)
    return stacks


def parts(stacks: Mapping[Stack, int]) -> dict[str, float]:
    """Return which part of all samples was taken in each part of obslib; what it calls elsewhere counts as its own."""
    counted: Counter[str] = Counter()
    for stack, count in stacks.items():
        for frame in reversed(stack):
            part = _part_of(frame)
            if part is not None:
                counted[part] += count
                break
            if any(owner in frame for owner in _OTHERS):
                break
    total = sum(stacks.values())
    return {part: counted[part] / total for part in _PARTS}


def _part_of(frame: str) -> str | None:
    if "obslib/" not in frame:
        return None
    return next((part for part, files in _PARTS.items() if frame.rstrip(")").endswith(files)), None)


def table(shares: Mapping[str, float], cpu_seconds: float) -> str:
    """Return the table as text."""
    rows = [(part, share * cpu_seconds * 1e6, share) for part, share in shares.items()]
    rows.append(("all of obslib", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    rows.append(("everything else: server, framework, kernel", (1 - rows[-1][2]) * cpu_seconds * 1e6, 1 - rows[-1][2]))
    lines = [f"{'':<50} {'µs a request':>12}  {'part':>6}"]
    lines += [f"{part:<50} {microseconds:>12.1f}  {share:>6.1%}" for part, microseconds, share in rows]
    return "\n".join(lines)


def flame(stacks: Mapping[Stack, int]) -> Box:
    """Put the stacks together, from the outermost frame on."""
    root = Box()
    for stack, count in stacks.items():
        box = root
        box.count += count
        for frame in stack:
            box = box.callees.setdefault(frame, Box())
            box.count += count
    return root


def draw(root: Box, caption: str, path: Path) -> None:
    """Draw the flame graph as a PNG: width is time, obslib's own functions in blue."""
    import matplotlib as mpl  # noqa: PLC0415 -- it lives in the bench's own environment

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    boxes = list(_boxes(root, 0.0, 0, root.count))
    depth = max(level for _, level, _, _ in boxes) + 1
    figure, axis = plt.subplots(figsize=(14, 0.19 * depth + 0.8), layout="constrained")
    for name, level, start, width in boxes:
        colour = "#1f6f8b" if _part_of(name) else "#e3d5b8"
        axis.barh(level, width, left=start, height=0.94, color=colour, edgecolor="white", linewidth=0.3)
        if width >= _LEAST_LABEL:
            text = name.split(" (")[0][: int(width * 190)]
            axis.text(
                start + 0.001, level, text, va="center", fontsize=5.5, color="white" if _part_of(name) else "black"
            )
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.6, depth - 0.4)
    axis.axis("off")
    figure.supxlabel(f"{caption}\nwidth: part of all samples; blue: obslib", fontsize=7, color="#555555")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _boxes(box: Box, start: float, level: int, total: int) -> Iterable[tuple[str, int, float, float]]:
    for name, callee in sorted(box.callees.items()):
        width = callee.count / total
        if width >= _LEAST_PART:
            yield name, level, start, width
            yield from _boxes(callee, start, level + 1, total)
        start += width


def main() -> int:
    """Profile; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description="Where the microseconds go.")
    parser.add_argument("--docs", action="store_true", help="write what was found into docs/performance.md")
    arguments = parser.parse_args()
    tools = provide(Progress())
    described: dict[str, Any] = machine.describe(tools)
    output = ROOT / ".bench"
    output.mkdir(exist_ok=True)
    (output / ".gitignore").write_text("*\n")
    try:
        with open_site(tools) as site:
            stacks, cpu_seconds = take(site, output)
    except ProfileError as error:
        print(error, file=sys.stderr)
        return 1
    text = table(parts(stacks), cpu_seconds)
    print(f"\n{text}\n")
    draw(flame(stacks), report.caption(described), output / "profile.png")
    if arguments.docs:
        performance_page.publish_profile(text, output / "profile.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
