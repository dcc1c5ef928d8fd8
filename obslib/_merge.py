"""One answer from several processes' answers: the lines of each metric stand together, under one heading."""

from collections.abc import Callable, Sequence
from typing import Final

_HEADING: Final = b"\n# HELP "
_EOF: Final = b"# EOF\n"


class ConflictingKindsError(Exception):
    """Processes disagree about what kind of metric a name means; the later ones' lines are left out."""


def merge(texts: Sequence[bytes], on_error: Callable[[BaseException], None]) -> bytes:
    """
    Merge answers in one format, each of them complete.

    Every metric in them begins with its `# HELP` line, as both obslib and prometheus_client write it.

    Args:
        on_error: Told `ConflictingKindsError`s: workers of different versions of a program may answer together.
    """
    families: dict[bytes, list[bytes]] = {}
    kinds: dict[bytes, bytes] = {}
    for text in texts:
        for family in (b"\n" + text.removesuffix(_EOF)).split(_HEADING)[1:]:
            heading, lines = _split(family)
            name, _, kind = heading.split(b"\n")[1].removeprefix(b"# TYPE ").rpartition(b" ")
            if name not in families:
                families[name] = [_HEADING[1:], heading]
                kinds[name] = kind
            elif kinds[name] != kind:
                on_error(ConflictingKindsError(f"{name.decode()} is a {kinds[name].decode()} and a {kind.decode()}."))
                continue
            families[name].append(lines)
    end = _EOF if texts[0].endswith(_EOF) else b""
    return b"".join([piece for family in families.values() for piece in family] + [end])


def _split(family: bytes) -> tuple[bytes, bytes]:
    """Split what follows `# HELP ` into the heading and the lines of samples, both ended by newlines."""
    if not family.endswith(b"\n"):
        family += b"\n"  # the next heading began with it
    end = family.index(b"\n") + 1
    while family.startswith(b"# ", end):
        end = family.index(b"\n", end) + 1
    return family[:end], family[end:]
