"""What a scrape of 10,000 series does to the requests beside it."""

import gzip
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmarks import variants
from benchmarks.children import LOAD_CPU, Child
from benchmarks.estimates import Estimate, estimate
from benchmarks.rows import Row
from benchmarks.site import Case, Sample, Site

#: As Prometheus asks.
_HEADERS: Final = {
    "accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
    "accept-encoding": "gzip",
}
_INTERVAL_SECONDS: Final = 1.0
_SCRAPED: Final = "scraped"
_ALONE: Final = "not scraped"


class ScrapeError(Exception):
    """A scrape did not bring what it should."""


def run(
    site: Site, *, rate: int, pairs: int, seconds: int, told: Callable[[str], None]
) -> dict[str, tuple[list[Sample], list[float]]]:
    """
    Put load on one process, with and without scrapes in turn.

    Args:
        site: Where.
        rate: Requests a second.
        pairs: How many stretches with scrapes, and as many without.
        seconds: How long a stretch is.
        told: Told of each pair.

    Returns:
        The samples, and how long the scrapes took, by variant.
    """
    found: dict[str, tuple[list[Sample], list[float]]] = {}
    cases = [Case(label=variant.name, variant=variant) for variant in (variants.FILLED, variants.PFI_FILLED)]
    with site.serving(cases) as servers:
        for server in servers:
            _check(server.child)
            samples: list[Sample] = []
            scrapes: list[float] = []
            for pair in range(pairs):
                told(f"scrapes of 10,000 series, {server.case.variant.title}: {pair + 1} of {pairs}")
                for kind in (_ALONE, _SCRAPED) if pair % 2 else (_SCRAPED, _ALONE):
                    with _scraping(server.child, scrapes, active=kind == _SCRAPED):
                        sample = site.open_loop(server, pair, seconds, rate)
                    samples.append(sample.labelled(f"{server.case.label}, {kind}"))
            found[server.case.variant.name] = samples, scrapes
    return found


def row(found: dict[str, tuple[list[Sample], list[float]]]) -> Row:
    """p99.9 with scrapes, above that without."""
    return Row(
        measure="p99.9 above the control's, 10,000 series scraped each second",
        unit="milliseconds",
        bar=5.0,
        ours=_above_control(variants.FILLED.name, found[variants.FILLED.name][0]),
        peers={variants.PFI.title: _above_control(variants.PFI_FILLED.name, found[variants.PFI_FILLED.name][0])},
    )


def _above_control(label: str, samples: Sequence[Sample]) -> Estimate:
    tail = {(sample.label, sample.round): sample.load.p999_seconds for sample in samples}
    rounds = sorted({sample.round for sample in samples})
    pairs = [tail[f"{label}, {_SCRAPED}", at] - tail[f"{label}, {_ALONE}", at] for at in rounds]
    return estimate(pairs).scaled(1000)


def _check(child: Child) -> None:
    lines = _scrape(child).count(b"bench_series_total{")
    if lines != variants.SERIES:
        raise ScrapeError(f"A scrape brought {lines} of {variants.SERIES} series.")


def _scrape(child: Child) -> bytes:
    body = child.get("/metrics", _HEADERS)
    return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body


@contextmanager
def _scraping(child: Child, taken_seconds: list[float], *, active: bool) -> Iterator[None]:
    over = threading.Event()

    def scrape() -> None:
        os.sched_setaffinity(0, {LOAD_CPU})  # this thread alone
        while not over.wait(_INTERVAL_SECONDS):
            started = time.monotonic()
            _scrape(child)
            taken_seconds.append(time.monotonic() - started)

    thread = threading.Thread(target=scrape)
    if active:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if active:
            thread.join()
