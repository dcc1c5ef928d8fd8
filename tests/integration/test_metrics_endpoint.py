"""`/metrics` of the running services, read by the parsers that others will read it with."""

import gzip
import subprocess
from collections.abc import Iterable

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from obslib import names
from tests.integration.running import RunningStack, eventually

#: What is looked at of each metric of calls.
CALL_LABELS = {
    names.HTTP_CLIENT_REQUEST_DURATION: (names.LABEL_METHOD, names.LABEL_STATUS_CODE, names.LABEL_SERVER_ADDRESS),
    names.DB_CLIENT_OPERATION_DURATION: (names.LABEL_DB_SYSTEM,),
    names.DB_CLIENT_CONNECTIONS: (names.LABEL_CONNECTION_STATE,),
}
SERVICES = ("shop-1", "payments", "worker-1")
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
TEXT = {"Accept": "text/plain; version=0.0.4"}


@pytest.fixture(params=SERVICES)
def metrics_url(request: pytest.FixtureRequest, stack: RunningStack) -> str:
    """`/metrics` of one service, after a request that left exemplars."""
    assert stack.order().status_code == 201
    return f"{stack.process_url(request.param).removesuffix('/metrics')}/metrics"


def parse_text(text: str) -> Iterable[Metric]:
    return text_families(text)


def parse_openmetrics(text: str) -> Iterable[Metric]:
    families: Iterable[Metric] = openmetrics_families(text)  # type: ignore[no-untyped-call] # it has no annotations
    return families


def sample_names(families: Iterable[Metric]) -> set[str]:
    return {sample.name for family in families for sample in family.samples}


def test_text_format_is_what_prometheus_client_reads(stack: RunningStack, metrics_url: str) -> None:
    """A scraper that asks for nothing special gets the text format, complete to the last line."""
    answer = stack.http.get(metrics_url, headers=TEXT)

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert names.TARGET_INFO in sample_names(parse_text(answer.text))


def test_openmetrics_is_what_prometheus_client_reads(stack: RunningStack, metrics_url: str) -> None:
    """A scraper that accepts OpenMetrics gets it, under the strict parser's eyes."""
    answer = stack.http.get(metrics_url, headers=OPENMETRICS)

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert names.TARGET_INFO in sample_names(parse_openmetrics(answer.text))


def test_both_formats_have_the_same_series(stack: RunningStack, metrics_url: str) -> None:
    """The format changes how series are written, not which there are."""
    text = sample_names(parse_text(stack.http.get(metrics_url, headers=TEXT).text))
    openmetrics = sample_names(parse_openmetrics(stack.http.get(metrics_url, headers=OPENMETRICS).text))

    assert text == openmetrics


def test_gzip_is_the_same_text_packed(stack: RunningStack, metrics_url: str) -> None:
    """A scraper that accepts gzip, as Prometheus does, gets fewer bytes for a document that reads as well."""
    with stack.http.stream("GET", metrics_url, headers={**OPENMETRICS, "Accept-Encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())

    assert answer.headers["content-encoding"] == "gzip"
    unpacked = gzip.decompress(packed).decode()
    assert len(packed) < len(unpacked)
    assert names.TARGET_INFO in sample_names(parse_openmetrics(unpacked))


def test_calls_are_counted_where_they_are_made(stack: RunningStack) -> None:
    """An order is a request to payments, statements and commands at the shop, and statements at the worker."""
    assert stack.order().status_code == 201

    def series(process: str) -> dict[str, set[tuple[str, ...]]]:
        url = f"{stack.process_url(process).removesuffix('/metrics')}/metrics"
        found: dict[str, set[tuple[str, ...]]] = {}
        for family in parse_text(stack.http.get(url, headers=TEXT).text):
            keys = CALL_LABELS.get(family.name, ())
            found[family.name] = {tuple(sample.labels[key] for key in keys) for sample in family.samples}
        return found

    def shops(metric: str) -> set[tuple[str, ...]]:
        """The series of whichever replica had the order."""
        return series("shop-1").get(metric, set()) | series("shop-2").get(metric, set())

    eventually(lambda: shops(names.DB_CLIENT_OPERATION_DURATION) == {("sqlite",), ("redis",)}, "statements, commands")
    eventually(
        lambda: series("worker-1").get(names.DB_CLIENT_OPERATION_DURATION) == {("sqlite",)}, "a job's statements"
    )
    assert ("PUT", "200", "127.0.0.1") in shops(names.HTTP_CLIENT_REQUEST_DURATION)
    assert {("used",), ("idle",)} <= shops(names.DB_CLIENT_CONNECTIONS)
    assert shops(names.ASYNCIO_EVENT_LOOP_LAG)
    worker = series("worker-1")
    assert names.PROCESS_MEMORY_LIMIT in worker
    assert names.ASYNCIO_EVENT_LOOP_LAG not in worker


def test_promtool_finds_nothing_to_complain_about(stack: RunningStack, metrics_url: str) -> None:
    """Names, types and help texts follow Prometheus' own rules."""
    text = stack.http.get(metrics_url, headers=TEXT).text
    promtool = stack.components["prometheus"].command("promtool")

    verdict = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)

    assert (verdict.returncode, verdict.stdout + verdict.stderr) == (0, "")


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/%6detrics", "/metrics/", "/faults", "/%66aults/x"])
def test_nothing_private_is_reached_through_haproxy(stack: RunningStack, path: str) -> None:
    """Metrics and faults are answered on the replica's own port only, however the path is spelled."""
    answer = stack.http.get(httpx.URL(stack.url).copy_with(raw_path=path.encode()))

    assert answer.status_code == 404
    assert names.TARGET_INFO not in answer.text


def test_prometheus_scrapes_all_of_it_under_its_own_names(stack: RunningStack) -> None:
    """Every process is a target, and `service` and `instance` are on `up` as well as on the service's own series."""
    expected = {
        ("shop", "shop-1"),
        ("shop", "shop-2"),
        ("payments", "payments"),
        ("worker", "worker-1"),
        ("haproxy", "haproxy"),
        ("jaeger", "jaeger"),
        ("prometheus", "prometheus"),
        ("alertmanager", "alertmanager"),
        ("probe", "probe"),
    }

    def up() -> set[tuple[str, str]]:
        found = [entry["metric"] for entry in stack.query("up == 1")]
        return {(labels[names.LABEL_SERVICE], labels[names.LABEL_INSTANCE]) for labels in found}

    eventually(lambda: up() == expected, f"all of {expected} are up")
    for entry in stack.query(f'{names.TARGET_INFO}{{job="services"}}'):
        labels = entry["metric"]
        assert labels[names.LABEL_SERVICE] == labels["service_name"]
        assert labels[names.LABEL_INSTANCE] == labels["service_instance_id"]
