"""A PostgreSQL of a test's own: started, stopped, frozen, and gone afterwards."""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from stack.components.catalogue import Component
from stack.ports import HOST, any_free
from tests.integration.running import eventually

USER = "shop"
DATABASE = "postgres"
READY = "database system is ready to accept connections"


class PostgreSQL:
    """
    One server with its data in a directory of its own.

    Args:
        component: Its programs.
        directory: For data and log; its owner is who the server runs as.
        owner: That user's name; None for whoever runs the tests. PostgreSQL refuses to run as root.
    """

    def __init__(self, component: Component, directory: Path, owner: str | None) -> None:
        self._component = component
        self._data = directory / "data"
        self._log = directory / "log"
        # The kernel ends it when the tests are killed; setpriv arms that after it has changed the user.
        self._prefix = ["setpriv", "--pdeathsig", "KILL"]
        if owner is not None:
            self._prefix += ["--reuid", owner, "--regid", str(pwd.getpwnam(owner).pw_gid), "--clear-groups"]
        self._environment = {**os.environ, **component.environment(), "LC_ALL": "C"}
        self._process: subprocess.Popen[bytes] | None = None
        self._password = secrets.token_urlsafe(12)
        self.port = any_free(set())
        password_file = directory / "password"
        password_file.write_text(self._password)
        self._run(
            "initdb", "--no-sync", "--auth=scram-sha-256", f"--username={USER}", f"--pwfile={password_file}",
            "--encoding=UTF8", f"--pgdata={self._data}",
        )  # fmt: skip

    def url(self, database: str = DATABASE) -> str:
        """Return what the shop is told."""
        return f"postgresql+asyncpg://{USER}:{self._password}@{HOST}:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self._log.write_bytes(b"")
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "60",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, self._component.command("postgres"), "-D", str(self._data), *options],
                cwd="/",
                env=self._environment,
                stdout=log,
                stderr=log,
            )

        def ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            return READY in self._log.read_text()

        eventually(ready, "PostgreSQL is ready")

    def stop(self) -> None:
        """Stop it at once, whoever is connected."""
        if self._process is None:
            return
        self.thaw()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._process = None

    def freeze(self) -> None:
        """Let it keep its connections, accept new ones and answer nobody."""
        for process in self._all():
            process.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _all(self) -> list[psutil.Process]:
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def execute(self, statement: str) -> None:
        """Run a statement outside any transaction."""
        asyncio.run(self._ask("execute", statement))

    def value(self, query: str) -> Any:  # Any: what a column holds
        """Return the first column of the first row."""
        return asyncio.run(self._ask("fetchval", query))

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Hold a table against writers for the length of a `with`."""
        with asyncio.Runner() as runner:
            connection = runner.run(self._connect())
            try:
                runner.run(connection.execute(f"BEGIN; LOCK TABLE {table} IN SHARE MODE"))
                yield
            finally:
                runner.run(connection.close())

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.url().replace("+asyncpg", ""))

    async def _ask(self, method: str, statement: str) -> Any:  # Any: what a column holds
        connection = await self._connect()
        try:
            return await getattr(connection, method)(statement)
        finally:
            await connection.close()

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._prefix, self._component.command(program), *arguments]
        answer = subprocess.run(
            command, cwd="/", env=self._environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr


@contextmanager
def running(component: Component) -> Iterator[PostgreSQL]:
    """A server for the length of a `with`."""
    directory = Path(tempfile.mkdtemp(prefix="obslib-postgresql-"))
    owner = None
    try:
        if os.getuid() == 0:
            owner = "nobody"
            component = _readable_by_all(component, directory)
            user = pwd.getpwnam(owner)
            os.chown(directory, user.pw_uid, user.pw_gid)
        server = PostgreSQL(component, directory, owner)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)


def _readable_by_all(component: Component, directory: Path) -> Component:
    """Copy what was unpacked below root's home, where nobody else may look."""
    if not component.data_root:
        return component
    root = Path(component.data_root)
    copy = directory / "programs"
    shutil.copytree(root, copy, symlinks=True)
    copy.chmod(0o755)

    def moved(path: str) -> str:
        return str(copy / Path(path).relative_to(root))

    return Component(
        name=component.name,
        version=component.version,
        source=component.source,
        executables={name: moved(path) for name, path in component.executables.items()},
        library_path=tuple(map(moved, component.library_path)),
        data_root=str(copy),
    )
