"""OpenTelemetry's current context, without the three calls that opentelemetry-api puts around its `ContextVar`."""

from contextvars import ContextVar
from typing import Any, Final, Protocol

from opentelemetry import context as otel_context
from opentelemetry.context import Context


class ContextVariable(Protocol):
    """What a `ContextVar` offers."""

    def get(self) -> Context:
        """Return the current context."""

    def set(self, context: Context, /) -> Any:
        """Make a context current; return the token that undoes it."""

    def reset(self, token: Any, /) -> None:
        """Undo."""


class _AnyRuntime:
    """The same for a runtime that `OTEL_PYTHON_CONTEXT` has chosen."""

    get = staticmethod(otel_context.get_current)
    set = staticmethod(otel_context.attach)
    reset = staticmethod(otel_context.detach)


def _find() -> ContextVariable:
    variable = getattr(getattr(otel_context, "_RUNTIME_CONTEXT", None), "_current_context", None)
    return variable if isinstance(variable, ContextVar) else _AnyRuntime()


CURRENT_CONTEXT: Final = _find()
