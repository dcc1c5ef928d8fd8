"""One label set of a counter, gauge or histogram: its numbers, and how they are written down.

A child is updated under its own lock. It caches the text of its lines, and their unchanging beginnings for ever.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.samples import Exemplar

from obslib import names
from obslib._saved_values import KeptExemplar, SavedValue, read_count, read_histogram, read_number, to_json

_INFINITY: Final = float("inf")


class Child:
    """One label set of one metric."""

    __slots__ = ("_heads", "_lock", "_openmetrics", "_text", "_worker", "labels")

    def __init__(self, labels: tuple[tuple[str, str], ...]) -> None:
        self.labels = labels
        self._lock = threading.Lock()
        self._heads: tuple[str, ...] = ()
        #: Whose lines the heads begin; it is known when the process has met its siblings.
        self._worker = ""
        #: The lines as they were written down last; None after a change, a mark of its own while somebody renders.
        self._text: object = None
        self._openmetrics: object = None

    def lines(self, name: str, worker: str, *, openmetrics: bool) -> str:
        """Return the lines of this label set, each ended by a newline."""
        if self._worker != worker:
            self._heads = self._make_heads(name, worker)
            self._text = self._openmetrics = None
            self._worker = worker
        cached = self._openmetrics if openmetrics else self._text
        if isinstance(cached, str):
            return cached
        # Put there before the values are read: a change, or another renderer, takes the mark away, and nothing is lost.
        mark = object()
        if openmetrics:
            self._openmetrics = mark
        else:
            self._text = mark
        text = self._render(openmetrics=openmetrics)
        with self._lock:
            if self._openmetrics is mark:
                self._openmetrics = text
            elif self._text is mark:
                self._text = text
        return text

    def reset_after_fork(self) -> None:
        """Count from zero: what the parent has counted, the parent shows."""
        self._lock = threading.Lock()
        self._text = self._openmetrics = None

    def save(self) -> SavedValue:
        """Return the numbers in a form that `absorb` takes and JSON can hold."""
        raise NotImplementedError

    def absorb(self, saved: SavedValue) -> None:
        """
        Add what `save` of another child of this kind has returned; a gauge takes it over.

        Raises:
            ValueError: It is nothing that `save` returns.
        """
        raise NotImplementedError

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

    def reset_after_fork(self) -> None:
        """Count from zero."""
        super().reset_after_fork()
        self._value = 0.0

    def save(self) -> SavedValue:
        """Return the count."""
        return to_json(self._value)

    def absorb(self, saved: SavedValue) -> None:
        """Add another's count."""
        self.inc(read_count(saved))

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

    def save(self) -> SavedValue:
        """Return the value."""
        return to_json(self._read())

    def absorb(self, saved: SavedValue) -> None:
        """Take over another's value."""
        self.set(read_number(saved))

    def _read(self) -> float:
        return self._value if self._function is None else float(self._function())

    def _render(self, *, openmetrics: bool) -> str:  # noqa: ARG002 -- both formats agree here
        return f"{self._heads[0]}{format_value(self._read())}\n"

    def lines(self, name: str, worker: str, *, openmetrics: bool) -> str:
        """Return the line; a function is asked each time."""
        if self._function is not None:
            self._text = self._openmetrics = None
        return super().lines(name, worker, openmetrics=openmetrics)

    def samples(self) -> Iterator[tuple[str, dict[str, str], float, Exemplar | None]]:
        yield "", {}, self._read(), None


