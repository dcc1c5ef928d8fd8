"""How far and how fast one service may scale: its policy in the units that deciding needs."""

from dataclasses import dataclass
from typing import Self

from prometheus.durations import Clock, Duration
from prometheus.policy import Scaling, Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What a decision has to keep to.

    Args:
        min_replicas: never fewer.
        max_replicas: never more.
        out_step: the most that one step adds; it may always double what there is.
        in_step: the most that one step takes away.
        out_after_seconds: for how long more must have been needed.
        in_after_seconds: for how long fewer must have been enough.
        in_after_samples: as many samples that time must have before it counts as seen.
        out_cooldown_seconds: how long after a step out until the next one.
        in_cooldown_seconds: how long after any change until a step in.
        sample_seconds: how often the rules are evaluated.
        signals: how many demand signals the rules record.

    """

    min_replicas: int
    max_replicas: int
    out_step: int
    in_step: int
    out_after_seconds: float
    in_after_seconds: float
    in_after_samples: int
    out_cooldown_seconds: float
    in_cooldown_seconds: float
    sample_seconds: float
    signals: int

    @property
    def window_seconds(self) -> float:
        """How far back a decision looks: whatever has to be remembered, a restarted autoscaler finds there."""
        longest = max(
            self.in_after_seconds, self.out_after_seconds, self.in_cooldown_seconds, self.out_cooldown_seconds
        )
        return longest + 4 * self.sample_seconds

    @classmethod
    def of(cls, scaling: Scaling, server: Server, clock: Clock) -> Self:
        """
        The limits of a policy.

        Args:
            scaling: of one service.
            server: how often the rules are evaluated.
            clock: for the rules' own time scale.

        """

        def seconds(length: Duration) -> float:
            return float(clock(length).seconds)

        return cls(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            out_step=scaling.scale_out_step,
            in_step=scaling.scale_in_step,
            out_after_seconds=seconds(scaling.scale_out_after),
            in_after_seconds=seconds(scaling.scale_in_after),
            in_after_samples=server.samples(scaling.scale_in_after),
            out_cooldown_seconds=seconds(scaling.scale_out_cooldown),
            in_cooldown_seconds=seconds(scaling.scale_in_cooldown),
            sample_seconds=seconds(server.scrape_interval),
            signals=len(scaling.signals()),
        )
