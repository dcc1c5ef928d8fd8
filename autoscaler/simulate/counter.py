"""A counter as Prometheus has scraped it, and its `rate`."""

from collections import deque


class Counter:
    """
    The samples of one counter that never falls: a replica keeps its process for as long as it lives.

    Args:
        window_seconds: older samples are forgotten.

    """

    __slots__ = ("_samples", "_window_seconds")

    def __init__(self, window_seconds: float) -> None:
        self._window_seconds = window_seconds
        self._samples: deque[tuple[float, float]] = deque()

    def scraped(self, at_seconds: float, value: float) -> None:
        """Remember one sample."""
        self._samples.append((at_seconds, value))

    def rate(self, now: float) -> float | None:
        """`rate(counter[window])` at a moment, None with less than two samples; the window is open on the left."""
        samples = self._samples
        begin = now - self._window_seconds
        while samples and samples[0][0] <= begin:
            samples.popleft()
        if len(samples) < 2:
            return None
        (first_at, first), (last_at, last) = samples[0], samples[-1]
        increase, sampled = last - first, last_at - first_at
        between = sampled / (len(samples) - 1)
        to_start, to_end = first_at - begin, now - last_at
        # An edge that is further away than samples usually are apart is where the counter began or ended.
        if to_start >= between * 1.1:
            to_start = between / 2
        if to_end >= between * 1.1:
            to_end = between / 2
        if increase > 0 and first >= 0:
            # Nor was it ever below zero.
            to_start = min(to_start, sampled * (first / increase))
        return increase * ((sampled + to_start + to_end) / sampled / self._window_seconds)
