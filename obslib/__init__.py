"""Prometheus metrics with exemplars, JSON logs and OpenTelemetry traces for FastAPI and Starlette, in one line."""

__version__ = "0.1.0"
