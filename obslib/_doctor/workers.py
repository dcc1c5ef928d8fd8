"""Worker groups: whether the directory in which workers meet can be used."""

import os
from collections.abc import Iterator, Mapping

from obslib._doctor.report import Finding
from obslib._worker_group import base_directory, check_base_directory


def worker_findings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Say what several workers would stumble over."""
    if directory := environ.get("PROMETHEUS_MULTIPROC_DIR"):
        yield Finding(
            level="warning",
            code="multiprocess_directory",
            what=f"PROMETHEUS_MULTIPROC_DIR={directory} makes prometheus_client write each of its values to a file.",
            fix="Unset it unless another library needs it: obslib does not read those files.",
        )


def worker_directory_findings(chosen: str | None) -> Iterator[Finding]:
    """
    Say why several workers could not meet; nothing is made.

    Args:
        chosen: `Settings.worker_directory`.
    """
    base = base_directory(chosen)
    nearest = next(directory for directory in (base, *base.absolute().parents) if directory.exists())
    try:
        if nearest == base:
            check_base_directory(chosen)
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(f"{nearest} is no directory that this user can write")
    except OSError as error:
        yield Finding(
            level="warning",
            code="worker_directory",
            what=f"Several worker processes could not meet in {base}: {error}.",
            fix="Set OBSLIB_WORKER_DIRECTORY to a directory that this user can write and nobody else.",
        )
