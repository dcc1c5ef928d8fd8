"""The user's application: importing it, with the user's own traceback where that fails."""

import difflib
import faulthandler
import importlib
import inspect
import os
import sys
import traceback
from operator import attrgetter
from pathlib import Path
from types import FunctionType, ModuleType, TracebackType
from typing import Final

from starlette.applications import Starlette

from obslib._doctor.report import Finding

#: An import that takes longer is ended, and where it stands is printed.
IMPORT_TIMEOUT_SECONDS: Final = 120.0
_OWN_FILES: Final = str(Path(__file__).parent)
_MAX_WRAPPERS: Final = 16


class NotExaminableError(Exception):
    """The application cannot be had; the finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


def import_application(path: str) -> Starlette:
    """
    Import `module:attribute`, as servers do; the attribute is `app` if not named, and a factory is called, with or
    without the parentheses that gunicorn wants.

    Raises:
        NotExaminableError: It cannot be imported, or it is no FastAPI or Starlette application.
    """
    module_name, _, attribute = path.partition(":")
    attribute = attribute.removesuffix("()") or "app"
    if os.getcwd() not in sys.path:  # noqa: PTH109 -- sys.path has texts
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 -- likewise
    faulthandler.dump_traceback_later(IMPORT_TIMEOUT_SECONDS, exit=True)
    try:
        module = importlib.import_module(module_name)
        found = attrgetter(attribute)(module)
        if isinstance(found, FunctionType) and _needs_nothing(found):
            found = found()
    except BaseException as error:  # an import can raise SystemExit, too
        raise NotExaminableError(_explain(error, path, module_name, attribute)) from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    application = found
    for _ in range(_MAX_WRAPPERS):
        if isinstance(application, Starlette):
            return application
        application = getattr(application, "app", None)
    raise NotExaminableError(
        Finding(
            level="error",
            code="application_unknown",
            what=f"{path} is a {type(found).__name__}, and neither a FastAPI nor a Starlette application.",
            fix="Name the application itself: obslib doctor module:app",
        )
    )


def _needs_nothing(function: FunctionType) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return all(
        item.default is not item.empty or item.kind in {item.VAR_POSITIONAL, item.VAR_KEYWORD} for item in parameters
    )


def _explain(error: BaseException, path: str, module_name: str, attribute: str) -> Finding:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{module_name}.".startswith(f"{missing}."):
        return Finding(
            level="error",
            code="application_not_found",
            what=f"There is no module {missing} in {Path.cwd()}, nor on the path of Python.",
            fix="Run the doctor where the server is started, with the same PYTHONPATH.",
        )
    module = sys.modules.get(module_name)
    if isinstance(error, AttributeError) and isinstance(module, ModuleType) and not _user_frames(error.__traceback__):
        return Finding(
            level="error",
            code="application_not_found",
            what=f"The module {module_name} has no {attribute}.",
            fix=_suggest(module, attribute),
        )
    error.__traceback__ = _user_frames(error.__traceback__)
    shown = traceback.TracebackException.from_exception(error)
    return Finding(
        level="error",
        code="application_not_imported",
        what=f"Importing {path} raised {type(error).__name__}: {error}",
        fix="The server will not start either: mend this first.",
        detail="".join(shown.format()).rstrip(),
    )


def _user_frames(frames: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame on that is neither ours nor the import system's."""
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith((_OWN_FILES, "<frozen importlib", importlib.__file__)):
            return frames
        frames = frames.tb_next
    return None


def _suggest(module: ModuleType, attribute: str) -> str:
    candidates = [name for name, value in vars(module).items() if isinstance(value, Starlette)]
    chosen = candidates or difflib.get_close_matches(attribute, vars(module), n=1)
    return f"Did you mean {module.__name__}:{chosen[0]}?" if chosen else "Name what the server is given."
