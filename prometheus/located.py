"""YAML that remembers where each value stands."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

import yaml

from prometheus.errors import Problem


@dataclass(frozen=True, kw_only=True)
class Located:
    """A value of a YAML file with its path (`services.shop.slo`) and line."""

    node: yaml.Node
    path: str
    line: int


class Reader:
    """Takes YAML apart and collects what is wrong, so that one run names every mistake."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def root(self, text: str) -> Located | None:
        """The file's value; None when it is no YAML or empty."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.problems.append(Problem(line=line, sentence=f"This is no YAML: {error.problem}."))
            return None
        if node is None:
            self.problems.append(Problem(line=1, sentence="The policy is empty; it needs `services:`."))
            return None
        return Located(node=node, path="", line=1)

    def complain(self, at: Located, sentence: str) -> None:
        where = f"{at.path}: " if at.path else ""
        self.problems.append(Problem(line=at.line, sentence=where + sentence))

    def entries(self, at: Located) -> Iterator[tuple[str, Located]]:
        """A mapping's keys and values; what is no mapping and a key that comes twice are complained of."""
        if not isinstance(at.node, yaml.MappingNode):
            self.complain(at, "this must be a mapping: keys with values, indented below it.")
            return
        seen: set[str] = set()
        for key, value in at.node.value:
            name = str(key.value)
            # The key's line: a mapping's own one is that of its first entry.
            found = Located(node=value, path=f"{at.path}.{name}".lstrip("."), line=key.start_mark.line + 1)
            if name in seen:
                self.complain(found, "this key stands here twice; keep one.")
            seen.add(name)
            yield name, found

    def fields(
        self, at: Located, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
    ) -> dict[str, Located]:
        """A mapping with known keys; an unknown one is complained of with the nearest known one."""
        found = dict(self.entries(at))
        known = (*required, *optional)
        for name in [name for name in found if name not in known]:
            self.complain(found.pop(name), f"unknown key. {nearest(name, known)}")
        for name in required:
            if name not in found and isinstance(at.node, yaml.MappingNode):
                self.complain(at, f"`{name}` is missing; add it.")
        return found

    def text(self, at: Located) -> str:
        """A scalar as it is written."""
        if isinstance(at.node, yaml.ScalarNode):
            return str(at.node.value)
        self.complain(at, "this must be a single value.")
        return ""


def nearest(name: str, known: tuple[str, ...]) -> str:
    """A sentence with what may have been meant, and everything that would do."""
    close = get_close_matches(name, known, n=1)
    meant = f"Did you mean `{close[0]}`? " if close else ""
    return f"{meant}Known are {', '.join(f'`{one}`' for one in sorted(known))}."
