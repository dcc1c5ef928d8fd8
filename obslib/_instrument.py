"""The two ways in: `instrument()` for applications, `instrument_process()` for programs without ASGI."""

from starlette.applications import Starlette

from obslib._framework import check_app
from obslib._observability import APP_ATTRIBUTE, LIVE, Observability
from obslib.exceptions import AlreadyInstrumentedError, ConfigurationError
from obslib.settings import Settings


def instrument(app: Starlette, settings: Settings | None = None) -> Observability:
    """
    Give a FastAPI or Starlette application metrics, logs and traces.

    Nothing starts here, no thread and no socket: that happens in each process when the first event reaches the
    application. Everything is flushed when the application's lifespan ends.

    Args:
        app: The application, before it is wrapped in anything else.
        settings: `Settings.from_env()` if not given.

    Returns:
        The handle to metrics, flush and shutdown. A second call with equal settings returns the same object.

    Raises:
        ConfigurationError: A setting, or the application, cannot work, or the application runs already, as it does in
            its lifespan; the sentence says what to change.
        AlreadyInstrumentedError: The application is instrumented with other settings.
        MissingExtraError: An optional package is missing; the sentence names it.
    """
    app = check_app(app)
    settings = Settings.from_env() if settings is None else settings
    existing = getattr(app, APP_ATTRIBUTE, None)
    if isinstance(existing, Observability):
        if existing.settings == settings:
            return existing
        raise AlreadyInstrumentedError(
            "This application is instrumented with other settings. Call shutdown() on the object that the first "
            "instrument() returned, or give both calls the same settings."
        )
    if app.middleware_stack is not None:
        raise ConfigurationError(
            "The application runs already: in its lifespan or later, instrument() would not hear of its end, and the "
            "last spans and lines would be lost. Call instrument() right after the application is made."
        )
    return Observability(settings, app)


def instrument_process(settings: Settings | None = None) -> Observability:
    """
    Give a program without ASGI (a worker, a relay, a scheduler) metrics, logs and traces.

    Starts at once: threads, and `/metrics` on `Settings.metrics_port` where one is set.

    Args:
        settings: `Settings.from_env()` if not given.

    Raises:
        ConfigurationError: A setting cannot work, the port is taken, or worker processes cannot meet.
        AlreadyInstrumentedError: The process is instrumented with other settings.
    """
    settings = Settings.from_env() if settings is None else settings
    for existing in LIVE:
        if existing._app is None:  # noqa: SLF001 -- our own class
            if existing.settings == settings:
                existing.start()  # in a fork's child nothing of it runs yet
                return existing
            raise AlreadyInstrumentedError(
                "This process is instrumented with other settings. Call shutdown() on the object that the first "
                "instrument_process() returned."
            )
    observability = Observability(settings, None)
    try:
        observability.meet_siblings()
        observability.open_port()
    except ConfigurationError:
        observability.shutdown()
        raise
    except OSError as error:
        observability.shutdown()
        raise ConfigurationError(
            f"The metrics cannot be served on {settings.metrics_host}:{settings.metrics_port}: {error.strerror}. "
            "Choose another OBSLIB_METRICS_PORT."
        ) from error
    observability.start()
    return observability
