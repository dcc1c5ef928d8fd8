"""How components are recognised, resolved and installed."""

import io
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stack.components import debian, golang, install, on_path
from stack.components.catalogue import (
    ALERTMANAGER,
    COMPOSE,
    HAPROXY,
    JAEGER,
    POSTGRESQL,
    PROMETHEUS,
    REDIS,
    Component,
    Requirement,
    Version,
)
from stack.components.progress import Progress, elapsed
from stack.errors import ComponentMissingError

PROMETHEUS_SAYS = """prometheus, version 2.42.0+ds (branch: debian/sid, revision: 2.42.0+ds-5+b5)
  build user:       team+pkg-go@tracker.debian.org
  go version:       go1.19.8
"""
ALERTMANAGER_SAYS = "alertmanager, version 0.25.0+ds (branch: debian/sid, revision: 0.25.0+ds-1+b4)\n"
HAPROXY_SAYS = (
    "HAProxy version 2.6.12-1+deb12u4 2026/05/08 - https://haproxy.org/\nStatus: long-term supported branch\n"
)
REDIS_SAYS = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=d0c65ff9ab9ca2b3\n"

SIMULATION = """NOTE: This is only a simulation!
Reading package lists...
The following additional packages will be installed:
  liblua5.3-0
Inst liblua5.3-0 (5.3.6-2 Debian:12.15/oldstable [amd64])
Inst libssl3 [3.0.11-1] (3.0.17-1 Debian-Security:12/oldstable-security [amd64])
Inst redis-tools (5:7.0.15-1~deb12u10 Debian:12.15/oldstable [amd64])
Inst haproxy (2.6.12-1+deb12u4 Debian-Security:12/oldstable-security [amd64])
Conf liblua5.3-0 (5.3.6-2 Debian:12.15/oldstable [amd64])
Conf haproxy (2.6.12-1+deb12u4 Debian-Security:12/oldstable-security [amd64])
"""


@pytest.mark.parametrize(
    ("requirement", "text", "version"),
    [
        (PROMETHEUS, PROMETHEUS_SAYS, (2, 42, 0)),
        (ALERTMANAGER, ALERTMANAGER_SAYS, (0, 25, 0)),
        (HAPROXY, HAPROXY_SAYS, (2, 6, 12)),
        (REDIS, REDIS_SAYS, (7, 0, 15)),
        (COMPOSE, "Docker Compose version v5.6.0\n", (5, 6, 0)),
        (JAEGER, '{"gitCommit":"8498","gitVersion":"v2.13.0","buildDate":"2026-01-01"}', (2, 13, 0)),
        (POSTGRESQL, "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", (15, 18)),
        (JAEGER, '{"gitCommit":"","gitVersion":"","buildDate":""}', None),
        (PROMETHEUS, "command not found", None),
    ],
)
def test_a_version_is_read_from_the_programs_own_words(
    requirement: Requirement, text: str, version: Version | None
) -> None:
    """Each program says it in its own way; one that does not say it has none."""
    assert requirement.parse_version(text) == version


def test_the_closure_is_what_apt_would_unpack() -> None:
    """Each `Inst` line counts once, upgrades too; configuring and prose do not."""
    assert [str(package) for package in debian.missing_packages(SIMULATION)] == [
        "liblua5.3-0=5.3.6-2",
        "libssl3=3.0.17-1",
        "redis-tools=5:7.0.15-1~deb12u10",
        "haproxy=2.6.12-1+deb12u4",
    ]


@pytest.mark.parametrize(
    ("debian_version", "upstream"),
    [("5:7.0.15-1~deb12u10", "7.0.15"), ("2.42.0+ds-5+deb12u1", "2.42.0"), ("2.6.12-1+deb12u4", "2.6.12")],
)
def test_a_debian_version_names_the_upstream_one(debian_version: str, upstream: str) -> None:
    """Epoch, repackaging mark and revision are Debian's."""
    assert debian.upstream_version(debian_version) == upstream


def test_a_link_to_a_package_that_is_installed_is_pointed_at_it(tmp_path: Path) -> None:
    """An unpacked package may link to one that was not unpacked because the machine has it."""
    prefix = tmp_path / "prefix"
    (prefix / "usr/share/app").mkdir(parents=True)
    here = prefix / "usr/share/app/passwd"
    here.symlink_to("../../../etc/passwd")
    lost = prefix / "usr/share/app/lost"
    lost.symlink_to("../nowhere/at-all")

    debian.mend_links(prefix)

    assert here.readlink() == Path("/etc/passwd")
    assert not lost.exists()


def program(directory: Path, name: str, says: str) -> None:
    """A program that prints a text."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def path_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts programs on a PATH that has nothing else of theirs."""
    monkeypatch.setattr(on_path, "_ALSO", ())

    def put(**programs: str) -> None:
        for name, says in programs.items():
            program(tmp_path / "bin", name, says)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")

    return put


