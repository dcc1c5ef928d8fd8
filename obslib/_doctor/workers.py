"""Worker groups: whether the directory in which workers meet can be used."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from obslib._doctor.report import Finding


def worker_findings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Say what several workers would stumble over."""
    if directory := environ.get("PROMETHEUS_MULTIPROC_DIR"):
        yield Finding(
            level="warning",
            code="multiprocess_directory",
            what=f"PROMETHEUS_MULTIPROC_DIR={directory} makes prometheus_client write each of its values to a file.",
            fix="Unset it unless another library needs it: obslib does not read those files.",
        )


def run_directory_findings(directory: Path) -> Iterator[Finding]:
    """Say what is wrong with a worker group's run directory: it must be ours alone, and writable."""
    code = "run_directory"
    try:
        status = directory.stat()
    except OSError as error:
        yield Finding(level="error", code=code, what=f"{directory}: {error.strerror}.", fix=f"mkdir -m 700 {directory}")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Finding(level="error", code=code, what=f"{directory} is no directory.", fix="Name another one.")
    elif status.st_uid != os.geteuid():
        what = f"{directory} belongs to user {status.st_uid}, and we are {os.geteuid()}."
        yield Finding(level="error", code=code, what=what, fix="Name a directory of the service's own user.")
    elif status.st_mode & 0o077:
        what = f"Others can enter {directory} (mode {stat.S_IMODE(status.st_mode):o})."
        yield Finding(level="error", code=code, what=what, fix=f"chmod 700 {directory}")
