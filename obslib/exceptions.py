"""Everything obslib raises. All of it is raised while something is set up, never while a request is served.

ObslibError
├── ConfigurationError        change the settings or the environment
├── AlreadyInstrumentedError  call `Observability.shutdown()` first, or use the object the first call returned
└── MissingExtraError         install the extra that the sentence names
"""


class ObslibError(Exception):
    """Base class of every error obslib raises."""


class ConfigurationError(ObslibError, ValueError):
    """A setting, or a combination of them, cannot work."""


class AlreadyInstrumentedError(ObslibError, RuntimeError):
    """The application or process is instrumented already, with other settings."""


class MissingExtraError(ObslibError, ImportError):
    """A feature was asked for whose optional packages are not installed."""