def test_what_is_installed_is_taken(path_with: Callable[..., None]) -> None:
    """A program of a good version on PATH is used as it is."""
    path_with(haproxy=HAPROXY_SAYS)

    found, complaint = on_path.find(HAPROXY)

    assert complaint == ""
    assert found is not None
    assert (found.version, found.source) == ("2.6.12", "PATH")


def test_a_program_that_debian_calls_otherwise_is_taken(path_with: Callable[..., None]) -> None:
    """Alertmanager is `prometheus-alertmanager` there; who asks for it need not know."""
    path_with(**{"prometheus-alertmanager": ALERTMANAGER_SAYS, "amtool": ""})

    found, complaint = on_path.find(ALERTMANAGER)

    assert complaint == ""
    assert found is not None
    assert found.version == "0.25.0"
    assert found.command("alertmanager").endswith("bin/prometheus-alertmanager")


@pytest.mark.parametrize(
    ("programs", "sentence"),
    [
        (
            {"prometheus": PROMETHEUS_SAYS.replace("2.42.0", "2.24.1"), "promtool": ""},
            "which is too old; 2.42 or newer",
        ),
        ({"prometheus": "hello", "promtool": ""}, "does not tell its version; 2.42 or newer"),
        ({"prometheus": PROMETHEUS_SAYS}, "promtool, which belongs to it, is not on PATH"),
    ],
)
def test_what_will_not_do_is_refused_with_the_reason(
    path_with: Callable[..., None], programs: dict[str, str], sentence: str
) -> None:
    """Too old, silent or incomplete: the sentence names the program and what is needed."""
    path_with(**programs)

    found, complaint = on_path.find(PROMETHEUS)

    assert found is None
    assert sentence in complaint


