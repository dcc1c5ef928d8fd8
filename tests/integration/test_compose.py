"""docker-compose.yml and what it mounts, read by the programs themselves."""

import contextlib
import http.server
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from stack import compose
from stack.components.catalogue import Component
from stack.errors import StackError
from stack.ports import any_free
from tests.deploy.composed import BUILDER, OURS, ROOT, SERVICES, environment

_DEADLINE_SECONDS = 30
_QUESTION_HEADER_BYTES = 12


@pytest.fixture(scope="module")
def docker_compose() -> Component:
    return compose.component()


def run(component: Component, program: str, *arguments: str, **variables: str) -> str:
    answer = subprocess.run(
        [component.command(program), *arguments],
        env={**os.environ, **component.environment(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


def test_compose_reads_what_was_meant(docker_compose: Component) -> None:
    """Merged and normalised, each service has its limits, and each port its address."""
    model = compose.resolved(docker_compose)

    assert model["name"] == "obslib"
    assert set(model["services"]) == set(SERVICES)
    for name, service in model["services"].items():
        assert int(service["mem_limit"]) >= 64 * 1024 * 1024
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
        assert all(mount["read_only"] for mount in service.get("volumes", []) if mount["type"] == "bind")
        assert all(Path(mount["source"]).exists() for mount in service.get("volumes", []) if mount["type"] == "bind")
        assert (name == BUILDER) == ("build" in service)
        assert (name in OURS) == (service.get("pull_policy") == "never")
    assert model["services"]["shop"]["deploy"]["replicas"] == 2
    assert all(Path(secret["file"]).parent == ROOT / ".secrets" for secret in model["secrets"].values())


def test_compose_reads_what_lets_the_autoscaler_act(docker_compose: Component) -> None:
    """Added to what it has: the socket, its group, another actuator."""
    alone = compose.resolved(docker_compose)["services"]
    services = compose.resolved(docker_compose, scales=True)["services"]

    given, had = services.pop("autoscaler"), alone.pop("autoscaler")
    assert services == alone
    assert given["environment"] == had["environment"] | {
        "AUTOSCALER_ACTUATOR": "docker",
        "AUTOSCALER_COMPOSE_PROJECT": "obslib",
    }
    assert given["group_add"] == ["999"]
    assert {mount["target"] for mount in given["volumes"]} - {mount["target"] for mount in had["volumes"]} == {
        "/var/run/docker.sock"
    }


def test_a_file_compose_refuses_is_an_error(
    docker_compose: Component, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is one it only warns of: a variable that nobody sets would be empty."""
    for text, complaint in (("services: {a: {imaeg: x}}", "imaeg"), ("services: {a: {image: '${NOBODY}x'}}", "NOBODY")):
        file = tmp_path / "docker-compose.yml"
        file.write_text(text)
        monkeypatch.setattr(compose, "FILE", file)

        with pytest.raises(StackError, match=complaint):
            compose.resolved(docker_compose)


def test_promtool_accepts_the_discovery_by_dns(components: Mapping[str, Component], tmp_path: Path) -> None:
    """With the rules beside it, as they are mounted."""
    shutil.copy(ROOT / "deploy" / "compose" / "prometheus.yml", tmp_path)
    shutil.copytree(ROOT / "prometheus" / "generated" / "rules", tmp_path / "rules")

    answer = run(components["prometheus"], "promtool", "check", "config", str(tmp_path / "prometheus.yml"))

    assert "rule files found" in answer


def test_jaeger_accepts_its_environment(components: Mapping[str, Component]) -> None:
    """The addresses of a container fit into the configuration."""
    arguments = ("validate", "--config", str(ROOT / "deploy" / "jaeger.yaml"))
    run(components["jaeger"], "jaeger", *arguments, **environment("jaeger"))


def test_haproxy_accepts_its_environment(components: Mapping[str, Component]) -> None:
    """That of its container; `python -m stack` starts it with the other."""
    run(components["haproxy"], "haproxy", "-c", "-f", str(ROOT / "deploy" / "haproxy.cfg"), **environment("haproxy"))


def test_redis_takes_its_command_and_asks_for_the_password(components: Mapping[str, Component], tmp_path: Path) -> None:
    """What is in the secret's file and on the command line is one configuration."""
    secret = tmp_path / "redis_auth"
    secret.write_text("requirepass s3cret\n")
    port = any_free(set())
    _, _, *arguments = SERVICES["redis"]["command"]
    component = components["redis"]
    server = subprocess.Popen(
        [component.command("redis-server"), str(secret), *arguments, "--port", str(port), "--bind", "127.0.0.1"],
        env={**os.environ, **component.environment()},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        said = _eventually(lambda: _redis(port, "PING"))
        assert said.startswith("-NOAUTH")
        assert _redis(port, "AUTH s3cret\r\nCONFIG GET maxmemory-policy").endswith("volatile-lru\r\n")
    finally:
        server.terminate()
        server.wait(10)


def _redis(port: int, command: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"{command}\r\nQUIT\r\n".encode())
        return connection.makefile("rb").read().decode().removesuffix("+OK\r\n")


def test_haproxy_follows_the_names_addresses(components: Mapping[str, Component], state_directory: Path) -> None:
    """A replica that appears in DNS gets requests; one that disappears gets none."""
    haproxy = components["haproxy"]
    with _names() as names, _replicas("127.0.0.2", "127.0.0.3") as shop_port:
        names.addresses = ["127.0.0.2"]
        port, metrics_port = any_free({shop_port}), any_free({shop_port})
        variables = {
            "HAPROXY_HOST": "127.0.0.1",
            "HAPROXY_PORT": str(port),
            "HAPROXY_METRICS_PORT": str(metrics_port),
            "HAPROXY_SOCKET": str(state_directory / "haproxy.sock"),
            "HAPROXY_DNS": f"127.0.0.1:{names.port}",
            "HAPROXY_SHOP": f"shop:{shop_port}",
        }
        assert set(variables) == set(environment("haproxy"))
        process = subprocess.Popen(
            [haproxy.command("haproxy"), "-db", "-f", str(ROOT / "deploy" / "haproxy.cfg")],
            env={**os.environ, **haproxy.environment(), **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            _eventually(lambda: _answering(url) == {"127.0.0.2"})
            names.addresses = ["127.0.0.2", "127.0.0.3"]
            _eventually(lambda: _answering(url) == {"127.0.0.2", "127.0.0.3"})
            names.addresses = ["127.0.0.3"]
            _eventually(lambda: _answering(url) == {"127.0.0.3"})
        finally:
            process.terminate()
            process.wait(10)


def _answering(url: str) -> set[str]:
    """Who answers eight requests."""
    with httpx.Client(headers={"Connection": "close"}, timeout=5) as client:
        return {client.get(url).text for _ in range(8)}


def _eventually(condition: Any) -> Any:  # Any: what the condition returns, as soon as it is true
    end = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError, httpx.HTTPError):
            if found := condition():
                return found
        time.sleep(0.05)
    raise AssertionError(f"not within {_DEADLINE_SECONDS} s")


class _Names:
    """A name server that has one list of addresses for every name."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        # An empty datagram ends it.
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(0, _QUESTION_HEADER_BYTES) + 5
        question = query[_QUESTION_HEADER_BYTES:end]
        is_a = question[-4:] == struct.pack("!HH", 1, 1)
        records = [
            struct.pack("!HHHIH4s", 0xC00C, 1, 1, 1, 4, socket.inet_aton(address))
            for address in (self.addresses if is_a else [])
        ]
        header = query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(records), 0, 0)
        return header + question + b"".join(records)


@contextlib.contextmanager
def _names() -> Iterator[_Names]:
    names = _Names()
    try:
        yield names
    finally:
        names.close()


class _Replica(http.server.BaseHTTPRequestHandler):
    """Says which address it answers at; always ready."""

    def do_GET(self) -> None:
        body = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name there
        """Say nothing."""


@contextlib.contextmanager
def _replicas(*hosts: str) -> Iterator[int]:
    """One server a host, all on one port."""
    with contextlib.ExitStack() as stack:
        port = 0
        for host in hosts:
            server = stack.enter_context(http.server.ThreadingHTTPServer((host, port), _Replica))
            port = server.server_port
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield port
