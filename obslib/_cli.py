"""The command `obslib`, also `python -m obslib`."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

from obslib._version import __version__

#: The command was wrong, or could not be carried out; 0 to 2 are a report's.
_UNKNOWN: Final = 3
_EPILOG: Final = "exit status: 0 all is well; 1 warnings; 2 errors; 3 the command is wrong, or could not be carried out"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(_UNKNOWN, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry a command out and return the exit status."""
    parser = _Parser(prog="obslib", description="Observability for FastAPI and Starlette services.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    doctor = commands.add_parser(
        "doctor",
        help="say what is set up, what is wrong with it, and what to do",
        description="Examine this environment, and an application if one is named. The collector gets an empty export.",
        epilog=_EPILOG,
    )
    doctor.add_argument("application", nargs="?", default="", metavar="module:app", help="as the server is given it")
    doctor.add_argument("--json", action="store_true", help="print the report for programs")
    options = parser.parse_args(arguments)
    try:
        return _doctor(options.application, as_json=options.json)
    except Exception:  # noqa: BLE001 -- Python would end with status 1, which means warnings here
        traceback.print_exc()
        return _UNKNOWN


def _doctor(application: str, *, as_json: bool) -> int:
    from obslib._doctor.diagnosis import diagnose  # noqa: PLC0415 -- not for --help
    from obslib._doctor.text import render  # noqa: PLC0415 -- likewise

    report = diagnose(application)
    if as_json:
        json.dump(report.as_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        has_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        sys.stdout.write(render(report, colour=has_colour))
    return report.exit_status