class HistogramChild(Child):
    """Counts observations in buckets, and keeps the newest exemplar of each."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_sum")

    def __init__(self, labels: tuple[tuple[str, str], ...], bounds: tuple[float, ...]) -> None:
        super().__init__(labels)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._exemplars: list[KeptExemplar | None] = [None] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, exemplar: KeptExemplar | None = None) -> None:
        """
        Count one observation.

        Args:
            value: In the unit that the metric's name ends with.
            exemplar: Trace id, span id, the value and when, in seconds since 1970; None keeps the bucket's last one.
        """
        index = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[index] += 1
            self._sum += value
            if exemplar is not None:
                self._exemplars[index] = exemplar
            self._text = self._openmetrics = None

    def add(self, counts: Sequence[int], total: float) -> None:
        """
        Count observations that were sorted into the buckets elsewhere.

        Args:
            counts: For each bucket, the last one being that without a bound.
            total: Their sum, in the unit that the metric's name ends with.
        """
        with self._lock:
            for index, count in enumerate(counts):
                self._counts[index] += count
            self._sum += total
            self._text = self._openmetrics = None

    def reset_after_fork(self) -> None:
        """Count from zero."""
        super().reset_after_fork()
        self._counts = [0] * len(self._counts)
        self._exemplars = [None] * len(self._counts)
        self._sum = 0.0

    def save(self) -> SavedValue:
        """Return counts, sum and exemplars."""
        with self._lock:
            return self._counts[:], to_json(self._sum), self._exemplars[:]

    def absorb(self, saved: SavedValue) -> None:
        """Add another's counts, and take over the exemplars of buckets that have none."""
        counts, total, exemplars = read_histogram(saved, len(self._counts))
        with self._lock:
            self._counts = [own + other for own, other in zip(self._counts, counts, strict=True)]
            self._exemplars = [own or other for own, other in zip(self._exemplars, exemplars, strict=True)]
            self._sum += total
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


class RequestSeries:
    """
    The children that one kind of request updates, in one call.

    They share the lock of all request series, which whoever counts holds: rows are counted one after the other, so that
    nobody waits for it.
    """

    __slots__ = ("_duration", "_request_size", "_response_size", "_size_bounds")

    def __init__(
        self,
        lock: threading.Lock,
        duration: HistogramChild,
        request_size: HistogramChild,
        response_size: HistogramChild,
    ) -> None:
        self._duration = duration
        self._request_size = request_size
        self._response_size = response_size
        # Sizes are whole numbers, and so are their bounds: to compare them as such takes half the time.
        self._size_bounds = tuple(int(bound) for bound in response_size._bounds)  # noqa: SLF001 -- this module's own
        for child in (duration, request_size, response_size):
            child._lock = lock  # noqa: SLF001 -- this module's own

    def forget_lines(self) -> None:
        """Have the lines written down anew; to be called before a request is counted, under the same lock."""
        for child in (self._duration, self._request_size, self._response_size):
            child._text = child._openmetrics = None  # noqa: SLF001 -- this module's own, here and below

    def count(
        self,
        seconds: float,
        request_bytes: int,
        response_bytes: int,
        exemplar: tuple[str, str, float, float] | None,
    ) -> None:
        """
        Count one request.

        Args:
            exemplar: Trace id, span id, the seconds and when, in seconds since 1970; None keeps the bucket's last one.
        """
        duration, response_size = self._duration, self._response_size
        index = bisect_left(duration._bounds, seconds)  # noqa: SLF001
        duration._counts[index] += 1  # noqa: SLF001
        duration._sum += seconds  # noqa: SLF001
        if exemplar is not None:
            duration._exemplars[index] = exemplar  # noqa: SLF001
        response_size._counts[bisect_left(self._size_bounds, response_bytes)] += 1  # noqa: SLF001
        response_size._sum += response_bytes  # noqa: SLF001
        request_size = self._request_size
        if request_bytes:
            request_size._counts[bisect_left(self._size_bounds, request_bytes)] += 1  # noqa: SLF001
            request_size._sum += request_bytes  # noqa: SLF001
        else:
            request_size._counts[0] += 1  # noqa: SLF001


class InfoChild(Child):
    """The constant 1, with what there is to say in its labels."""

    __slots__ = ()

    def save(self) -> SavedValue:
        """Return what it always is."""
        return 1.0

    def absorb(self, saved: SavedValue) -> None:
        """Stay what it always is."""

    def _render(self, *, openmetrics: bool) -> str:  # noqa: ARG002 -- both formats agree here
        return f"{self._heads[0]}1\n"

    def samples(self) -> Iterator[tuple[str, dict[str, str], float, Exemplar | None]]:
        yield "", {}, 1.0, None


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
