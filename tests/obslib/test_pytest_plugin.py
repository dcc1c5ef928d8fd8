"""The fixture that comes with the library."""

import subprocess
import sys
from pathlib import Path

from fastapi import FastAPI

from obslib.testing import Capture
from tests.obslib.asgi import client_of
from tests.obslib.processes import DEADLINE_SECONDS, environment, run_python


async def test_capture_until_the_end_of_the_test(obslib_capture: Capture) -> None:
    """Two applications are captured apart, each with its own ids."""
    for _ in range(2):
        app = FastAPI()
        app.add_api_route("/products/{product_id}", lambda product_id: product_id)
        telemetry = obslib_capture(app)
        async with client_of(app) as client:
            await client.get("/products/1")
        assert [span.name for span in telemetry.spans] == ["GET /products/{product_id}"]
        assert telemetry.access_lines[0]["request_id"] == "request-1"


def test_everything_is_undone(tmp_path: Path) -> None:
    """When the test ends the application is what it was; nothing is imported or configured for the fixture."""
    (tmp_path / "test_service.py").write_text(
        "from fastapi import FastAPI\n"
        "app = FastAPI()\n"
        "def test_first(obslib_capture):\n"
        "    assert obslib_capture(app).lines == []\n"
        "    assert type(app) is not FastAPI\n"
        "def test_second():\n"
        "    assert type(app) is FastAPI\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
        ],
        cwd=tmp_path,
        env=environment(PYTHONWARNINGS=""),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_plugin_is_light() -> None:
    """A test run that does not ask for the fixture does not import what makes telemetry."""
    [found] = run_python(
        """
        import json, sys
        import obslib._pytest_plugin
        heavy = ("opentelemetry.sdk", "prometheus_client", "structlog", "fastapi", "starlette", "obslib.testing")
        print(json.dumps({"heavy": [name for name in sys.modules if name.startswith(heavy)]}))
        """
    )
    assert found == {"heavy": []}
    assert "obslib._pytest_plugin" in sys.modules
