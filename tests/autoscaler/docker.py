"""A Docker Engine on a real Unix socket, with states instead of containers: it refuses what Docker 20.10 refuses, in its words."""

import itertools
import json
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from autoscaler.actuators.docker_replica import NUMBER, ONE_OFF, PROJECT, SERVICE

IMAGE = "sha256:" + "5a" * 32


class RefusalError(Exception):
    """A status and a message, as the engine sends them."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class DockerEngine:
    """
    Keeps containers, and services of a swarm.

    A test may set what is refused, what is answered instead, and hold back what stops.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.containers: dict[str, dict[str, Any]] = {}
        self.services: dict[str, dict[str, Any]] = {}
        self.tasks: list[dict[str, Any]] = []
        #: Orders in the order in which they came: method and path, with the query.
        self.ordered: list[str] = []
        #: By a regular expression for method and path.
        self.refusals: dict[str, RefusalError] = {}
        self.raw: bytes | None = None
        #: Cleared, a stop lasts until it is set.
        self.may_stop = threading.Event()
        self.may_stop.set()
        #: Cleared, nothing is answered until it is set.
        self.may_answer = threading.Event()
        self.may_answer.set()
        #: Whether what is started goes on running.
        self.lives = True
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def has(self, number: int, *, state: str = "running", service: str = "shop", **changes: Any) -> dict[str, Any]:
        """Let there be a container of the project `shelf`, as Compose makes them."""
        name = f"shelf-{service}-{number}"
        labels = {PROJECT: "shelf", SERVICE: service, NUMBER: str(number), ONE_OFF: "False"}
        body = {
            "Image": "shop:1",
            "Env": ["A=b"],
            "Labels": labels | {"com.docker.compose.replace": "old"},
            "StopTimeout": 7,
            "HostConfig": {"NetworkMode": "shelf_default", "Memory": 1024},
            "NetworkingConfig": {"EndpointsConfig": {"shelf_default": {"Aliases": [name, service]}}},
        }
        made = self._create(name, body | changes)
        made["State"] = state
        return made

    def numbers(self, *states: str) -> list[int]:
        """Of containers, sorted."""
        found = [each for each in self.containers.values() if not states or each["State"] in states]
        return sorted(int(each["Config"]["Labels"][NUMBER]) for each in found if PROJECT in each["Config"]["Labels"])

    def named(self, name: str) -> dict[str, Any]:
        (found,) = [each for each in self.containers.values() if each["Name"] == f"/{name}"]
        return found

    def answer(self, method: str, url: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        parts = urlsplit(url)
        assert parts.path.startswith("/v1.44/"), url
        path = parts.path.removeprefix("/v1.44")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if method != "GET":
            self.ordered.append(f"{method} {path}" + (f"?{parts.query}" if parts.query else ""))
        try:
            for pattern, refusal in self.refusals.items():
                if re.fullmatch(pattern, f"{method} {path}"):
                    raise refusal
            if path.endswith("/stop") and not self.may_stop.wait(20):
                raise AssertionError("nobody let it stop")
            with self._lock:
                return self._answer(method, path, query, body or {})
        except RefusalError as refusal:
            return refusal.status, {"message": str(refusal)}

    def _answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        match [method, *path.strip("/").split("/")]:
            case ["GET", "containers", "json"]:
                return 200, self._listed(json.loads(query["filters"]), query.get("all") == "1")
            case ["POST", "containers", "create"]:
                return 201, {"Id": self._create(query["name"], body)["Id"], "Warnings": []}
            case ["GET", "containers", ref, "json"]:
                return 200, self._container(ref)
            case ["POST", "containers", ref, "start"]:
                return self._start(self._container(ref))
            case ["POST", "containers", ref, "stop"]:
                container = self._container(ref)
                assert int(query["t"]) >= 0
                status = 204 if container["State"] == "running" else 304
                container["State"] = "exited"
                return status, None
            case ["DELETE", "containers", ref]:
                return self._remove(self._container(ref), forced=query.get("force") == "1")
            case ["GET", "services", ref]:
                return 200, self._service(ref)
            case ["POST", "services", ref, "update"]:
                return self._update(self._service(ref), int(query["version"]), body)
            case ["GET", "tasks"]:
                filters = json.loads(query["filters"])
                return 200, [
                    task
                    for task in self.tasks
                    if task["ServiceID"] in filters["service"] and task["DesiredState"] in filters["desired-state"]
                ]
        raise RefusalError(404, "page not found")

    def _create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        for other in self.containers.values():
            if other["Name"] == f"/{name}":
                raise RefusalError(
                    409,
                    f'Conflict. The container name "/{name}" is already in use by container "{other["Id"]}". '
                    "You have to remove (or rename) that container to be able to reuse that name.",
                )
        if body["Image"] not in ("shop:1", IMAGE):
            raise RefusalError(404, f"No such image: {body['Image']}")
        number = next(self._ids)
        container_id = f"{number:064x}"
        short = container_id[:12]
        config = {key: deepcopy(value) for key, value in body.items() if key not in ("HostConfig", "NetworkingConfig")}
        networks = deepcopy(body["NetworkingConfig"]["EndpointsConfig"])
        for settings in networks.values():
            assert not {"IPAddress", "MacAddress", "EndpointID", "IPAMConfig"} & set(settings), "of one container only"
            settings.update(Aliases=[*settings["Aliases"], short], IPAddress=f"172.18.0.{number}", EndpointID="e" * 64)
        self.containers[container_id] = {
            "Id": container_id,
            "Name": f"/{name}",
            "Image": IMAGE,
            "Created": number,
            "State": "created",
            "Config": {"Hostname": short, **config},
            "HostConfig": {"ContainerIDFile": "", **deepcopy(body["HostConfig"])},
            "NetworkSettings": {"Networks": networks},
        }
        return self.containers[container_id]

    def _container(self, ref: str) -> dict[str, Any]:
        if ref not in self.containers:
            raise RefusalError(404, f"No such container: {ref}")
        return self.containers[ref]

    def _start(self, container: dict[str, Any]) -> tuple[int, Any]:
        status = 304 if container["State"] == "running" else 204
        container["State"] = "running" if self.lives else "exited"
        return status, None

    def _remove(self, container: dict[str, Any], *, forced: bool) -> tuple[int, Any]:
        if container["State"] == "running" and not forced:
            raise RefusalError(
                409,
                f"You cannot remove a running container {container['Id']}. "
                "Stop the container before attempting removal or force remove",
            )
        del self.containers[container["Id"]]
        return 204, None

    def _listed(self, filters: dict[str, list[str]], everything: bool) -> list[dict[str, Any]]:
        return [
            {
                "Id": each["Id"],
                "Names": [each["Name"]],
                "Created": each["Created"],
                "State": each["State"],
                "Labels": each["Config"]["Labels"],
            }
            for each in self.containers.values()
            if (everything or each["State"] == "running")
            and {tuple(label.split("=")) for label in filters["label"]} <= set(each["Config"]["Labels"].items())
        ]

    def serves(self, name: str, mode: dict[str, Any]) -> dict[str, Any]:
        """Let there be a service of a swarm, with a task for each replica."""
        service_id = f"{next(self._ids):025x}"
        self.services[name] = {
            "ID": service_id,
            "Version": {"Index": 11},
            "Spec": {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "shop:1"}}, "Mode": mode},
        }
        self._follow(self.services[name])
        return self.services[name]

    def _follow(self, service: dict[str, Any]) -> None:
        count = service["Spec"]["Mode"].get("Replicated", {"Replicas": 1})["Replicas"]
        self.tasks = [task for task in self.tasks if task["ServiceID"] != service["ID"]]
        # One that is no more wanted is there for a while.
        self.tasks += [
            {"ServiceID": service["ID"], "DesiredState": desired, "Status": {"State": "running"}}
            for desired in ["running"] * count + ["shutdown"]
        ]

    def _service(self, ref: str) -> dict[str, Any]:
        for name, service in self.services.items():
            if ref in (name, service["ID"]):
                return service
        raise RefusalError(404, f"service {ref} not found")

    def _update(self, service: dict[str, Any], version: int, spec: dict[str, Any]) -> tuple[int, Any]:
        if version != service["Version"]["Index"]:
            raise RefusalError(500, "rpc error: code = Unknown desc = update out of sequence")
        service["Spec"] = spec
        service["Version"]["Index"] += 3
        self._follow(service)
        return 200, {"Warnings": None}


@contextmanager
def docker_engine(socket: Path) -> Iterator[DockerEngine]:
    """An engine that listens."""
    engine = DockerEngine(socket)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            engine.may_answer.wait(20)
            status, answer = engine.answer(self.command, self.path, body)
            if engine.raw is not None:
                self.wfile.write(engine.raw)
                self.close_connection = True
                return
            text = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            if status not in (204, 304):
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = _do  # noqa: N815 -- http.server looks for these

        def log_message(self, *_: object) -> None:
            return

    server = socketserver.ThreadingUnixStreamServer(str(socket), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield engine
    finally:
        engine.may_stop.set()
        engine.may_answer.set()
        server.shutdown()
        thread.join()
        server.server_close()
