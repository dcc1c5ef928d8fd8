"""What the stack needs, the oldest version that will do, and where each can come from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

Version = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class GoModule:
    """
    A program in a Go module, at one version whose checksum the Go sum database vouches for.

    `packages` are directories of main packages below the module, in the order of the requirement's executables.
    `has_replacements` says that its go.mod has `replace` or `exclude` lines: `go install` refuses such a module,
    `go build` inside its own directory does not.
    """

    module: str
    version: str
    packages: tuple[str, ...]
    has_replacements: bool = False
    tags: str = ""
    minutes: int


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One component: how it is recognised and how it can be had."""

    name: str
    title: str
    executables: tuple[str, ...]
    version_arguments: tuple[str, ...]
    version_pattern: str
    oldest: Version
    without_it: str
    debian_package: str = ""
    #: What a distribution calls a program that has another name everywhere else.
    also_called: Mapping[str, str] = field(default_factory=dict)
    #: Where else its programs may be, from the root of a system or of an unpacked package.
    directory_pattern: str = ""
    go_module: GoModule | None = None

    def parse_version(self, text: str) -> Version | None:
        """
        The version in a program's own words, None where it names none.

        Args:
            text: what the program printed when asked for its version.

        """
        match = re.search(self.version_pattern, text)
        return tuple(int(part) for part in match.group(1).split(".")) if match else None


@dataclass(frozen=True, kw_only=True)
class Component:
    """A component that can be started now."""

    name: str
    version: str
    source: str
    executables: dict[str, str]
    library_path: tuple[str, ...] = ()
    data_root: str = ""

    def command(self, executable: str) -> str:
        return self.executables[executable]

    def environment(self) -> dict[str, str]:
        """What the process needs beside its own settings to find the libraries that came with it."""
        return {"LD_LIBRARY_PATH": ":".join(self.library_path)} if self.library_path else {}

    def shared_file(self, relative: str) -> Path | None:
        """A file or directory that came with an unpacked package, None where the system's own places hold."""
        if not self.data_root:
            return None
        path = Path(self.data_root) / relative
        return path if path.exists() else None


PROMETHEUS: Final = Requirement(
    name="prometheus",
    title="Prometheus",
    executables=("prometheus", "promtool"),
    version_arguments=("--version",),
    version_pattern=r"version (\d+\.\d+\.\d+)",
    oldest=(2, 42),
    without_it="no metrics are collected",
    debian_package="prometheus",
    go_module=GoModule(
        module="github.com/prometheus/prometheus",
        version="v0.316.0",
        packages=("cmd/prometheus", "cmd/promtool"),
        tags="remove_all_sd",
        minutes=6,
    ),
)

ALERTMANAGER: Final = Requirement(
    name="alertmanager",
    title="Alertmanager",
    executables=("alertmanager", "amtool"),
    also_called={"alertmanager": "prometheus-alertmanager"},
    version_arguments=("--version",),
    version_pattern=r"version (\d+\.\d+\.\d+)",
    oldest=(0, 25),
    without_it="alerts are evaluated and shown by Prometheus, and nobody is told",
    # Debian's serves where it is installed. Unpacked it does not start: it looks for templates below /usr/share.
    go_module=GoModule(
        module="github.com/prometheus/alertmanager",
        # Later ones embed files of a user interface that are built apart.
        version="v0.28.1",
        packages=("cmd/alertmanager", "cmd/amtool"),
        minutes=2,
    ),
)

JAEGER: Final = Requirement(
    name="jaeger",
    title="Jaeger",
    executables=("jaeger",),
    version_arguments=("version",),
    version_pattern=r'"gitVersion":"v(\d+\.\d+\.\d+)"',
    oldest=(2, 10),
    without_it="traces are recorded but not stored, and `python -m stack trace` has nothing to show",
    go_module=GoModule(
        module="github.com/jaegertracing/jaeger",
        version="v1.76.0",
        packages=("cmd/jaeger",),
        has_replacements=True,
        minutes=6,
    ),
)

HAPROXY: Final = Requirement(
    name="haproxy",
    title="HAProxy",
    executables=("haproxy",),
    version_arguments=("-v",),
    version_pattern=r"version (\d+\.\d+\.\d+)",
    oldest=(2, 6),
    without_it="one replica is reached directly, and the shop cannot be scaled",
    debian_package="haproxy",
)

REDIS: Final = Requirement(
    name="redis",
    title="Redis",
    executables=("redis-server",),
    version_arguments=("--version",),
    version_pattern=r"v=(\d+\.\d+\.\d+)",
    oldest=(6, 0),
    without_it="jobs travel through files, and each replica has a cache and a rate limit of its own",
    debian_package="redis-server",
)

# Not part of the demo, which keeps its data in a file: the tests prove the shop on it.
POSTGRESQL: Final = Requirement(
    name="postgresql",
    title="PostgreSQL",
    executables=("postgres", "initdb"),
    version_arguments=("--version",),
    version_pattern=r"(?:PostgreSQL\)|version) (\d+(?:\.\d+)?)",
    oldest=(13,),
    without_it="the shop is tested on SQLite only",
    debian_package="postgresql-15",
    # Debian keeps each major version apart and off PATH.
    directory_pattern="usr/lib/postgresql/*/bin",
)

# Not part of the demo, which needs no containers: docker-compose.yml is checked with it.
COMPOSE: Final = Requirement(
    name="compose",
    title="Compose",
    executables=("docker-compose",),
    # As a plug-in of Docker it has a place of its own; it runs without Docker as well.
    directory_pattern="usr/lib*/docker/cli-plugins",
    version_arguments=("version",),
    version_pattern=r"version v?(\d+\.\d+\.\d+)",
    oldest=(2, 24),
    without_it="docker-compose.yml is not checked",
    go_module=GoModule(
        module="github.com/docker/compose/v5",
        version="v5.6.0",
        packages=("cmd",),
        has_replacements=True,
        minutes=2,
    ),
)

REQUIREMENTS: Final = (PROMETHEUS, ALERTMANAGER, JAEGER, HAPROXY, REDIS)
