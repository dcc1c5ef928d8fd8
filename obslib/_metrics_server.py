"""`/metrics` on a port of its own: for programs without ASGI, and for services that keep it off their own port."""

import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from obslib._exposition import Exposition, Plan, gzip_pieces

_READ_TIMEOUT_SECONDS: Final = 5.0
_POLL_INTERVAL_SECONDS: Final = 0.05


class MetricsServer:
    """Serves `GET <path>` from daemon threads."""

    def __init__(self, exposition: Exposition, host: str, port: int, path: str) -> None:
        self._exposition = exposition
        self._address = (host, port)
        self._path = path or "/metrics"
        self._serving: tuple[_Server, threading.Thread] | None = None

    def start(self) -> None:
        """
        Start listening, unless it does.

        Raises:
            OSError: The port is taken or not allowed.
        """
        if self._serving is None:
            server = _Server(self._address, _handler(self._exposition, self._path))
            serve = partial(server.serve_forever, poll_interval=_POLL_INTERVAL_SECONDS)
            thread = threading.Thread(target=serve, name="obslib-metrics", daemon=True)
            self._serving = server, thread
            thread.start()

    def stop(self) -> None:
        """Stop listening, within the poll interval; in a fork's child, leave the port to the parent."""
        if self._serving is None:
            return
        (server, thread), self._serving = self._serving, None
        if thread.is_alive():  # or shutdown() would wait for ever: in a fork's child, and where no thread could start
            server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent about scrapers that went away."""


def _handler(exposition: Exposition, path: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _READ_TIMEOUT_SECONDS
        server_version = "obslib"
        sys_version = ""

        def __getattr__(self, name: str) -> Callable[[], None]:
            """http.server looks for `do_<METHOD>`, and would refuse a method without one in its own words."""
            if name.startswith("do_"):
                return self._serve
            raise AttributeError(name)

        def _serve(self) -> None:
            if self.path.partition("?")[0] != path:
                self._respond(Plan(404, ()), f"The metrics are at {path}.\n".encode())
                return
            plan = exposition.plan(self.command, {name.lower(): value for name, value in self.headers.items()})
            body = exposition.render(plan.content_type) if plan.refusal is None else plan.refusal
            self._respond(plan, b"".join(gzip_pieces(body)) if plan.compress else body)

        def _respond(self, plan: Plan, body: bytes) -> None:
            self.send_response(plan.status)
            self.send_header("content-type", plan.content_type)
            self.send_header("content-length", str(len(body)))
            for name, value in plan.headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Scrapes are not worth a line."""

    return Handler
