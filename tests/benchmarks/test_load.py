"""A load that pauses: it ends when it is told to, and what it counted comes back."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.load import CONNECTIONS, Generators, LoadError

STANDIN = f"""#!{sys.executable}
import signal, sys, time
interrupts = 0
def on_interrupt(*_):
    global interrupts
    interrupts += 1
signal.signal(signal.SIGINT, on_interrupt)
print("begins", flush=True)
while interrupts < 2:  # the first one may reach a thread that only ends itself
    time.sleep(0.01)
print('Running 60m test\\n{{"requests": 92, "errors": %d}}')
sys.exit(%d)
"""


class Wrk:
    """A program that stands in for wrk."""

    def __init__(self, path: Path, *, errors: int = 0, status: int = 0) -> None:
        path.write_text(STANDIN % (errors, status))
        path.chmod(0o700)
        self._path = path

    def command(self, _executable: str) -> str:
        return str(self._path)

    def environment(self) -> dict[str, str]:
        return {}


class Tools:
    def __init__(self, wrk: Wrk) -> None:
        self.wrk = wrk


def generators(tmp_path: Path, wrk: Wrk) -> Generators:
    return Generators(Tools(wrk), tmp_path)  # type: ignore[arg-type]


def test_a_paused_load_ends_in_good_order(tmp_path: Path) -> None:
    """It begins paused, may go on, and its requests are those it counted and those under way; then it is gone."""
    with generators(tmp_path, Wrk(tmp_path / "wrk")).pausable("http://127.0.0.1:9/") as load:
        [wrk] = psutil.Process().children()
        deadline = time.monotonic() + 30
        while wrk.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
            time.sleep(0.001)
        assert wrk.status() == psutil.STATUS_STOPPED
        load.resume()
        load.pause()
        assert load.finish() == 92 + CONNECTIONS
    assert not wrk.is_running()


@pytest.mark.parametrize(
    ("errors", "status", "sentence"), [(3, 0, "3 of 92 requests to http://127.0.0.1:9/ failed"), (0, 1, "wrk failed")]
)
def test_a_load_that_fails_says_so(tmp_path: Path, errors: int, status: int, sentence: str) -> None:
    """Neither failed requests nor a failed wrk are figures."""
    wrk = Wrk(tmp_path / "wrk", errors=errors, status=status)
    with (
        generators(tmp_path, wrk).pausable("http://127.0.0.1:9/") as load,
        pytest.raises(LoadError, match=sentence),
    ):
        load.finish()
