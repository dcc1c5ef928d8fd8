"""The report for people: aligned, the findings last, where the eye is when the command ends."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from obslib._doctor.report import EXIT_STATUS, Finding, Level, Report

_COLOURS: Final[dict[Level, str]] = {"note": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_DIM: Final = "\x1b[2m"
_BOLD: Final = "\x1b[1m"
_RESET: Final = "\x1b[0m"
_SUMMARIES: Final = {0: "All is well.", 1: "It works, with warnings.", 2: "Telemetry is lost or wrong."}


def render(report: Report, *, colour: bool) -> str:
    """Return the report as lines."""
    paint = _paint if colour else _plain
    lines = [paint(_BOLD, f"obslib doctor{f' · {report.application}' * bool(report.application)}")]
    lines += ["", paint(_BOLD, "versions")]
    rows = [(item.name, item.installed or "not installed", item.supported) for item in report.versions]
    lines += [paint(_DIM, line) if row[1] == "not installed" else line for row, line in _aligned(rows)]
    lines += ["", paint(_BOLD, "limits")]
    lines += [line for _, line in _aligned([(fact.name, fact.value) for fact in report.facts])]
    lines += ["", paint(_BOLD, "settings")]
    settings = [(item.name, item.value, item.source) for item in report.settings]
    lines += [paint(_DIM, line) if row[2] == "default" else line for row, line in _aligned(settings)]
    lines += ["", paint(_BOLD, "findings")]
    for finding in sorted(report.findings, key=lambda finding: EXIT_STATUS[finding.level]):
        lines += _finding_lines(finding, paint)
    lines += ["", paint(_BOLD, _SUMMARIES[report.exit_status]), ""]
    return "\n".join(lines)


def _finding_lines(finding: Finding, paint: Callable[[str, str], str]) -> Iterator[str]:
    yield f"  {paint(_COLOURS[finding.level], f'{finding.level:<8}')} {finding.what}"
    yield from (f"           │ {line}" for line in finding.detail.splitlines())
    if finding.fix:
        yield f"           → {finding.fix}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each row with its line, in which the columns begin below each other."""
    widths = [min(44, max(map(len, column))) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield row, f"  {'  '.join(cells)}".rstrip()


def _paint(code: str, text: str) -> str:
    return f"{code}{text}{_RESET}"


def _plain(_code: str, text: str) -> str:
    return text
