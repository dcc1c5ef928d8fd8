"""What can be wrong with a policy."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One thing that is wrong, with the line it stands on (from 1) and the sentence that says how to mend it."""

    line: int
    sentence: str


class PolicyError(Exception):
    """The policy cannot be used; every problem is named at once."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(f"{path}:{problem.line}: {problem.sentence}" for problem in self.problems))
