"""Whether the collector takes what it is sent: an export without spans, sent as spans would be."""

import http.client
import socket
import ssl
import time
import zlib
from typing import Final
from urllib.parse import urlsplit

from obslib._doctor.configuration import without_secrets
from obslib._doctor.report import Finding
from obslib._otlp_http import Answer, CollectorConnection, OtlpConfig
from obslib.settings import Settings

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_FIXES: Final = {
    400: "The collector does not understand OTLP over HTTP in protobuf: is it one?",
    401: "Give it what it wants in OTEL_EXPORTER_OTLP_HEADERS.",
    403: "Give it what it wants in OTEL_EXPORTER_OTLP_HEADERS.",
    404: f"The path is wrong: {_ENDPOINT} is a base without /v1/traces, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is whole.",
    405: "That takes no POST: the host, the port or the path is another server's.",
    415: "It takes no protobuf: the port or the path is another protocol's.",
}


def collector_finding(settings: Settings) -> Finding:
    """Send an empty `ExportTraceServiceRequest`, and say what came back within `Settings.otlp_timeout_seconds`."""
    if not settings.traces_enabled or settings.traces_exporter == "none":
        reason = "traces_exporter is none" if settings.traces_enabled else "traces are off"
        return Finding(level="note", code="collector_not_asked", what=f"No collector was asked: {reason}.")
    config = OtlpConfig.of(settings)
    body = zlib.compress(b"", level=1, wbits=31) if config.compression == "gzip" else b""
    connection = CollectorConnection(config)
    began_seconds = time.monotonic()
    where = without_secrets(config.endpoint)
    try:
        answer = connection.post(body, began_seconds + config.timeout_seconds)
    except (OSError, http.client.HTTPException) as error:
        what, fix = _explain(error, config)
        return Finding(level="error", code="collector_unreachable", what=f"{where}: {what}", fix=fix)
    finally:
        connection.close()
    return _judge(answer, where, time.monotonic() - began_seconds)


def _judge(answer: Answer, where: str, seconds: float) -> Finding:
    said = f"{where} answered {answer.status} {answer.reason} in {seconds * 1000:.0f} ms"
    if 200 <= answer.status < 300:
        if answer.message:
            return Finding(level="warning", code="collector_warns", what=f"{said}, and says: {answer.message}")
        return Finding(level="note", code="collector_answers", what=f"{said}.")
    if 300 <= answer.status < 400:
        fix = "Redirects are not followed: name the place it points to."
    else:
        fix = _FIXES.get(answer.status, "Ask whoever runs the collector what this means, with its logs.")
    return Finding(level="error", code="collector_refuses", what=f"{said}.", fix=fix)


def _explain(error: Exception, config: OtlpConfig) -> tuple[str, str]:
    """Return what happened, and what to do about it."""
    url = urlsplit(config.endpoint)
    if isinstance(error, socket.gaierror):
        return f"the host {url.hostname} is not known ({error.strerror}).", f"Correct {_ENDPOINT}."
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there.", f"Start a collector there, or set {_ENDPOINT}; OTLP over HTTP is port 4318."
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}).",
            "Name the authority's file in OTEL_EXPORTER_OTLP_CERTIFICATE.",
        )
    if isinstance(error, ssl.SSLError):
        return (
            f"no TLS ({error.reason}).",
            "Write http:// if it has none; if it asks for a certificate of ours, name it.",
        )
    if isinstance(error, TimeoutError):
        return (
            f"no answer within {config.timeout_seconds:g} s.",
            "Look for a firewall, or a wrong host; OTEL_EXPORTER_OTLP_TIMEOUT is in milliseconds.",
        )
    if isinstance(error, http.client.HTTPException | ConnectionError):
        return (
            f"what answers does not speak HTTP/1.1 ({type(error).__name__}).",
            "Point it at the collector's port for OTLP over HTTP, usually 4318; 4317 is gRPC.",
        )
    return f"{error}.", "Correct the address, or the certificate files."
