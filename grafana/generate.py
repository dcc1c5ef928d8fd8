"""`python -m grafana.generate`: writes, or checks, the dashboards and what Grafana reads at its start."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from grafana.files import everything

_HERE: Final = Path(__file__).parent
_DIRECTORIES: Final = ("generated", "provisioning")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the generator.

    Args:
        arguments: without the program's name; default: the process' own.

    Returns:
        The exit status: 0, or 1 when the files that are there are not what the source says.

    """
    parser = argparse.ArgumentParser(prog="python -m grafana.generate", description=__doc__)
    parser.add_argument("--output", type=Path, default=_HERE, help="default: the directory of this file")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the files are not up to date")
    parsed = parser.parse_args(arguments)
    files = {parsed.output / path: text for path, text in everything().items()}
    stale = _present(parsed.output) - set(files)
    if parsed.check:
        return _check(files, stale)
    _write(files, stale)
    return 0


def _present(output: Path) -> set[Path]:
    return {path for name in _DIRECTORIES for path in (output / name).rglob("*") if path.is_file()}


def _check(files: dict[Path, str], stale: set[Path]) -> int:
    wrong = {path for path, text in files.items() if not path.is_file() or path.read_text() != text} | stale
    for path in sorted(wrong):
        print(f"{path} is not what the source says; run `make generate`.", file=sys.stderr)
    return 1 if wrong else 0


def _write(files: dict[Path, str], stale: set[Path]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # What an older source had: Grafana would go on showing it.
    for path in stale:
        path.unlink()


if __name__ == "__main__":
    sys.exit(main())
