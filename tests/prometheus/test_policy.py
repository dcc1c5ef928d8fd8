"""How a policy is read, and what is said about one that is wrong."""

from fractions import Fraction
from pathlib import Path

import pytest

from prometheus.durations import Clock, Duration, decimal
from prometheus.errors import PolicyError
from prometheus.read_policy import parse, read

COMMITTED = Path(__file__).parents[2] / "prometheus" / "policy.yml"

GOOD = """\
prometheus: {retention: 15d, scrape_interval: 5s, scrape_timeout: 4s, sample_limit: 1000}
links: {runbooks: "http://r", dashboards: "http://d/${dashboard}", traces: "http://t", logs: "http://l"}
services:
  shop:
    slo:
      period: 7d
      availability: 99.9%
      latency: {objective: "0.99", within: 500ms}
      edge: 99.9%
    edge: {haproxy_frontend: http, haproxy_backend: shop, probed: true}
    scaling:
      min_replicas: 1
      max_replicas: 8
      in_flight_per_replica: 3
      cpu: 70%
      scale_out_step: 2
      scale_in_cooldown: 1m
  worker:
    scaling:
      min_replicas: 1
      max_replicas: 4
      backlog: {metric: jobs, reported_by: shop, jobs_per_replica: 100}
"""


def test_a_policy_says_what_is_promised() -> None:
    """Shares are exact: nothing of 99.9 % is lost to floats."""
    policy = parse(GOOD)

    shop = policy.services["shop"]
    assert shop.objectives is not None
    assert shop.objectives.by_name() == {
        "availability": Fraction(999, 1000),
        "latency": Fraction(99, 100),
        "edge": Fraction(999, 1000),
    }
    assert shop.objectives.latency_bound == Duration(500)
    assert shop.scaling is not None
    assert shop.scaling.signals() == ("in_flight", "cpu")
    assert (shop.scaling.scale_out_step, shop.scaling.scale_in_step) == (2, 1)
    assert (str(shop.scaling.scale_out_cooldown), str(shop.scaling.scale_in_cooldown)) == ("15s", "1m")
    assert policy.services["worker"].identity == {"service": "worker"}


def test_the_committed_policy_is_good() -> None:
    """The file that everything else follows from."""
    assert set(read(COMMITTED).services) == {"shop", "payments", "worker", "autoscaler"}


