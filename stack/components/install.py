"""Find each component, or install it once into a cache outside the tree."""

import fcntl
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from stack.components import debian, golang, on_path
from stack.components.catalogue import REQUIREMENTS, Component, GoModule, Requirement
from stack.components.progress import Progress, elapsed
from stack.errors import ComponentMissingError

_MANIFEST: Final = "component.json"


@dataclass(kw_only=True)
class Installation:
    """What is there, and a sentence for each component that is not."""

    components: dict[str, Component] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def cache_directory() -> Path:
    """Where installed components are kept: `$XDG_CACHE_HOME/obslib`, by default `~/.cache/obslib`."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "obslib"


def install_all(
    progress: Progress, *, requirements: Iterable[Requirement] = REQUIREMENTS, cache: Path | None = None
) -> Installation:
    """
    Find or install every component; the lack of one is reported, not raised.

    Args:
        progress: told of each step.
        requirements: what is wanted.
        cache: the directory to install into; default: `cache_directory()`.

    """
    installer = Installer(cache or cache_directory(), progress)
    result = Installation()
    for requirement in requirements:
        try:
            result.components[requirement.name] = installer.provide(requirement)
        except ComponentMissingError as error:
            result.missing[requirement.name] = f"{error} Without {requirement.title}, {requirement.without_it}."
            progress.line(requirement.title, f"missing: {result.missing[requirement.name]}")
    return result


class Installer:
    """
    Provides one component after another.

    Args:
        cache: the directory to install into.
        progress: told of each step.

    """

    def __init__(self, cache: Path, progress: Progress) -> None:
        self._components = cache / "components"
        self._apt = debian.Apt(cache / "apt")
        self._progress = progress

    def provide(self, requirement: Requirement) -> Component:
        """
        The component from PATH, else from the cache, else installed now.

        Raises:
            ComponentMissingError: none of the ways works here; the message names what went wrong with each.

        """
        found, complaint = on_path.find(requirement)
        if found is not None:
            self._report(requirement, found)
            return found
        complaints = [complaint] if complaint else []
        for directory, build, how in self._ways(requirement, complaints):
            try:
                component = self._cached(directory) or self._install(requirement, directory, build, how)
            except ComponentMissingError as error:
                complaints.append(str(error).rstrip(".") + ".")
                continue
            self._report(requirement, component)
            return component
        raise ComponentMissingError(" ".join(complaints))

    def _ways(
        self, requirement: Requirement, complaints: list[str]
    ) -> Iterator[tuple[Path, Callable[[Path], Component], str]]:
        machine = platform.machine()
        if requirement.debian_package:
            directory = self._components / f"{requirement.name}-{_distribution()}-{machine}"
            if debian.is_available():
                yield directory, lambda prefix: self._from_debian(requirement, prefix), "unpacking Debian's packages"
            else:
                complaints.append(f"This machine has no apt to take {requirement.debian_package} from.")
        module = requirement.go_module
        if module is None:
            complaints.append(f"Install {requirement.title} with your package manager.")
            return
        go, complaint = golang.usable_go()
        directory = self._components / f"{requirement.name}-{module.version}-{machine}"
        if go is None:
            if (cached := self._cached(directory)) is not None:
                yield directory, lambda _: cached, ""
            complaints.append(f"{complaint}; with Go, {requirement.title} would be built from source.")
            return
        yield (
            directory,
            _go_build(requirement, module, go),
            f"building with Go, about {module.minutes} minutes the first time",
        )

    def _from_debian(self, requirement: Requirement, prefix: Path) -> Component:
        component = debian.install(requirement, self._apt, prefix)
        version = requirement.parse_version(f"version {component.version} v={component.version}")
        if version is None or version < requirement.oldest:
            oldest = ".".join(map(str, requirement.oldest))
            raise ComponentMissingError(
                f"Debian's {requirement.title} is {component.version}; {oldest} or newer is needed."
            )
        return component

    def _install(
        self, requirement: Requirement, directory: Path, build: Callable[[Path], Component], how: str
    ) -> Component:
        self._components.mkdir(parents=True, exist_ok=True)
        with self._progress.step(requirement.title, how), _locked(directory):
            # Another run may have installed it while this one waited for the lock.
            if (cached := self._cached(directory)) is not None:
                return cached
            started = time.monotonic()
            # Left behind by a run that was killed; the lock says that nobody works there now.
            for abandoned in self._components.glob(f".{directory.name}.*/"):
                shutil.rmtree(abandoned, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=self._components))
            try:
                component = _moved(build(temporary / "prefix"), temporary / "prefix", directory)
                (temporary / "prefix" / _MANIFEST).write_text(json.dumps(asdict(component), indent=2))
                shutil.rmtree(directory, ignore_errors=True)
                (temporary / "prefix").rename(directory)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        self._progress.line(requirement.title, f"installed in {elapsed(time.monotonic() - started)}")
        return component

    def _cached(self, directory: Path) -> Component | None:
        try:
            fields = json.loads((directory / _MANIFEST).read_text())
            component = Component(**{**fields, "library_path": tuple(fields["library_path"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return component if all(os.access(path, os.X_OK) for path in component.executables.values()) else None

    def _report(self, requirement: Requirement, component: Component) -> None:
        self._progress.line(requirement.title, f"{component.version:<10} {component.source}")


def _go_build(requirement: Requirement, module: GoModule, go: str) -> Callable[[Path], Component]:
    return lambda prefix: golang.install(requirement, module, go, prefix)


def _distribution() -> str:
    # The packages' libraries match one release of the distribution: another one needs another set.
    release = platform.freedesktop_os_release()
    return f"{release.get('ID', 'linux')}{release.get('VERSION_ID', '')}"


def _moved(component: Component, old: Path, new: Path) -> Component:
    def move(path: str) -> str:
        return str(new / Path(path).relative_to(old)) if path else path

    return Component(
        name=component.name,
        version=component.version,
        source=component.source,
        executables={name: move(path) for name, path in component.executables.items()},
        library_path=tuple(move(path) for path in component.library_path),
        data_root=move(component.data_root),
    )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory.parent / f".{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
