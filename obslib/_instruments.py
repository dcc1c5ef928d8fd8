"""Counters, gauges and histograms that remember how they are written down.

Each label set is a child, made once and then updated under its own lock. A child caches the text of its lines and
their unchanging beginnings for ever, so that a scrape costs only what changed since the last one. They collect for
prometheus_client, too: its tools can read `Observability.registry`.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Exemplar

from obslib import names
from obslib.exceptions import ConfigurationError

Kind = Literal["counter", "gauge", "histogram", "info"]
_INFINITY: Final = float("inf")


class Child:
    """One label set of one metric."""

    __slots__ = ("_heads", "_lock", "_openmetrics", "_text", "labels")

    def __init__(self, labels: tuple[tuple[str, str], ...]) -> None:
        self.labels = labels
        self._lock = threading.Lock()
        self._heads: tuple[str, ...] = ()
        self._text: str | None = None
        self._openmetrics: str | None = None

    def lines(self, metric: "Instrument[Any]", worker: str, *, openmetrics: bool) -> str:
        """Return the lines of this label set, each ended by a newline."""
        cached = self._openmetrics if openmetrics else self._text
        if cached is not None:
            return cached
        if not self._heads:
            self._heads = self._make_heads(metric.sample_name, worker)
        # Cleared before the values are read: a change in between is rendered again next time, never lost.
        if openmetrics:
            self._openmetrics = ""
            text = self._render(openmetrics=True)
            if self._openmetrics is not None:
                self._openmetrics = text
        else:
            self._text = ""
            text = self._render(openmetrics=False)
            if self._text is not None:
                self._text = text
        return text

    def _make_heads(self, name: str, worker: str) -> tuple[str, ...]:
        return (f"{name}{format_labels((*self.labels, (names.LABEL_WORKER, worker)))} ",)

    def _render(self, *, openmetrics: bool) -> str:
        raise NotImplementedError

    def samples(self) -> Iterator[tuple[str, dict[str, str], float, Exemplar | None]]:
        """Yield suffix, extra labels, value and exemplar of each sample."""
        raise NotImplementedError


class CounterChild(Child):
    """Counts up."""

    __slots__ = ("_value",)

    def __init__(self, labels: tuple[tuple[str, str], ...]) -> None:
        super().__init__(labels)
        self._value = 0.0

    def inc(self, amount: float = 1) -> None:
        """
        Add to the count.

        Raises:
            ValueError: The amount is negative.
        """
        if amount < 0:
            raise ValueError(f"A counter only goes up, not by {amount!r}; use a gauge.")
        with self._lock:
            self._value += amount
            self._text = self._openmetrics = None

    def _render(self, *, openmetrics: bool) -> str:  # noqa: ARG002 -- both formats agree here
        return f"{self._heads[0]}{format_value(self._value)}\n"

    def samples(self) -> Iterator[tuple[str, dict[str, str], float, Exemplar | None]]:
        yield "", {}, self._value, None


class GaugeChild(Child):
    """Goes up and down, or is read when scraped."""

    __slots__ = ("_function", "_value")

    def __init__(self, labels: tuple[tuple[str, str], ...], function: Callable[[], float] | None = None) -> None:
        super().__init__(labels)
        self._value = 0.0
        self._function = function

    def inc(self, amount: float = 1) -> None:
        """Add to the value."""
        with self._lock:
            self._value += amount
            self._text = self._openmetrics = None

    def dec(self, amount: float = 1) -> None:
        """Subtract from the value."""
        self.inc(-amount)

    def set(self, value: float) -> None:
        """Replace the value."""
        with self._lock:
            self._value = float(value)
            self._text = self._openmetrics = None

    def _read(self) -> float:
        return self._value if self._function is None else float(self._function())

    def _render(self, *, openmetrics: bool) -> str:  # noqa: ARG002 -- both formats agree here
        return f"{self._heads[0]}{format_value(self._read())}\n"

    def lines(self, metric: "Instrument[Any]", worker: str, *, openmetrics: bool) -> str:
        """Return the line; a function is asked each time."""
        if self._function is not None:
            self._text = self._openmetrics = None
        return super().lines(metric, worker, openmetrics=openmetrics)

    def samples(self) -> Iterator[tuple[str, dict[str, str], float, Exemplar | None]]:
        yield "", {}, self._read(), None


class HistogramChild(Child):
    """Counts observations in buckets, and keeps the newest exemplar of each."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_sum")

    def __init__(self, labels: tuple[tuple[str, str], ...], bounds: tuple[float, ...]) -> None:
        super().__init__(labels)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._exemplars: list[tuple[str, str, float, float] | None] = [None] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, trace_id: str = "", span_id: str = "", unix_seconds: float = 0) -> None:
        """
        Count one observation.

        Args:
            value: In the unit that the metric's name ends with.
            trace_id: With `span_id`, becomes the exemplar of the bucket; none if empty.
            unix_seconds: When it was observed; now if 0.
        """
        index = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[index] += 1
            self._sum += value
            if trace_id:
                self._exemplars[index] = (trace_id, span_id, value, unix_seconds or time.time())
            self._text = self._openmetrics = None

    def _make_heads(self, name: str, worker: str) -> tuple[str, ...]:
        labels = (*self.labels, (names.LABEL_WORKER, worker))
        bounds = (*(format_value(bound) for bound in self._bounds), "+Inf")
        plain = format_labels(labels)
        return (
            *(f"{name}_bucket{format_labels((*labels, ('le', bound)))} " for bound in bounds),
            f"{name}_count{plain} ",
            f"{name}_sum{plain} ",
        )

    def _render(self, *, openmetrics: bool) -> str:
        with self._lock:
            counts = self._counts[:]
            exemplars = self._exemplars[:] if openmetrics else None
            total = self._sum
        lines = []
        running = 0
        heads = self._heads
        for index, count in enumerate(counts):
            running += count
            exemplar = exemplars[index] if exemplars else None
            if exemplar is None:
                lines.append(f"{heads[index]}{running}\n")
            else:
                trace_id, span_id, value, unix_seconds = exemplar
                lines.append(
                    f'{heads[index]}{running} # {{{names.EXEMPLAR_TRACE_ID}="{trace_id}",'
                    f'{names.EXEMPLAR_SPAN_ID}="{span_id}"}} {value!r} {unix_seconds:.3f}\n'
                )
        lines.append(f"{heads[-2]}{running}\n{heads[-1]}{format_value(total)}\n")
        return "".join(lines)

    def samples(self) -> Iterator[tuple[str, dict[str, str], float, Exemplar | None]]:
        with self._lock:
            counts, exemplars, total = self._counts[:], self._exemplars[:], self._sum
        running = 0
        for bound, count, kept in zip((*self._bounds, _INFINITY), counts, exemplars, strict=True):
            running += count
            exemplar = None
            if kept is not None:
                ids = {names.EXEMPLAR_TRACE_ID: kept[0], names.EXEMPLAR_SPAN_ID: kept[1]}
                exemplar = Exemplar(ids, kept[2], kept[3])
            yield "_bucket", {"le": format_value(bound)}, running, exemplar
        yield "_count", {}, running, None
        yield "_sum", {}, total, None


