"""What an examination finds, as values that survive JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

Level = Literal["note", "warning", "error"]
#: The exit status of each level, as monitoring plugins have them; 3 is for what could not be examined.
EXIT_STATUS: Final[dict[Level, int]] = {"note": 0, "warning": 1, "error": 2}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    One thing worth saying.

    An `error` means that telemetry is lost or wrong, or that the service does not start; a `warning` that it may be, or
    that something is done twice; a `note` asks for nothing.
    """

    level: Level
    #: What kind of finding this is, for programs.
    code: str
    what: str
    #: What to do, or "".
    fix: str = ""
    #: Further lines, such as a traceback.
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A package that matters, and whether obslib supports this version of it."""

    name: str
    #: Empty where it is not installed.
    installed: str
    #: Such as `>=0.115`; empty where any version will do.
    supported: str = ""
    is_supported: bool = True


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A field of `Settings`, with its value as text, and where that came from."""

    name: str
    value: str
    #: `default`, `code`, or the names of the variables.
    source: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something measured, such as a limit."""

    name: str
    value: str


@dataclass(kw_only=True)
class Report:
    """The whole."""

    application: str = ""
    versions: list[Version] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """That of the worst finding."""
        return max((EXIT_STATUS[finding.level] for finding in self.findings), default=0)

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"exit_status": self.exit_status, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the report that `as_json` described."""
        return cls(
            application=values["application"],
            versions=[Version(**item) for item in values["versions"]],
            settings=[Setting(**item) for item in values["settings"]],
            facts=[Fact(**item) for item in values["facts"]],
            findings=[Finding(**item) for item in values["findings"]],
        )
