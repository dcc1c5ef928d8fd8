"""
A receiver of OTLP over HTTP, in a process of its own: counts the spans of each service, and misbehaves on demand.

`GET /counts` answers with the counts so far, as JSON.
"""

import argparse
import asyncio
import gzip
import json
import os
import time
from collections import Counter

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

#: How long a slow collector takes to answer.
SLOW_SECONDS = 10.0
#: How long a flapping collector stays up, and then down.
FLAP_SECONDS = 2.0


class Receiver:
    """
    Serves connections.

    Args:
        behaviour: `healthy`; `slow`, which answers late; or `flapping`, which breaks off connections half the time.
    """

    def __init__(self, behaviour: str) -> None:
        self._behaviour = behaviour
        self._spans: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = request_line.split(" ")[1]
        if path == "/counts":
            await _answer(writer, json.dumps(self._spans).encode())
            return True
        if self._behaviour == "flapping" and time.monotonic() % (2 * FLAP_SECONDS) >= FLAP_SECONDS:
            writer.transport.abort()
            return False
        if path == "/v1/traces":
            self._count(gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body)
        if self._behaviour == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        await _answer(writer, b"")
        return True

    def _count(self, body: bytes) -> None:
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = resource_spans.resource.attributes
            service = next((item.value.string_value for item in attributes if item.key == "service.name"), "")
            self._spans[service] += sum(len(scope.spans) for scope in resource_spans.scope_spans)


async def _answer(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: %d\r\n\r\n" % len(body))
    writer.write(body)
    await writer.drain()


async def _run(port: int, behaviour: str) -> None:
    server = await asyncio.start_server(Receiver(behaviour).serve, "127.0.0.1", port, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--behaviour", choices=("healthy", "slow", "flapping"), default="healthy")
    arguments = parser.parse_args()
    # It shares a CPU with the load, which must not wait for it: that would be read as latency of whoever sends spans.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    asyncio.run(_run(arguments.port, arguments.behaviour))
