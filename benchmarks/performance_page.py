"""The part of docs/performance.md that the bench writes."""

import re
import shutil
from pathlib import Path
from typing import Final

from benchmarks.children import ROOT

_DOCS: Final = ROOT / "docs"
_RESULTS: Final = ("<!-- The bench writes from here … -->", "<!-- … to here. -->")
_PROFILE: Final = ("<!-- The profile is written from here … -->", "<!-- … as far as here. -->")
_BUDGET: Final = ("<!-- The budget is written from here … -->", "<!-- … down to here. -->")
_SOAK: Final = ("<!-- The soak writes from here … -->", "<!-- … up to here. -->")


def publish(text: str, results: str, plot: Path, docs: Path = _DOCS) -> None:
    """
    Replace what the bench found in `performance.md`, and what it links to.

    Args:
        text: What the bench printed.
        results: The raw results, as JSON.
        plot: The picture.
        docs: Where the page is.
    """
    shutil.copyfile(plot, docs / "performance.png")
    (docs / "performance.json").write_text(results)
    picture = "![What each variant costs](performance.png)"
    _replace(docs, _RESULTS, f"```text\n{text}\n```\n\n{picture}\n\nRaw rounds: [performance.json](performance.json).")


def publish_profile(text: str, picture: Path, docs: Path = _DOCS) -> None:
    """
    Replace the profile in `performance.md`, and its picture.

    Args:
        text: The table.
        picture: The flame graph.
        docs: Where the page is.
    """
    shutil.copyfile(picture, docs / "profile.png")
    _replace(docs, _PROFILE, f"```text\n{text}\n```\n\n![Flame graph of a server with all signals](profile.png)")


def publish_budget(text: str, docs: Path = _DOCS) -> None:
    """
    Replace what a request executes in `performance.md`.

    Args:
        text: The table.
        docs: Where the page is.
    """
    _replace(docs, _BUDGET, f"```text\n{text}\n```")


def publish_soak(text: str, docs: Path = _DOCS) -> None:
    """
    Replace what the soak found in `performance.md`.

    Args:
        text: What it printed.
        docs: Where the page is.
    """
    _replace(docs, _SOAK, f"```text\n{text}\n```")


def _replace(docs: Path, marks: tuple[str, str], part: str) -> None:
    page = docs / "performance.md"
    begin, end = marks
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    page.write_text(pattern.sub(lambda _: f"{begin}\n\n{part}\n\n{end}", page.read_text()))
