"""What `instrument()` and `capture()` have in common: telemetry gets an application's requests and the lines."""

from collections.abc import Callable
from contextlib import ExitStack

from opentelemetry import trace
from starlette.applications import Starlette

from obslib._background import BACKGROUND_PATCH
from obslib._contrib import install_contrib
from obslib._framework import MOUNT_PATCH, wrap_app
from obslib._logs import PIPELINES
from obslib._middleware import Lifetime
from obslib._telemetry import Telemetry


def attach(
    telemetry: Telemetry, app: Starlette | None, provider: trace.TracerProvider | None, lifetime: Lifetime
) -> Callable[[], None]:
    """
    Attach telemetry to an application, if there is one, and to the loggers; return the undo.

    Args:
        provider: Makes the spans; None where traces are off.

    Raises:
        MissingExtraError: See `install_contrib`.
        ConfigurationError: Likewise.
    """
    with ExitStack() as undos:
        if telemetry.settings.logs_enabled:
            PIPELINES.push(telemetry.log_pipeline)
            undos.callback(PIPELINES.remove, telemetry.log_pipeline)
        if app is not None:
            for patch in (MOUNT_PATCH, BACKGROUND_PATCH):
                patch.acquire()
                undos.callback(patch.release)
            undos.callback(wrap_app(app, lambda inner: telemetry.make_layer(inner, provider, lifetime)))
            contrib = telemetry.contrib_recorder
            if contrib is not None and provider is not None:
                undos.callback(install_contrib(app, provider, contrib, telemetry.settings))
        return undos.pop_all().close
