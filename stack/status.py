"""What `status` tells people and programs."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

STARTING: Final = "starting"
RUNNING: Final = "running"
STOPPING: Final = "stopping"


@dataclass(frozen=True, kw_only=True)
class ProcessStatus:
    """One process. `healthy` was asked of it just now."""

    name: str
    service: str
    pid: int | None
    url: str
    phase: str
    healthy: bool
    restarts: int
    resident_bytes: int
    log_file: str


@dataclass(frozen=True, kw_only=True)
class StackStatus:
    """
    The whole stack.

    Credentials are named by their file, never by their value. `peak_resident_bytes` is the largest sum of the
    processes' resident memory seen; `first_data_seconds` counts from the first process' start to the first request
    that Prometheus knew of. `watchdog_age_seconds` is how long ago Alertmanager's always-firing alert came last, None
    before the first time; it comes every minute, times `time_scale`, while alerts reach people.
    """

    state_directory: str
    started: float
    shop_url: str
    processes: list[ProcessStatus]
    replicas: dict[str, int]
    phase: str = RUNNING
    missing: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    peak_resident_bytes: int = 0
    first_data_seconds: float | None = None
    faults_token_file: str = ""
    watchdog_age_seconds: float | None = None
    time_scale: float = 1.0

    @property
    def resident_bytes(self) -> int:
        return sum(process.resident_bytes for process in self.processes)

    @property
    def healthy(self) -> bool:
        return all(process.healthy for process in self.processes)

    def process(self, name: str) -> ProcessStatus | None:
        """The process of that name, None when it does not run."""
        return next((process for process in self.processes if process.name == name), None)

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        return {**asdict(self), "resident_bytes": self.resident_bytes, "healthy": self.healthy}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:  # Any: JSON
        kept = {key: value for key, value in fields.items() if key not in {"resident_bytes", "healthy"}}
        return cls(**{**kept, "processes": [ProcessStatus(**process) for process in kept["processes"]]})