class InfoChild(Child):
    """The constant 1, with what there is to say in its labels."""

    __slots__ = ()

    def _render(self, *, openmetrics: bool) -> str:  # noqa: ARG002 -- both formats agree here
        return f"{self._heads[0]}1\n"

    def samples(self) -> Iterator[tuple[str, dict[str, str], float, Exemplar | None]]:
        yield "", {}, 1.0, None


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
    ) -> None:
        self.kind = kind
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(label_names)
        self._make_child = make_child
        self._max_label_sets = max_label_sets
        self._on_overflow = on_overflow
        self._lock = threading.Lock()
        self._children: dict[tuple[str, ...], AnyChild] = {}
        if not self.label_names:
            self._children[()] = make_child(())

    @property
    def sample_name(self) -> str:
        """The name that stands on the metric's lines."""
        return self.name

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
        """Return the children there are now, in the order in which they were made."""
        return list(self._children.values())

    def collect(self) -> Iterable[Metric]:
        """Yield the metric as prometheus_client's registries want it."""
        metric = Metric(self.family_name, self.documentation, self.kind)
        suffix_of_kind = self.name.removeprefix(self.family_name)
        for child in self.children():
            labels = dict(child.labels)
            for suffix, extra, value, exemplar in child.samples():
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
            child = self._children.get(key)
            if child is not None:
                return child
            if len(self._children) >= self._max_label_sets:
                self._on_overflow(self.name)
                key = (names.OTHER,) * len(self.label_names)
                child = self._children.get(key)
            if child is None:
                child = self._children[key] = self._make_child(tuple(zip(self.label_names, key, strict=True)))
            return child


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
    """

    def __init__(self, registry: CollectorRegistry, max_label_sets: int) -> None:
        self.registry = registry
        self._max_label_sets = max_label_sets
        self._all: list[Instrument[Any]] = []
        self.overflowed = self.counter(
            names.LABEL_SETS_OVERFLOWED,
            "Label sets that came after a metric's budget was spent.",
            (names.LABEL_METRIC,),
        )

    def all(self) -> list[Instrument[Any]]:
        """Return every metric, in the order in which they were made."""
        return self._all[:]

    def counter(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, max_label_sets: int | None = None
    ) -> Counter:
        """Make a counter; see `Observability.counter`."""
        if not name.endswith("_total"):
            raise ConfigurationError(f"A counter's name ends in _total; call it {name}_total.")
        made = Counter("counter", name, documentation, labels, CounterChild, **self._budget(max_label_sets))
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
    ) -> Gauge:
        """Make a gauge; see `Observability.gauge`."""
        if function is not None and labels:
            raise ConfigurationError(
                f"{name}: a gauge with a function has no labels; make one gauge for each function."
            )

        def child(pairs: tuple[tuple[str, str], ...]) -> GaugeChild:
            return GaugeChild(pairs, function)

        made = Gauge("gauge", name, documentation, labels, child, **self._budget(max_label_sets))
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

        made = Histogram("histogram", name, documentation, labels, child, **self._budget(max_label_sets))
        self._register(made)
        return made

    def info(self, name: str, documentation: str, values: dict[str, str]) -> None:
        """Make a metric that only says something, in labels; its name ends in `_info`."""
        made = Instrument("info", name, documentation, tuple(values), InfoChild, **self._budget(None))
        made.labels(*values.values())
        self._register(made)

    def _budget(self, max_label_sets: int | None) -> dict[str, Any]:
        return {"max_label_sets": max_label_sets or self._max_label_sets, "on_overflow": self._count_overflow}

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


def format_labels(pairs: Iterable[tuple[str, str]]) -> str:
    """Return `{name="value",…}`, escaped."""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in pairs) + "}"


def escape(value: str) -> str:
    """Return a label value as both text formats write it."""
    if "\\" in value or '"' in value or "\n" in value:
        value = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value.encode("utf-8", "replace").decode()


def format_value(value: float) -> str:
    """Return a number as both text formats write it."""
    if value == _INFINITY:
        return "+Inf"
    if value == -_INFINITY:
        return "-Inf"
    if value != value:  # noqa: PLR0124 -- only NaN differs from itself
        return "NaN"
    return repr(float(value))