WRONG = [
    ("availability: 99.9%", "availability: 90%", 7, "no outage could burn this budget 14.4 times too fast: 14.4 x 0.1"),
    ("availability: 99.9%", "availability: 93%", 7, "Promise more than 93.05%."),
    ("availability: 99.9%", "availability: 100%", 7, "'100%' is no share between 0 and 1; write 99.9% or 0.999."),
    ("availability: 99.9%", "availability: often", 7, "'often' is no share"),
    ("within: 500ms", "within: 400ms", 8, "400ms is no bucket of http_server_request_duration_seconds"),
    ("within: 500ms", "within: 400ms", 8, "The nearest is 500ms"),
    ("within: 500ms", "within: soon", 8, "'soon' is no duration; write one as 30s, 5m, 6h or 7d."),
    ("within: 500ms", "within: 0s", 8, "'0s' is no time at all"),
    ("period: 7d", "period: 30d", 6, "30d is not shorter than Prometheus' retention, 15d"),
    ("period: 7d", "period: 15d", 6, "15d is not shorter than Prometheus' retention, 15d"),
    ("period: 7d", "period: 3d", 6, "3d is not longer than the longest burn window, 3d"),
    ("max_replicas: 8", "max_replicas: 0", 13, "'0' is no whole number from 1 on."),
    (
        "min_replicas: 1\n      max_replicas: 8",
        "min_replicas: 9\n      max_replicas: 8",
        12,
        "9 is more than max_replicas, 8",
    ),
    ("cpu: 70%", "cpus: 70%", 15, "unknown key. Did you mean `cpu`? Known are `backlog`, `cpu`"),
    ("reported_by: shop", "reported_by: shpo", 22, "unknown service 'shpo'. Did you mean `shop`?"),
    ("metric: jobs", "metric: 'jobs{a=\"b\"}'", 22, "is no metric's name; write it without labels."),
    ("retention: 15d", "retention: 15d, retentoin: 3d", 1, "unknown key. Did you mean `retention`?"),
    ("scrape_timeout: 4s", "scrape_timeout: 6s", 1, "longer than scrape_interval, which Prometheus refuses."),
    (
        "scrape_interval: 5s",
        "scrape_interval: 30s",
        1,
        "30s is too long: alerts look at the last 30s, where there must be two",
    ),
    ("sample_limit: 1000", "sample_limit: 1e3", 1, "'1e3' is no whole number from 1 on."),
    ("${dashboard}", "${dashbord}", 2, "unknown placeholder ${dashbord}. Did you mean `dashboard`?"),
    ("${dashboard}", "$$ $", 2, "a $ that begins no ${name}; write $$ for the character itself."),
    ("probed: true", "probed: maybe", 10, "'maybe' is neither true nor false."),
    ("haproxy_frontend: http", 'haproxy_frontend: "a\\"b"', 10, "has characters other than letters"),
    ("    edge: {haproxy_frontend: http, haproxy_backend: shop, probed: true}\n", "", 9, "the service has no `edge:`"),
    (
        "      availability: 99.9%\n",
        "      availability: 99.9%\n      availability: 99%\n",
        8,
        "stands here twice; keep one.",
    ),
    ("      cpu: 70%\n", "      cpu: 70%\n      cpu_hold: [5m]\n", 16, "this must be a single value."),
    (
        "      cpu: 70%\n",
        "      cpu: 70%\n      cpu_hold: 10s\n",
        16,
        "too short to tell anything, with a scrape every 5s; 20s",
    ),
    ("scale_out_step: 2", "scale_in_after: 19s", 16, "too short to tell anything"),
    ("scale_out_step: 2", "scale_out_step: 0", 16, "'0' is no whole number from 1 on."),
    ("scale_in_cooldown: 1m", "scale_in_cooldown: a while", 17, "'a while' is no duration"),
    ("in_flight_per_replica: 3", "in_flight_per_replica: -3", 14, "'-3' is no number above zero."),
    (
        "      min_replicas: 1\n      max_replicas: 4\n",
        "      max_replicas: 4\n",
        19,
        "`min_replicas` is missing; add it.",
    ),
    ("      in_flight_per_replica: 3\n      cpu: 70%\n", "", 11, "nothing asks for replicas; add one of"),
    ("services:\n  shop:", "services:\n  'a b':", 4, "a service's name has letters, digits"),
    ("services:", "service:", 3, "unknown key. Did you mean `services`?"),
    ("{retention: 15d,", "[retention: 15d,", 1, "This is no YAML"),
    ("      period: 7d\n", "", 5, "`period` is missing; add it."),
]


@pytest.mark.parametrize(("good", "wrong", "line", "sentence"), WRONG)
def test_a_mistake_is_named_with_its_line_and_the_way_out(good: str, wrong: str, line: int, sentence: str) -> None:
    """Whoever reads it need not look anything up."""
    assert good in GOOD

    with pytest.raises(PolicyError) as refusal:
        parse(GOOD.replace(good, wrong, 1), "policy.yml")

    said = [text for text in str(refusal.value).splitlines() if text.startswith(f"policy.yml:{line}: ")]
    assert any(sentence in text for text in said), str(refusal.value)


def test_every_mistake_is_named_at_once() -> None:
    """In the order of the lines."""
    wrong = (
        GOOD.replace("period: 7d", "period: 30d").replace("within: 500ms", "within: 1ms").replace("cpu: 70%", "cpu: 7")
    )

    with pytest.raises(PolicyError) as refusal:
        parse(wrong)

    assert [problem.line for problem in refusal.value.problems] == [6, 8, 15]


@pytest.mark.parametrize("text", ["", "services\n", "- services\n"])
def test_what_is_no_policy_is_refused(text: str) -> None:
    """An empty file, a word, a list."""
    with pytest.raises(PolicyError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [("90s", "1m30s"), ("1w", "7d"), ("36h", "1d12h"), ("250ms", "250ms"), ("2500ms", "2s500ms"), ("30d", "30d")],
)
def test_durations_are_written_as_prometheus_writes_them(text: str, written: str) -> None:
    """The largest units first, weeks as days."""
    assert str(Duration.parse(text)) == written


def test_a_clock_makes_everything_shorter() -> None:
    """Also where PromQL wants seconds, and never nothing at all."""
    clock = Clock(Fraction(1, 20))

    assert (str(clock("5m")), str(clock("5s")), clock.seconds("1h")) == ("15s", "250ms", "180")
    assert str(Clock(Fraction(1, 10_000))("1s")) == "1ms"


def test_numbers_have_no_noise() -> None:
    """A float would say 0.014400000000000001."""
    assert decimal(Fraction("14.4") * Fraction("0.001")) == "0.0144"
