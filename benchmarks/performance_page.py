"""The part of docs/performance.md that the bench writes."""

import re
import shutil
from pathlib import Path
from typing import Final

from benchmarks.children import ROOT

_DOCS: Final = ROOT / "docs"
_BEGIN: Final = "<!-- The bench writes from here … -->"
_END: Final = "<!-- … to here. -->"


def publish(text: str, results: str, plot: Path, docs: Path = _DOCS) -> None:
    """
    Replace the marked part of `performance.md`, and what it links to.

    Args:
        text: What the bench printed.
        results: The raw results, as JSON.
        plot: The picture.
        docs: Where the page is.
    """
    page = docs / "performance.md"
    shutil.copyfile(plot, docs / "performance.png")
    (docs / "performance.json").write_text(results)
    picture = "![What each variant costs](performance.png)"
    part = f"```text\n{text}\n```\n\n{picture}\n\nRaw rounds: [performance.json](performance.json)."
    pattern = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)
    page.write_text(pattern.sub(lambda _: f"{_BEGIN}\n\n{part}\n\n{_END}", page.read_text()))
