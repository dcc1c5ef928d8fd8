"""`python -m prometheus.generate`: writes, or checks, everything that follows from the policy."""

import argparse
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

from prometheus.durations import Clock
from prometheus.errors import PolicyError
from prometheus.files import NOTICE, everything
from prometheus.read_policy import read

_HERE: Final = Path(__file__).parent
_GENERATED: Final = _HERE / "generated"
_NOTICE: Final = NOTICE.encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the generator.

    Args:
        arguments: without the program's name; default: the process' own.

    Returns:
        The exit status: 0, or 1 when the policy is wrong or the committed files are not what it says.

    """
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.time_scale != 1 and parsed.output == _GENERATED:
        parser.error(
            "--time-scale needs an --output of its own, or rules for tests would take the place of the real ones"
        )
    try:
        policy = read(parsed.policy)
    except (OSError, PolicyError) as error:
        print(error, file=sys.stderr)
        return 1
    files = everything(policy, Clock(parsed.time_scale))
    if parsed.check:
        return _check(parsed.output, files)
    _write(parsed.output, files)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m prometheus.generate", description=__doc__)
    parser.add_argument(
        "--policy", type=Path, default=_HERE / "policy.yml", help="default: policy.yml beside this file"
    )
    parser.add_argument("--output", type=Path, default=_GENERATED, help="default: generated/ beside this file")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the files are not up to date")
    parser.add_argument(
        "--time-scale",
        type=_scale,
        default=Fraction(1),
        metavar="1/20",
        help="make every duration so much shorter, for end-to-end tests; give an --output of its own",
    )
    return parser


def _scale(text: str) -> Fraction:
    try:
        scale = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no fraction; write 1/20") from None
    if not 0 < scale <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1; 1/20 makes five minutes 15 seconds")
    return scale


def _check(directory: Path, files: dict[str, str]) -> int:
    wrong = [path for path, text in files.items() if not _has(directory / path, text)]
    wrong += [str(path.relative_to(directory)) for path in _present(directory) - {directory / path for path in files}]
    for path in sorted(wrong):
        print(f"{directory / path} is not what the policy says; run `make generate`.", file=sys.stderr)
    return 1 if wrong else 0


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def _present(directory: Path) -> set[Path]:
    """What was generated there; whatever else is there is somebody else's."""
    return {path for path in directory.rglob("*.yml") if path.is_file() and path.read_bytes().startswith(_NOTICE)}


def _write(directory: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    # What an older policy asked for: Prometheus would go on loading it.
    for stale in _present(directory) - {directory / path for path in files}:
        stale.unlink()


if __name__ == "__main__":
    sys.exit(main())