def test_without_go_jaeger_is_missing_and_the_sentence_says_what_that_means(
    path_with: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A component that cannot be had is reported with its consequence, and the others are still provided."""
    path_with(haproxy=HAPROXY_SAYS)
    monkeypatch.setattr(golang, "usable_go", lambda: (None, "Go is not installed"))

    result = install.install_all(Progress(io.StringIO()), requirements=(JAEGER, HAPROXY), cache=tmp_path / "cache")

    assert list(result.components) == ["haproxy"]
    assert result.missing["jaeger"] == (
        "Go is not installed; with Go, Jaeger would be built from source. Without Jaeger, traces are recorded but not "
        "stored, and `python -m stack trace` has nothing to show."
    )


def test_without_apt_the_package_manager_is_named(
    path_with: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no Debian is, the person who reads it has another way."""
    path_with()
    monkeypatch.setattr(debian, "is_available", lambda: False)

    result = install.install_all(Progress(io.StringIO()), requirements=(HAPROXY,), cache=tmp_path / "cache")

    assert result.missing["haproxy"] == (
        "This machine has no apt to take haproxy from. Install HAProxy with your package manager. "
        "Without HAProxy, one replica is reached directly, and the shop cannot be scaled."
    )


def test_a_package_that_is_too_old_is_not_taken(
    path_with: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old distribution's package is refused with both versions, and nothing of it stays."""

    def old(requirement: Requirement, _apt: object, prefix: Path) -> Component:
        program(prefix, "haproxy", "")
        executables = {"haproxy": str(prefix / "haproxy")}
        return Component(name=requirement.name, version="2.2.9", source="Debian", executables=executables)

    path_with()
    (tmp_path / "prefix").mkdir()
    monkeypatch.setattr(debian, "is_available", lambda: True)
    monkeypatch.setattr(debian, "install", old)

    result = install.install_all(Progress(io.StringIO()), requirements=(HAPROXY,), cache=tmp_path / "cache")

    assert "Debian's HAProxy is 2.2.9; 2.6 or newer is needed." in result.missing["haproxy"]
    assert [path.name for path in (tmp_path / "cache/components").iterdir() if path.suffix != ".lock"] == []


def test_a_go_that_is_too_old_is_named_with_the_version_it_needs(
    path_with: Callable[..., None], tmp_path: Path
) -> None:
    """The sentence says which Go was found and what it would have been for."""
    path_with(go="go version go1.18.1 linux/amd64")

    result = install.install_all(Progress(io.StringIO()), requirements=(JAEGER,), cache=tmp_path / "cache")

    assert (
        "bin/go is Go 1.18; 1.21 or newer is needed; with Go, Jaeger would be built from source."
        in (result.missing["jaeger"])
    )


def test_programs_that_debian_keeps_off_the_path_are_found(path_with: Callable[..., None], tmp_path: Path) -> None:
    """Of several major versions the newest is taken."""
    path_with()
    for version in ("13", "15"):
        (tmp_path / version).mkdir()
        for name in POSTGRESQL.executables:
            program(tmp_path / version / "bin", name, f"postgres (PostgreSQL) {version}.4 (Debian)")
    requirement = replace(POSTGRESQL, directory_pattern=f"{tmp_path.relative_to('/')}/*/bin")

    found, complaint = on_path.find(requirement)

    assert complaint == ""
    assert found is not None
    assert found.version == "15.4"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replaces the Go build by one that only writes a file; lists where it built."""
    built: list[Path] = []

    def build(requirement: Requirement, _module: object, _go: str, prefix: Path) -> Component:
        built.append(prefix)
        program(prefix, "jaeger", "")
        executables = {"jaeger": str(prefix / "jaeger")}
        return Component(name=requirement.name, version="1.76.0", source="built with Go", executables=executables)

    monkeypatch.setattr(golang, "usable_go", lambda: ("go", ""))
    monkeypatch.setattr(golang, "install", build)
    monkeypatch.setattr(on_path, "find", lambda _: (None, ""))
    return built


def test_a_component_is_installed_once(tmp_path: Path, builds: list[Path]) -> None:
    """The second time it comes from the cache, with paths that lead there."""
    first = install.Installer(tmp_path, Progress(io.StringIO())).provide(JAEGER)
    second = install.Installer(tmp_path, Progress(io.StringIO())).provide(JAEGER)

    assert first == second
    assert len(builds) == 1
    assert os.access(first.command("jaeger"), os.X_OK)


def test_a_program_built_in_its_own_directory_gets_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose's is called after its package otherwise: `cmd`."""
    commands: list[list[str]] = []

    def run(command: list[str], _module: object, _extra: object = None) -> str:
        commands.append(command)
        return json.dumps({"Dir": "/source"})

    monkeypatch.setattr(golang, "_run", run)
    assert COMPOSE.go_module is not None

    component = golang.install(COMPOSE, COMPOSE.go_module, "go", tmp_path / "prefix")

    built = component.command("docker-compose")
    assert commands[-1] == ["go", "build", "-C", "/source/cmd", "-trimpath", "-o", built]
    assert Path(built).name == "docker-compose"


def test_an_interrupted_installation_leaves_nothing_that_looks_complete(
    tmp_path: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is built beside its place and moved there as a whole, or not at all."""

    def interrupted(*_: object) -> Component:
        raise KeyboardInterrupt

    installer = install.Installer(tmp_path, Progress(io.StringIO()))
    with monkeypatch.context() as patch:
        patch.setattr(golang, "install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            installer.provide(JAEGER)

    assert [path.name for path in (tmp_path / "components").iterdir() if not path.name.endswith(".lock")] == []
    assert installer.provide(JAEGER).name == "jaeger"


def test_what_a_killed_run_left_behind_is_cleared_away(tmp_path: Path, builds: list[Path]) -> None:
    """Hundreds of megabytes of a half-made installation do not stay for ever."""
    abandoned = tmp_path / "components" / f".jaeger-v1.76.0-{os.uname().machine}.abandoned"
    abandoned.mkdir(parents=True)

    install.Installer(tmp_path, Progress(io.StringIO())).provide(JAEGER)

    assert not abandoned.exists()


def test_a_damaged_installation_is_made_again(tmp_path: Path, builds: list[Path]) -> None:
    """A manifest that cannot be read, or names a program that is gone, is no installation."""
    component = install.Installer(tmp_path, Progress(io.StringIO())).provide(JAEGER)
    Path(component.command("jaeger")).unlink()

    install.Installer(tmp_path, Progress(io.StringIO())).provide(JAEGER)

    assert len(builds) == 2


def test_the_manifest_says_what_was_installed(tmp_path: Path, builds: list[Path]) -> None:
    """A person who wonders what the directory is finds name, version and source in it."""
    component = install.Installer(tmp_path, Progress(io.StringIO())).provide(JAEGER)

    manifest = json.loads((Path(component.command("jaeger")).parent / "component.json").read_text())

    assert (manifest["name"], manifest["version"], manifest["source"]) == ("jaeger", "1.76.0", "built with Go")


def test_a_package_that_apt_does_not_know_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """apt's own reason is passed on."""
    path = tmp_path / "bin"
    program(path, "apt-get", "")
    (path / "apt-get").write_text("#!/bin/sh\necho 'E: Unable to locate package haproxy' >&2\nexit 100\n")
    monkeypatch.setenv("PATH", f"{path}:/bin")

    with pytest.raises(ComponentMissingError, match="Unable to locate package haproxy"):
        debian.Apt(tmp_path / "apt").missing("haproxy")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (309, "5 min 09 s")]
)
def test_elapsed_time_is_written_for_people(seconds: float, text: str) -> None:
    """Tenths below a minute, minutes above."""
    assert elapsed(seconds) == text
