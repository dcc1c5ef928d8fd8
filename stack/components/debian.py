"""
Debian's packages, unpacked instead of installed: no root, nothing configured, nothing started or enabled.

apt itself resolves what is missing (a simulated install) and checks what it downloads against the signed lists;
`dpkg-deb` unpacks it into a directory of ours, and the program runs with that directory's libraries first.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stack.components.catalogue import Component, Requirement
from stack.errors import ComponentMissingError

# "Inst liblua5.3-0 (5.3.6-2 Debian:12.15/oldstable [amd64])"; an upgrade names the installed version in brackets first.
_INSTALL_LINE = re.compile(r"^Inst (?P<name>\S+)(?: \[[^\]]*\])? \((?P<version>\S+) .*\)", re.MULTILINE)
_EXECUTABLE_DIRECTORIES = ("usr/bin", "usr/sbin", "bin", "sbin")
_TIMEOUT_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package at the version apt would install."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


def missing_packages(simulation: str) -> tuple[Package, ...]:
    """
    The packages that a simulated install would unpack: the dependency closure minus what dpkg has installed.

    Args:
        simulation: what `apt-get --simulate install` printed.

    """
    return tuple(Package(name=m["name"], version=m["version"]) for m in _INSTALL_LINE.finditer(simulation))


def is_available() -> bool:
    """Whether this machine has apt and dpkg."""
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


class Apt:
    """
    apt with lists of its own where the system's are missing, outdated or not ours to renew.

    Args:
        cache: the directory for our own lists and the downloaded packages.

    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._own_lists = (cache / "state" / "lists" / "ready").exists()

    def missing(self, package: str) -> tuple[Package, ...]:
        """
        What has to be unpacked for `package` to run.

        Raises:
            ComponentMissingError: apt does not know the package, or cannot have it.

        """
        answer = self._simulate(package)
        if answer.returncode != 0:
            self.renew_lists()
            answer = self._simulate(package)
        if answer.returncode != 0:
            raise ComponentMissingError(f"apt cannot provide {package}: {_last_line(answer.stderr)}")
        return missing_packages(answer.stdout)

    def unpack(self, packages: tuple[Package, ...], into: Path) -> None:
        """Download `packages`, verified by apt, and unpack them into one directory."""
        downloads = into.with_name(into.name + ".debs")
        downloads.mkdir()
        try:
            answer = self._run("download", *map(str, packages), directory=downloads)
            if answer.returncode != 0:
                raise ComponentMissingError(f"apt could not download {packages[-1].name}: {_last_line(answer.stderr)}")
            for archive in sorted(downloads.glob("*.deb")):
                subprocess.run(["dpkg-deb", "--extract", archive, into], check=True, capture_output=True)
        finally:
            shutil.rmtree(downloads)

    def renew_lists(self) -> None:
        """Fetch package lists into our own directory, which needs no root."""
        for directory in ("state/lists/partial", "archives/partial"):
            (self._cache / directory).mkdir(parents=True, exist_ok=True)
        self._own_lists = True
        answer = self._run("update")
        if answer.returncode != 0:
            raise ComponentMissingError(f"apt's package lists cannot be fetched: {_last_line(answer.stderr)}")
        (self._cache / "state" / "lists" / "ready").touch()

    def _simulate(self, package: str) -> "subprocess.CompletedProcess[str]":
        return self._run("--simulate", "--no-install-recommends", "install", package)

    def _run(self, *arguments: str, directory: Path | None = None) -> "subprocess.CompletedProcess[str]":
        options = ["-q", "-o", "Debug::NoLocking=true"]
        if os.getuid() == 0:
            # As root apt would drop to a user who cannot write into our directory, and warn about it.
            options += ["-o", "APT::Sandbox::User=root"]
        if self._own_lists:
            options += ["-o", f"Dir::State::lists={self._cache}/state/lists", "-o", f"Dir::Cache={self._cache}"]
        return subprocess.run(
            ["apt-get", *options, *arguments],
            cwd=directory,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )


def install(requirement: Requirement, apt: Apt, prefix: Path) -> Component:
    """
    Unpack a component and everything it needs into `prefix`.

    Raises:
        ComponentMissingError: apt cannot provide it.

    """
    packages = apt.missing(requirement.debian_package)
    if not packages:
        raise ComponentMissingError(
            f"{requirement.debian_package} is installed, but its programs are not where they belong."
        )
    try:
        apt.unpack(packages, prefix)
    except ComponentMissingError:
        # The lists are older than the archive: a security update has replaced the version they name.
        apt.renew_lists()
        packages = apt.missing(requirement.debian_package)
        apt.unpack(packages, prefix)
    mend_links(prefix)
    main = next(package for package in packages if package.name == requirement.debian_package)
    return Component(
        name=requirement.name,
        version=upstream_version(main.version),
        source="Debian",
        executables={
            name: str(_executable(prefix, name, requirement.directory_pattern)) for name in requirement.executables
        },
        library_path=tuple(map(str, _library_directories(prefix))),
        data_root=str(prefix),
    )


def mend_links(prefix: Path) -> None:
    """
    Point links that lead to a package which is installed on this machine, and so was not unpacked, to its files there.

    Args:
        prefix: where the packages were unpacked.

    """
    for link in [path for path in prefix.rglob("*") if path.is_symlink() and not path.exists()]:
        target = Path(os.path.normpath(link.parent / link.readlink()))
        if not target.is_relative_to(prefix):
            continue
        installed = Path("/") / target.relative_to(prefix)
        if installed.exists():
            link.unlink()
            link.symlink_to(installed)


def upstream_version(debian_version: str) -> str:
    """The program's own version in a Debian version: `5:7.0.15-1~deb12u10` is 7.0.15."""
    without_epoch = debian_version.rpartition(":")[2]
    return re.split(r"[-+~]", without_epoch, maxsplit=1)[0]


def _executable(prefix: Path, name: str, directory_pattern: str) -> Path:
    directories = [prefix / directory for directory in _EXECUTABLE_DIRECTORIES]
    if directory_pattern:
        directories += sorted(prefix.glob(directory_pattern))
    for directory in directories:
        if (directory / name).exists():
            return directory / name
    raise ComponentMissingError(f"Debian's package does not contain {name}.")


def _library_directories(prefix: Path) -> list[Path]:
    directories = {library.parent for place in ("usr/lib", "lib") for library in (prefix / place).rglob("*.so*")}
    return sorted(directory for directory in directories if directory.parent.name == "lib" or directory.name == "lib")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("E:")] or text.splitlines()
    return lines[-1].removeprefix("E: ") if lines else "no reason given"
