"""Counters, gauges and histograms that users make."""

import threading

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from obslib import names
from obslib._children import Child, escape, format_value
from obslib._exposition import OPENMETRICS, TEXT, Exposition
from obslib._foreign import ForeignMetrics
from obslib._instruments import Instruments
from obslib.exceptions import ConfigurationError
from obslib.settings import Settings
from obslib.testing import capture


def fail(error: BaseException) -> None:
    raise error


@pytest.fixture
def instruments() -> Instruments:
    return Instruments(CollectorRegistry(), max_label_sets=100, before_reading=lambda: None, on_error=fail)


def render(instruments: Instruments, content_type: str = TEXT) -> str:
    return (
        Exposition(instruments, ForeignMetrics((), print), worker="0", token=None, on_error=fail)
        .render(content_type)
        .decode()
    )


def test_counter(instruments: Instruments) -> None:
    """A counter counts, for each of its label sets."""
    orders = instruments.counter("orders_total", "Orders.", ("status",))
    orders.labels("paid").inc()
    orders.labels("paid").inc(2.5)
    assert instruments.registry.get_sample_value("orders_total", {"status": "paid"}) == 3.5
    assert '# TYPE orders_total counter\norders_total{status="paid",worker="0"} 3.5\n' in render(instruments)
    assert "# TYPE orders counter\n" in render(instruments, OPENMETRICS)


def test_counter_goes_up_only(instruments: Instruments) -> None:
    """A counter refuses to go down, and says what to use instead."""
    with pytest.raises(ValueError, match="use a gauge"):
        instruments.counter("orders_total", "Orders.").inc(-1)


def test_gauge(instruments: Instruments) -> None:
    """A gauge is set, raised and lowered."""
    depth = instruments.gauge("depth", "Depth.")
    depth.set(4)
    depth.inc()
    depth.dec(2)
    assert '\ndepth{worker="0"} 3.0\n' in render(instruments)


def test_gauge_with_function(instruments: Instruments) -> None:
    """A gauge with a function is asked at each scrape."""
    values = iter([1.0, 2.0, 3.0])
    instruments.gauge("depth", "Depth.", function=lambda: next(values))
    assert '\ndepth{worker="0"} 1.0\n' in render(instruments)
    assert '\ndepth{worker="0"} 2.0\n' in render(instruments, OPENMETRICS)
    assert instruments.registry.get_sample_value("depth") == 3.0


def test_histogram(instruments: Instruments) -> None:
    """A value falls into the first bucket whose bound is not below it."""
    size = instruments.histogram("size_bytes", "Size.", buckets=(1, 2, float("inf")))
    for value in (0.5, 1, 1.5, 9):
        size.observe(value)
    [family] = [family for family in text_string_to_metric_families(render(instruments)) if family.name == "size_bytes"]
    assert {sample.labels["le"]: sample.value for sample in family.samples if sample.name.endswith("_bucket")} == {
        "1.0": 2,
        "2.0": 3,
        "+Inf": 4,
    }
    assert instruments.registry.get_sample_value("size_bytes_sum") == 12


def test_rendering_follows_changes(instruments: Instruments) -> None:
    """Cached text is renewed when a value changes, in both formats."""
    orders = instruments.counter("orders_total", "Orders.")
    for expected in ("1.0", "2.0"):
        orders.inc()
        for content_type in (TEXT, OPENMETRICS, TEXT):
            assert f'\norders_total{{worker="0"}} {expected}\n' in render(instruments, content_type)


def test_budget(instruments: Instruments) -> None:
    """Label sets beyond the budget are counted together, and the metric that overflowed is named."""
    hits = instruments.counter("hits_total", "Hits.", ("page",), max_label_sets=2)
    for page in range(5):
        hits.labels(page).inc()
    value = instruments.registry.get_sample_value
    assert value("hits_total", {"page": "0"}) == 1
    assert value("hits_total", {"page": names.OTHER}) == 3
    assert value(names.LABEL_SETS_OVERFLOWED, {names.LABEL_METRIC: "hits_total"}) == 3


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from("ab")), max_size=40), st.integers(1, 6))
def test_no_values_break_the_budget(values: list[tuple[str, str]], budget: int) -> None:
    """Whatever the labels are: the budget and one more series at most, the first ones kept apart, nothing uncounted."""
    made = Instruments(CollectorRegistry(), max_label_sets=budget, before_reading=lambda: None, on_error=fail)
    hits = made.counter("hits_total", "Hits.", ("page", "kind"))
    kept: dict[tuple[str, str], int] = {}
    overflowed = 0
    for labels in values:
        hits.labels(*labels).inc()
        if labels in kept or len(kept) < budget:
            kept[labels] = kept.get(labels, 0) + 1
        else:
            overflowed += 1
    value = made.registry.get_sample_value
    for (page, kind), count in kept.items():
        assert value("hits_total", {"page": page, "kind": kind}) == count
    assert value("hits_total", {"page": names.OTHER, "kind": names.OTHER}) == (overflowed or None)
    assert value(names.LABEL_SETS_OVERFLOWED, {names.LABEL_METRIC: "hits_total"}) == (overflowed or None)
    families = {family.name: family for family in text_string_to_metric_families(render(made))}
    assert len(families["hits"].samples if values else ()) == len(kept) + (overflowed > 0)


