"""The shop's roles as processes of their own, over files and loopback only."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx


class Roles:
    """
    Starts roles in one folder and ends them.

    Args:
        folder: Where the database, the queue and the logs are.
        environment: What the roles are told besides; it wins.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OBSLIB_", "SHOP_"))},
            "SHOP_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/shop.sqlite3",
            "SHOP_BROKER_URL": f"filesystem://{folder}/queue",
            "OTEL_TRACES_EXPORTER": "none",
            **environment,
        }
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, role: str, *options: str, name: str = "", **environment: str) -> "subprocess.Popen[bytes]":
        """Start a role; its output goes to a file of its name."""
        with (self.folder / f"{name or role}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "demo_service", role, *options],
                env={**self.environ, **environment},
                stdout=log,
                stderr=log,
            )
        self._running.append(process)
        return process

    def said(self, name: str) -> str:
        """Return all that a role has printed."""
        return (self.folder / f"{name}.log").read_text()

    def lines(self, name: str) -> list[dict[str, object]]:
        """Return what a role has logged; a line that is being written is none yet."""
        whole, _, _ = self.said(name).rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def end(self) -> None:
        """Stop whatever still runs."""
        for process in self._running:
            process.kill()
            process.wait()


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports: list[int] = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def answers(url: str) -> bool:
    """Tell whether a URL answers 200."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def until(condition: Callable[[], object], *, deadline_seconds: float = 120) -> None:
    """Wait for a condition; the deadline is only there to end a failing test."""
    end = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.05)
