"""The secrets that docker-compose.yml mounts."""

import stat
from pathlib import Path

from stack.compose_secrets import write


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """A second run changes nothing: databases keep the password they were made with."""
    directory = tmp_path / "secrets"

    made = write(directory)
    before = {path.name: path.read_text() for path in directory.iterdir()}
    again = write(directory)

    assert sorted(made) == sorted(before)
    assert again == []
    assert {path.name: path.read_text() for path in directory.iterdir()} == before


def test_what_is_there_is_kept_and_used(tmp_path: Path) -> None:
    """A chat's webhook put in by hand, and URLs made from a password that is there."""
    (tmp_path / "chat_url").write_text("https://chat.example/hook")
    (tmp_path / "postgres_password").write_text("chosen")

    made = write(tmp_path)

    assert not {"chat_url", "postgres_password"} & set(made)
    assert (tmp_path / "chat_url").read_text() == "https://chat.example/hook"
    assert (tmp_path / "database_url").read_text() == "postgresql+asyncpg://shop:chosen@postgres:5432/shop"


def test_only_this_user_reaches_them(tmp_path: Path) -> None:
    """The directory is shut; in it containers' users can read and nobody can write."""
    directory = tmp_path / "secrets"
    directory.mkdir(mode=0o755)

    write(directory)

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o444}


def test_no_two_are_alike(tmp_path: Path) -> None:
    """One that leaks opens one door."""
    write(tmp_path)
    passwords = [path.read_text() for path in tmp_path.iterdir() if path.name.endswith(("_password", "_token"))]

    assert len(set(passwords)) == len(passwords) == 7
    assert min(map(len, passwords)) >= 32