def test_number_of_labels(instruments: Instruments) -> None:
    """As many values as labels, or a sentence that lists them."""
    hits = instruments.counter("hits_total", "Hits.", ("page", "kind"))
    with pytest.raises(ValueError, match=r"\('page', 'kind'\)"):
        hits.labels("a")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda made: made.counter("orders", "x"), "orders_total"),
        (lambda made: made.gauge("x", "x", ("worker",)), "worker"),
        (lambda made: made.gauge("x", "x", ("a-b",)), "a-b"),
        (lambda made: made.gauge("x", "x", ("__name__",)), "__name__"),
        (lambda made: made.gauge("x", "x", ("a",), function=lambda: 1), "no labels"),
        (lambda made: made.histogram("x", "x", buckets=(2, 1)), "rise"),
        (lambda made: made.histogram("x", "x", buckets=()), "rise"),
        (lambda made: made.histogram("x", "x", ("le",)), "label le"),
        (lambda made: made.counter(names.LABEL_SETS_OVERFLOWED, "x"), "exists already"),
    ],
)
def test_definitions_that_cannot_work(instruments: Instruments, make: object, said: str) -> None:
    """A metric that could not be scraped is refused when it is made."""
    with pytest.raises(ConfigurationError, match=said):
        make(instruments)  # type: ignore[operator]


def test_hostile_label_values(instruments: Instruments) -> None:
    """Quotes, newlines, backslashes and lone surrogates survive or are replaced; the answer stays valid."""
    value = 'a"b\\c\nd'
    instruments.gauge("x", "x", ("v",)).labels(value).set(1)
    instruments.gauge("y", "y", ("v",)).labels("\ud800").set(1)
    families = {family.name: family for family in text_string_to_metric_families(render(instruments))}
    assert families["x"].samples[0].labels["v"] == value
    assert families["y"].samples[0].labels["v"] == "?"
    assert escape("plain") == "plain"


@pytest.mark.parametrize(
    ("value", "text"), [(float("inf"), "+Inf"), (float("-inf"), "-Inf"), (float("nan"), "NaN"), (1, "1.0")]
)
def test_special_numbers(value: float, text: str) -> None:
    """Infinities and NaN are spelled as Prometheus spells them."""
    assert format_value(value) == text


def test_threads_lose_nothing(instruments: Instruments) -> None:
    """Increments from many threads all count."""
    orders = instruments.counter("orders_total", "Orders.")
    took = instruments.histogram("took_seconds", "Took.")

    def work() -> None:
        for _ in range(2000):
            orders.inc()
            took.observe(0.1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert instruments.registry.get_sample_value("orders_total") == 16_000
    assert instruments.registry.get_sample_value("took_seconds_count") == 16_000


@pytest.mark.parametrize("content_type", [TEXT, OPENMETRICS])
def test_change_while_it_is_rendered(instruments: Instruments, content_type: str) -> None:
    """A value that changes while it is written down is written anew next time."""
    seen = 0

    def read() -> float:
        nonlocal seen
        seen += 1
        depth.set(0)  # as another thread would
        return seen

    depth = instruments.gauge("depth", "Depth.", function=read)
    for expected in ("1.0", "2.0"):
        assert f'\ndepth{{worker="0"}} {expected}\n' in render(instruments, content_type)


def test_gauge_whose_function_raises() -> None:
    """A gauge whose function raises is left out and counted, of the scrape and of the registry; all else is served."""
    with capture(FastAPI(), Settings(service_name="shop", extra_registries=())) as telemetry:
        made = telemetry._telemetry.instruments
        made.gauge("depth", "Depth.", function=lambda: 1 / 0)
        made.counter("orders_total", "Orders.").inc()
        errors = {names.LABEL_SIGNAL: "metrics"}
        assert 'orders_total{worker="0"} 1.0\n' in telemetry.metrics_text()
        assert telemetry.sample(names.INTERNAL_ERRORS, errors) == 1
        assert telemetry.sample("depth") is None
        assert telemetry.sample("orders_total") == 1


@pytest.mark.parametrize("openmetrics", [False, True])
def test_two_renderings_at_once(openmetrics: bool) -> None:
    """Each of two renderers gets the lines, and the slower one does not put old text back."""

    class Overtaken(Child):
        texts = iter(("old", "fresh"))
        second = ""

        def _render(self, *, openmetrics: bool) -> str:
            text = next(self.texts)
            if text == "old":  # as another thread would, in between
                self.second = self.lines("x", "0", openmetrics=openmetrics)
            return text

    child = Overtaken(())
    first = child.lines("x", "0", openmetrics=openmetrics)
    assert (first, child.second, child.lines("x", "0", openmetrics=openmetrics)) == ("old", "fresh", "fresh")
