"""How long garbage collections stop the process."""

import gc
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final

from obslib import names
from obslib._instruments import Instruments

_GENERATIONS: Final = 3


class GcPauses:
    """
    Times each collection, and tells the histogram before it is read.

    A collection may begin while this very thread holds the histogram's lock, so the callback takes none. It needs none:
    the interpreter runs one collection at a time.
    """

    def __init__(self, instruments: Instruments) -> None:
        histogram = instruments.histogram(
            names.CPYTHON_GC_PAUSE_DURATION,
            "Duration of garbage collections, by the oldest generation collected.",
            (names.LABEL_GC_GENERATION,),
            buckets=names.GC_BUCKETS_SECONDS,
        )
        self._children = [histogram.labels(generation) for generation in range(_GENERATIONS)]
        self._lock = threading.Lock()
        self._counts = [[0] * (len(names.GC_BUCKETS_SECONDS) + 1) for _ in range(_GENERATIONS)]
        self._totals = [0.0] * _GENERATIONS
        self._told_counts = [counts[:] for counts in self._counts]
        self._told_totals = self._totals[:]
        self._began_seconds = 0.0
        self._has_news = False

    def start(self) -> None:
        """Begin to time collections; a second call does nothing."""
        if self._on_collection not in gc.callbacks:
            gc.callbacks.append(self._on_collection)

    def stop(self) -> None:
        """Time no more."""
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)

    def hand_over(self) -> None:
        """Tell the histogram what it has not been told."""
        if not self._has_news:
            return
        with self._lock:
            self._has_news = False
            for generation, child in enumerate(self._children):
                counts, total = self._counts[generation][:], self._totals[generation]
                told = self._told_counts[generation]
                child.add(
                    [now - before for now, before in zip(counts, told, strict=True)],
                    total - self._told_totals[generation],
                )
                self._told_counts[generation] = counts
                self._told_totals[generation] = total

    def _on_collection(self, phase: str, info: Mapping[str, Any]) -> None:
        if phase == "start":
            self._began_seconds = time.perf_counter()
            return
        began_seconds, self._began_seconds = self._began_seconds, 0.0
        if not began_seconds:  # it was running already when we were asked to time it
            return
        seconds = time.perf_counter() - began_seconds
        generation = info["generation"]
        self._counts[generation][bisect_left(names.GC_BUCKETS_SECONDS, seconds)] += 1
        self._totals[generation] += seconds
        self._has_news = True
