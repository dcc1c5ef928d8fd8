"""The stack with nothing but Python: no component, and small stand-ins for the services. Run by test_up.py."""

import http.server
import itertools
import os
import sys
from unittest import mock

from stack.cli import main
from stack.components.install import Installation


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")


def _standin(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, __file__, "serve", *arguments)


def _serve(arguments: list[str]) -> None:
    service, *options = arguments
    if service == os.environ.get("STANDIN_BROKEN"):
        sys.exit(f"{service} cannot start")
    port = next(int(value) for name, value in itertools.pairwise(options) if name.endswith("port"))
    http.server.HTTPServer(("127.0.0.1", port), _Answer).serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2:])
    else:
        missing = {
            name: f"{name} is not there." for name in ("prometheus", "alertmanager", "jaeger", "haproxy", "redis")
        }
        with (
            mock.patch("stack.demo.install_all", return_value=Installation(missing=missing)),
            mock.patch("stack.plan._demo", _standin),
        ):
            sys.exit(main())
