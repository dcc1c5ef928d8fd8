"""The files that tell Prometheus what to scrape."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from obslib import names
from stack.errors import StackError
from stack.ports import HOST
from stack.state import write_atomically


@dataclass(frozen=True, kw_only=True, order=True)
class Target:
    """
    One `/metrics` address; `replica` becomes Prometheus' `instance` (see prometheus/prometheus.yml).

    `probed` is the service that a probe asks for: it is not the probe's own, or the probe would count as its replica.
    """

    service: str
    replica: str
    port: int
    probed: str = ""


def render(targets: Iterable[Target]) -> str:
    """The text of a target file, the same for the same targets in any order."""
    groups = [
        {
            "targets": [f"{HOST}:{target.port}"],
            "labels": {
                names.LABEL_SERVICE: target.service,
                "replica": target.replica,
                **({"probed": target.probed} if target.probed else {}),
            },
        }
        for target in sorted(targets)
    ]
    return json.dumps(groups, indent=2) + "\n"


def render_addresses(ports: Iterable[int]) -> str:
    """The text of a target file without names: of Alertmanagers, which are told and not scraped by it."""
    return json.dumps([{"targets": [f"{HOST}:{port}" for port in ports]}], indent=2) + "\n"


class TargetFile:
    """
    The target file of the services, with what is in it.

    Args:
        path: the file; it is replaced, never written in place.

    A change that cannot be written raises a `StackError`; it is kept in mind, and written with the next one.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._targets: set[Target] = set()
        self._write()

    def add(self, *targets: Target) -> None:
        self._targets.update(targets)
        self._write()

    def remove(self, *replicas: str) -> None:
        self._targets = {target for target in self._targets if target.replica not in replicas}
        self._write()

    def _write(self) -> None:
        try:
            write_atomically(self._path, render(self._targets))
        except OSError as error:
            raise StackError(f"{self._path} cannot be written: {error.strerror}.") from error
