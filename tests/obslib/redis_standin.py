"""As much of a Redis server as clients need to be answered: for unit tests; the real one is asked in tests/integration."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ANSWERS = {
    b"SET": b"+OK\r\n",
    b"GET": b"$1\r\nx\r\n",
    b"CLIENT": b"+OK\r\n",
    b"WATCH": b"+OK\r\n",
    b"MULTI": b"+OK\r\n",
}


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        queued: list[bytes] | None = None
        while header := self.rfile.readline():
            command = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(header[1:]))]
            name = command[0].upper()
            if name == b"EXEC":
                self.wfile.write(b"*%d\r\n" % len(queued or ()) + b"".join(queued or ()))
                queued = None
                continue
            answer = _ANSWERS.get(name, b"-ERR unknown command\r\n")
            if queued is not None:
                queued.append(answer)
                answer = b"+QUEUED\r\n"
            elif name == b"MULTI":
                queued = []
            self.wfile.write(answer)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def redis_standin() -> Iterator[int]:
    """Return the port it listens on."""
    with _Server(("127.0.0.1", 0), _Connection) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
