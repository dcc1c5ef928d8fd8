"""One real stack for all integration tests, from components that the demo's own code provides."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from stack.components.catalogue import PROMETHEUS, Component
from stack.components.install import Installer, cache_directory, install_all
from stack.components.progress import Progress
from tests.integration.running import RunningStack, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def components() -> Mapping[str, Component]:
    """Every component, installed now if need be; a missing one fails the tests with the sentence that says why."""
    installation = install_all(Progress())
    assert not installation.missing, "\n".join(installation.missing.values())
    if not os.environ.get("NEWEST_PROMETHEUS"):
        return installation.components
    # `make test-prometheus-3`: where a test runs Prometheus or promtool itself, it is the one that Go builds.
    newest = Installer(cache_directory(), Progress()).provide(replace(PROMETHEUS, debian_package="", oldest=(3,)))
    return {**installation.components, "prometheus": newest}


@pytest.fixture
def state_directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory for a stack of the test's own."""
    with a_directory(request) as path:
        yield path


@pytest.fixture(scope="session")
def stack(components: Mapping[str, Component], request: pytest.FixtureRequest) -> Iterator[RunningStack]:
    """The whole stack without load and autoscaler: two shop replicas, payments, one worker. A test leaves it as it found it."""
    with a_directory(request) as path, running(path, components) as stack:
        yield stack


@contextmanager
def a_directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory for a stack, kept after a failure."""
    # Not pytest's own directory: another run may clear it away, and sockets need a short path. Kept after a failure, since
    # it has the logs.
    path = Path(tempfile.mkdtemp(prefix="obslib-stack-"))
    failed_before = request.session.testsfailed
    yield path
    if request.session.testsfailed > failed_before:
        print(f"\nThe logs of the failed run: {path}/logs")
    else:
        shutil.rmtree(path)
