"""Samples of stretches that never were."""

from benchmarks.load import Load
from benchmarks.site import Sample


def sample(
    label: str,
    round_: int,
    seconds: float,
    latencies: dict[int, int] | None = None,
    *,
    requests: int = 1000,
    duration_seconds: float = 0.4,
) -> Sample:
    """Return one whose requests took so many CPU seconds each."""
    load = Load(
        requests=requests,
        duration_seconds=duration_seconds,
        errors=0,
        p50_seconds=0.001,
        p99_seconds=0.002,
        p999_seconds=0.003,
        max_seconds=0.004,
        latencies=latencies or {},
    )
    return Sample(label=label, round=round_, cpu_seconds_per_request=seconds, resident_bytes=1, load=load)
