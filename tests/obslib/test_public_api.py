"""What users import, and what importing it costs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import obslib
from obslib import exceptions, names
from tests.obslib.processes import ROOT, environment


def test_all_is_the_namespace() -> None:
    """`__all__` is sorted and lists every public name, and no other."""
    # pytest rewrites the packages of its plugins, and leaves names in them that are no identifiers.
    public = {name for name in dir(obslib) if not name.startswith("_") and name.isidentifier()} | {"__version__"}
    modules = {"settings", "testing"}
    assert sorted(public - modules) == sorted(obslib.__all__)
    assert all(getattr(obslib, name) is not None for name in obslib.__all__)
    with pytest.raises(AttributeError, match="'obslib' has no attribute 'instrumentt'"):
        obslib.instrumentt  # type: ignore[attr-defined]  # noqa: B018
    assert obslib.__all__ == sorted(obslib.__all__)


def test_version_is_the_changelogs() -> None:
    """The version in the code is the newest one in the changelog."""
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == obslib.__version__


def test_every_error_is_ours() -> None:
    """Every exception obslib defines can be caught as `ObslibError`."""
    defined = [value for value in vars(exceptions).values() if isinstance(value, type)]
    assert all(issubclass(value, exceptions.ObslibError) for value in defined)


def test_names_are_unique() -> None:
    """No two metrics have one name, and every metric name is a valid one with its unit."""
    metrics = [value for name, value in vars(names).items() if name.startswith("HTTP_") and isinstance(value, str)]
    assert len(metrics) == len(set(metrics))
    assert all(re.fullmatch(r"[a-z_]+(_seconds|_bytes|_requests|_total|_info)", value) for value in metrics)


def test_import_is_light() -> None:
    """Importing obslib imports neither an exporter nor contrib nor FastAPI, nor what only `instrument` needs."""
    code = "import sys, obslib; print([m for m in sys.modules if m.startswith(('fastapi', 'opentelemetry.exporter', 'opentelemetry.instrumentation', 'opentelemetry.proto', 'google.protobuf', 'requests', 'structlog', 'prometheus_client', 'opentelemetry.sdk'))])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_wheel_has_obslib_alone(tmp_path: Path) -> None:
    """The wheel contains the package obslib and nothing else at its top level, type marker included."""
    import zipfile

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        assert "obslib/py.typed" in archive.namelist()
    assert {top for top in tops if not top.endswith(".dist-info")} == {"obslib"}
    assert wheel.name.startswith("obslib_fastapi-")


def test_nobody_is_told_to_install_another_project() -> None:
    """The distribution is `obslib-fastapi`; PyPI's `obslib` is somebody else's."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("obslib/**/*.py")]
    wrong = [str(path) for path in texts if re.search(r"pip install [\"']?obslib(?!-fastapi)", path.read_text())]
    assert wrong == []


@pytest.mark.parametrize("name", obslib.__all__)
def test_public_names_are_documented(name: str) -> None:
    """Everything public says what it does."""
    assert getattr(obslib, name).__doc__
