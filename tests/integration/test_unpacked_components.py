"""Programs that were unpacked and not installed: whose libraries they run with, and that they need no others."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stack.components import on_path
from stack.components.catalogue import HAPROXY, PROMETHEUS, REDIS, Component, Requirement
from stack.components.install import Installer, cache_directory
from stack.components.progress import Progress

# "libssl.so.3 => /lib/x86_64-linux-gnu/libssl.so.3 (0x00007f…)"; the loader itself is named by its path alone.
LIBRARY = re.compile(r"^\s+(?P<name>\S+) (?:=> (?P<path>\S+|not found) )?\(?", re.MULTILINE)
KERNELS = "linux-vdso.so.1"


@pytest.fixture(params=[HAPROXY, PROMETHEUS, REDIS], ids=lambda requirement: requirement.name)
def requirement(request: pytest.FixtureRequest) -> Requirement:
    """Whatever the demo takes from Debian."""
    assert isinstance(request.param, Requirement)
    return request.param


@pytest.fixture
def component(requirement: Requirement, monkeypatch: pytest.MonkeyPatch) -> Component:
    """The unpacked one, also where another is installed."""
    monkeypatch.setattr(on_path, "find", lambda _: (None, ""))
    component = Installer(cache_directory(), Progress()).provide(requirement)
    assert component.data_root
    return component


def libraries(component: Component, executable: str) -> dict[str, Path]:
    """Where the loader finds each library of a program, asked of the loader itself."""
    answer = subprocess.run(
        [component.command(executable)],
        env={**component.environment(), "LD_TRACE_LOADED_OBJECTS": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "not found" not in answer.stdout, answer.stdout
    found = {match["name"]: Path(match["path"] or match["name"]) for match in LIBRARY.finditer(answer.stdout)}
    found.pop(KERNELS, None)
    return found


def package_of(path: Path) -> str:
    """The installed package a file belongs to, `""` for none; /lib and /usr/lib are one, and dpkg knows either name."""
    names = {str(path), str(path.resolve()), str(path).removeprefix("/usr"), f"/usr{path}"}
    answer = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True, check=False)
    return answer.stdout.partition(":")[0]


def test_every_library_is_from_the_set_or_from_an_installed_package(component: Component) -> None:
    """What was unpacked wins over the system's; the rest is what apt counted on, and nothing that happens to lie there."""
    unpacked = {path.name for directory in component.library_path for path in Path(directory).glob("*.so*")}
    root = Path(component.data_root)
    for executable in component.executables:
        for name, path in libraries(component, executable).items():
            if name in unpacked:
                assert path.is_relative_to(root), f"{executable}: {name} is the system's, {path}"
            else:
                assert package_of(path), f"{executable}: {name} is {path}, which no package brought"


def test_it_starts_where_there_is_nothing_but_those(
    component: Component, requirement: Requirement, tmp_path: Path
) -> None:
    """In a root directory that holds the program and these libraries, and no other file of the system."""
    for executable in component.executables:
        for path in (Path(component.command(executable)), *libraries(component, executable).values()):
            inside = tmp_path / path.relative_to("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            if not inside.exists():
                shutil.copy(path, inside)
        enter = ["chroot"] if os.getuid() == 0 else ["unshare", "--map-root-user", "chroot"]
        if subprocess.run([*enter, "/", "true"], capture_output=True, check=False).returncode != 0:
            pytest.skip("neither root nor user namespaces here: nothing can be masked")

        answer = subprocess.run(
            [*enter, tmp_path, component.command(executable), *requirement.version_arguments],
            env={"PATH": os.environ["PATH"], **component.environment()},
            capture_output=True,
            text=True,
            check=False,
        )

        assert answer.returncode == 0, answer.stderr
        assert component.version in answer.stdout + answer.stderr
