"""The fixture `obslib_capture`, which pytest finds by itself where obslib is installed."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette

    from obslib.settings import Settings
    from obslib.testing import Capture, Captured


@pytest.fixture
def obslib_capture() -> "Iterator[Capture]":
    """Instrument applications for the time of a test: `obslib_capture(app)` is `obslib.testing.capture(app)`."""
    from obslib.testing import capture  # noqa: PLC0415 -- every test run would wait for what few tests ask for

    with ExitStack() as captures:

        def capture_until_the_end(
            app: "Starlette", settings: "Settings | None" = None, *, new_request_id: "Callable[[], str] | None" = None
        ) -> "Captured":
            return captures.enter_context(capture(app, settings, new_request_id=new_request_id))

        yield capture_until_the_end
