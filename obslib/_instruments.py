"""Counters, gauges and histograms with bounded label sets.

Each label set is a child that remembers how it is written down, so that a scrape costs only what changed since the last
one. They collect for prometheus_client, too: its tools can read `Observability.registry`.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric

from obslib import names
from obslib._children import Child, CounterChild, GaugeChild, HistogramChild, InfoChild
from obslib._saved_metric import CUMULATIVE, Kind, SavedMetric
from obslib.exceptions import ConfigurationError

_INFINITY: Final = float("inf")


AnyChild = TypeVar("AnyChild", bound=Child)


class Instrument(Generic[AnyChild]):
    """
    A metric with its label sets. Made by `Observability.counter`, `.gauge` and `.histogram`.

    Label sets beyond `max_label_sets` share one in which every label is `_OTHER`, and are counted.
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        documentation: str,
        label_names: Sequence[str],
        make_child: Callable[[tuple[tuple[str, str], ...]], AnyChild],
        *,
        max_label_sets: int,
        on_overflow: Callable[[str], None],
        before_reading: Callable[[], None],
        on_error: Callable[[BaseException], None],
        bounds: tuple[float, ...] = (),
    ) -> None:
        self.kind: Kind = kind
        self.bounds = bounds
        self.name = name
        self.documentation = documentation
        self.label_names: tuple[str, ...] = tuple(label_names)
        self._make_child = make_child
        self._max_label_sets = max_label_sets
        self._on_overflow = on_overflow
        self._before_reading = before_reading
        self._on_error = on_error
        self._lock = threading.Lock()
        self._children: dict[tuple[str, ...], AnyChild] = {}
        if not self.label_names:
            self._children[()] = make_child(())

    @property
    def family_name(self) -> str:
        """The name without the suffix that OpenMetrics wants on samples only."""
        return self.name.removesuffix({"counter": "_total", "info": "_info"}.get(self.kind, ""))

    def labels(self, *values: object) -> AnyChild:
        """
        Return the child of one label set; keep it where it is used often.

        Args:
            *values: One for each of `label_names`, in their order.

        Raises:
            ValueError: There are more or fewer values than labels.
        """
        key = tuple(value if isinstance(value, str) else str(value) for value in values)
        child = self._children.get(key)
        return self._new_child(key) if child is None else child

    def children(self) -> list[AnyChild]:
        """Return the children there are now, in the order in which they were made, up to date."""
        self._before_reading()
        return list(self._children.values())

    def save(self) -> SavedMetric:
        """Return the numbers as another process can go on with them or show them."""
        saved = []
        for child in self.children():
            try:
                saved.append((tuple(value for _, value in child.labels), child.save()))
            except Exception as error:  # noqa: BLE001 -- a gauge's function may raise anything; the others still count
                self._on_error(error)
        return SavedMetric(self.kind, self.name, self.documentation, self.label_names, self.bounds, tuple(saved))

    def absorb(self, saved: SavedMetric) -> None:
        """Add the numbers of a metric, unless the code has changed and it is another one now."""
        if (self.kind, self.label_names, self.bounds) == (saved.kind, saved.label_names, saved.bounds):
            for values, number in saved.children:
                self.labels(*values).absorb(number)

    def reset_after_fork(self) -> None:
        """Count from zero; gauges stay as the parent has set them."""
        self._lock = threading.Lock()
        for child in self._children.values():
            child.reset_after_fork()

    def collect(self) -> Iterable[Metric]:
        """Yield the metric as prometheus_client's registries want it."""
        metric = Metric(self.family_name, self.documentation, self.kind)
        suffix_of_kind = self.name.removeprefix(self.family_name)
        for child in self.children():
            labels = dict(child.labels)
            try:
                samples = list(child.samples())
            except Exception as error:  # noqa: BLE001 -- a gauge's function may raise anything; the others still count
                self._on_error(error)
                continue
            for suffix, extra, value, exemplar in samples:
                metric.add_sample(
                    f"{self.family_name}{suffix_of_kind}{suffix}", {**labels, **extra}, value, exemplar=exemplar
                )
        yield metric

    def describe(self) -> Iterable[Metric]:
        """Yield the metric without samples, so that a registry can refuse a second one of the same name."""
        yield Metric(self.family_name, self.documentation, self.kind)

    def _new_child(self, key: tuple[str, ...]) -> AnyChild:
        if len(key) != len(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}, not {len(key)} of them.")
        with self._lock:
            if key not in self._children and len(self._children) >= self._max_label_sets:
                self._on_overflow(self.name)
                key = (names.OTHER,) * len(self.label_names)
            if key not in self._children:
                self._children[key] = self._make_child(tuple(zip(self.label_names, key, strict=True)))
            return self._children[key]


class Counter(Instrument[CounterChild]):
    """Counts up; its name ends in `_total`."""

    def inc(self, amount: float = 1) -> None:
        """Add to the count of a counter without labels."""
        self.labels().inc(amount)


class Gauge(Instrument[GaugeChild]):
    """Goes up and down."""

    def inc(self, amount: float = 1) -> None:
        """Add to the value of a gauge without labels."""
        self.labels().inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Subtract from the value of a gauge without labels."""
        self.labels().dec(amount)

    def set(self, value: float) -> None:
        """Replace the value of a gauge without labels."""
        self.labels().set(value)


class Histogram(Instrument[HistogramChild]):
    """Counts observations in buckets."""

    def observe(self, value: float) -> None:
        """Count one observation of a histogram without labels."""
        self.labels().observe(value)


class Instruments:
    """
    Makes metrics and registers them.

    Args:
        registry: Refuses a second metric of the same name.
        max_label_sets: For each metric, unless it is given its own.
        before_reading: Called before a metric is read, so that what waits to be counted is.
        on_error: Told which exception a gauge's function raised; the gauge is then left out.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        max_label_sets: int,
        *,
        before_reading: Callable[[], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self.registry = registry
        self._before_reading = before_reading
        self._on_error = on_error
        self.max_label_sets = max_label_sets
        self._all: list[Instrument[Any]] = []
        #: Of a predecessor, until somebody makes the metric of that name here, too.
        self._carried: dict[str, SavedMetric] = {}
        self.overflowed: Counter = self.counter(
            names.LABEL_SETS_OVERFLOWED,
            "Label sets that came after a metric's budget was spent.",
            (names.LABEL_METRIC,),
        )

    def all(self) -> list[Instrument[Any]]:
        """Return every metric, in the order in which they were made."""
        return self._all[:]

    def counter(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        max_label_sets: int | None = None,
        before_reading: Callable[[], None] | None = None,
    ) -> Counter:
        """Make a counter; see `Observability.counter`. `before_reading` replaces what all have in common."""
        if not name.endswith("_total"):
            raise ConfigurationError(f"A counter's name ends in _total; call it {name}_total.")
        made = Counter(
            "counter", name, documentation, labels, CounterChild, **self._budget(max_label_sets, before_reading)
        )
        self._register(made)
        return made

    def gauge(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        function: Callable[[], float] | None = None,
        max_label_sets: int | None = None,
        before_reading: Callable[[], None] | None = None,
    ) -> Gauge:
        """Make a gauge; see `Observability.gauge`. `before_reading` replaces what all have in common."""
        if function is not None and labels:
            raise ConfigurationError(
                f"{name}: a gauge with a function has no labels; make one gauge for each function."
            )

        def child(pairs: tuple[tuple[str, str], ...]) -> GaugeChild:
            return GaugeChild(pairs, function)

        made = Gauge("gauge", name, documentation, labels, child, **self._budget(max_label_sets, before_reading))
        self._register(made)
        return made

    def histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = names.DURATION_BUCKETS_SECONDS,
        max_label_sets: int | None = None,
    ) -> Histogram:
        """Make a histogram; see `Observability.histogram`."""
        bounds = tuple(float(bound) for bound in buckets if bound != _INFINITY)
        if not bounds or list(bounds) != sorted(set(bounds)):
            raise ConfigurationError(f"{name}: buckets must be upper bounds that rise, not {tuple(buckets)!r}.")
        if "le" in labels:
            raise ConfigurationError(f"{name}: a histogram cannot have a label le; its buckets have it.")

        def child(pairs: tuple[tuple[str, str], ...]) -> HistogramChild:
            return HistogramChild(pairs, bounds)

        made = Histogram("histogram", name, documentation, labels, child, bounds=bounds, **self._budget(max_label_sets))
        self._register(made)
        return made

    def info(self, name: str, documentation: str, values: dict[str, str]) -> None:
        """Make a metric that only says something, in labels; its name ends in `_info`."""
        made = Instrument("info", name, documentation, tuple(values), InfoChild, **self._budget(None))
        made.labels(*values.values())
        self._register(made)

    def carry(self, metrics: Iterable[SavedMetric]) -> None:
        """Go on from a predecessor's counts, with metrics that do not exist yet as soon as they do."""
        self._carried = {saved.name: saved for saved in metrics if saved.kind in CUMULATIVE}
        for made in self._all:
            self._claim(made)

    def carried(self) -> list[SavedMetric]:
        """Return what a predecessor has counted and nobody has made a metric for."""
        return list(self._carried.values())

    def show(self, saved: SavedMetric) -> None:
        """
        Make a metric that another process had, with its numbers.

        Raises:
            ConfigurationError: It cannot be a metric.
        """
        if saved.name == self.overflowed.name:
            self.overflowed.absorb(saved)
        elif saved.kind == "counter":
            self.counter(saved.name, saved.documentation, saved.label_names).absorb(saved)
        elif saved.kind == "gauge":
            self.gauge(saved.name, saved.documentation, saved.label_names).absorb(saved)
        elif saved.kind == "histogram":
            made = self.histogram(saved.name, saved.documentation, saved.label_names, buckets=saved.bounds)
            made.absorb(saved)
        else:
            for values, _ in saved.children:
                self.info(saved.name, saved.documentation, dict(zip(saved.label_names, values, strict=True)))

    def reset_after_fork(self) -> None:
        """Count from zero: what the parent has counted, the parent shows."""
        self._carried = {}
        for made in self._all:
            made.reset_after_fork()

    def _claim(self, made: Instrument[Any]) -> None:
        if saved := self._carried.pop(made.name, None):
            made.absorb(saved)

    def _budget(self, max_label_sets: int | None, before_reading: Callable[[], None] | None = None) -> dict[str, Any]:
        return {
            "max_label_sets": max_label_sets or self.max_label_sets,
            "on_overflow": self._count_overflow,
            "before_reading": before_reading or self._before_reading,
            "on_error": self._on_error,
        }

    def _count_overflow(self, metric_name: str) -> None:
        self.overflowed.labels(metric_name).inc()

    def _register(self, made: Instrument[Any]) -> None:
        for label in made.label_names:
            if label == names.LABEL_WORKER or not label.isidentifier() or label.startswith("__"):
                raise ConfigurationError(f"{made.name}: {label!r} cannot be a label's name; choose another.")
        try:
            self.registry.register(made)
        except ValueError as error:
            raise ConfigurationError(
                f"{made.name} exists already; keep the object that the first call made."
            ) from error
        self._all.append(made)
        self._claim(made)
