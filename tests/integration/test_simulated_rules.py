"""The simulation's model of the scaling rules against the generated rules, evaluated by the real promtool."""

import math
import os
import random
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from autoscaler.simulate.counter import Counter
from autoscaler.simulate.rules import BACKLOG, CPU, IN_FLIGHT, Past, Reported, Rules, Scraped
from obslib import names
from prometheus import foreign, recorded
from prometheus.cases.case import series, up, written
from prometheus.durations import Clock
from prometheus.files import everything
from prometheus.policy import Policy, Service
from prometheus.read_policy import parse
from stack.components.catalogue import Component

pytestmark = pytest.mark.computes

# Windows that are no multiple of five seconds: Prometheus 2 counts a sample at a window's left edge, Prometheus 3 does not.
POLICY: Final = """\
prometheus: {retention: 15d, scrape_interval: 5s, scrape_timeout: 4s, sample_limit: 1000}
links: {runbooks: "http://r", dashboards: "http://d", traces: "http://t", logs: "http://l"}
services:
  shop:
    edge: {haproxy_frontend: http, haproxy_backend: shop}
    scaling: {min_replicas: 1, max_replicas: 8, in_flight_per_replica: 3, cpu: 70%, cpu_hold: 58s}
  worker:
    scaling:
      min_replicas: 2
      max_replicas: 5
      cpu: 60%
      cpu_hold: 28s
      backlog: {metric: jobs, reported_by: shop, jobs_per_replica: 100}
  plain:
    scaling: {min_replicas: 1, max_replicas: 10000, in_flight_per_replica: "2.5"}
  hot:
    namespace: prod
    scaling: {min_replicas: 1, max_replicas: 6, in_flight_per_replica: 7, cpu: 80%, cpu_hold: 43s}
  crowd:
    scaling: {min_replicas: 1, max_replicas: 40, in_flight_per_replica: 3, cpu: 60%, cpu_hold: 28s}
"""
#: Of the crowd; others have up to five.
CROWD: Final = range(9, 13)
STEPS: Final = 60
EVERY_SECONDS: Final = 5
SEEDS: Final = range(24)
STALE: Final = "stale"
NOT_FINITE: Final = {"0": math.nan, "1": math.inf}
#: What a CPU asks for depends, in its last digit, on the order in which numbers were added up.
EXACT: Final = (
    f'{{__name__=~"service:scale_.+|{recorded.UP}", __name__!~"{recorded.SCALE_CPU_NEEDED}|{recorded.SCALE_DEMAND}"}}'
)
DEMAND: Final = f'{recorded.SCALE_DEMAND}{{signal!="{CPU}"}}'
#: No part of a power of ten: a decimal number would lie just between two of them at times.
TICK: Final = 0.0000017
CPU_DEMAND: Final = f'round({recorded.SCALE_DEMAND}{{signal="{CPU}"}}, {TICK:.7f})'
CPU_NEEDED: Final = f"round({recorded.SCALE_CPU_NEEDED}, {TICK:.7f})"
Token = float | str | None  # a sample, `stale`, or none this time


@dataclass
class Story:
    """What is written of each series, step by step."""

    tokens: dict[str, list[Token]] = field(default_factory=dict)

    def seen(self, key: str, step: int) -> float | None:
        """What an evaluation reads: the newest sample, unless the series was seen to end."""
        for token in reversed(self.tokens.get(key, [])[: step + 1]):
            if token is not None:
                return None if isinstance(token, str) else token
        return None

    def broken(self, key: str, step: int) -> list[float]:
        """NaN or Inf, where a division by zero makes it of this series' broken twin."""
        token = self.seen(broken_twin(key), step)
        return [] if token is None else [NOT_FINITE[f"{token:g}"]]

    def written(self) -> list[dict[str, str]]:
        return [{"series": key, "values": " ".join(map(as_text, tokens))} for key, tokens in self.tokens.items()]


def as_text(token: Token) -> str:
    return "_" if token is None else token if isinstance(token, str) else repr(token)


def broken_twin(key: str) -> str:
    metric, _, labels = key.partition("{")
    return f'divided_by_zero{{metric="{metric}", {labels.replace("}", "", 1)}, part="broken"}}'


class Teller:
    """Makes up stories: spikes, noise, lost samples, ended series, values that are no numbers."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.story = Story()

    def gauge(self, key: str, highest: float) -> None:
        """A value that wanders, jumps, is sometimes negative, and has gaps and ends."""
        drawn, value, tokens = self._random, self._random.uniform(0, highest), list[Token]()
        while len(tokens) < STEPS:
            kind = drawn.random()
            length = drawn.randint(1, 20)
            if kind < 0.1:
                tokens += [STALE, *[None] * length]
            elif kind < 0.2:
                tokens += [None] * length
            elif kind < 0.22:
                tokens += [-1.0]
            else:
                value = drawn.choice((value, drawn.uniform(0, highest), 0.0))
                tokens += [float(max(0, round(value + drawn.gauss(0, value / 10)))) for _ in range(length)]
        self.story.tokens[key] = tokens[:STEPS]

    def breakage(self, key: str) -> None:
        """Sometimes the value is no number for a while."""
        if self._random.random() < 0.8:
            return
        begin, length = self._random.randrange(STEPS), self._random.randint(1, 15)
        tokens: list[Token] = [None] * begin + [float(self._random.randint(0, 1))] * length + [STALE]
        self.story.tokens[broken_twin(key)] = tokens[:STEPS]

    def counter(self, key: str, cores: float) -> None:
        """A counter that never falls, with gaps and ends; large from the start."""
        drawn, tokens = self._random, list[Token]()
        value, pace = drawn.uniform(1000, 2000), cores
        begins = drawn.choice((0, 0, 0, drawn.randrange(STEPS)))
        tokens += [None] * begins
        while len(tokens) < STEPS:
            if drawn.random() < 0.06:
                lost = drawn.randint(1, 12)
                tokens += [drawn.choice((STALE, None)), *[None] * lost]
                value += pace * EVERY_SECONDS * lost
            pace = drawn.choice((pace,) * 9 + (drawn.uniform(0, 1),))
            value += pace * EVERY_SECONDS * drawn.uniform(0.9, 1.1)
            tokens.append(round(value, 3))
        self.story.tokens[key] = tokens[:STEPS]

    def steps(self, key: str, choices: Sequence[float], longest: int) -> None:
        """A value that stays for some time, and may end."""
        drawn, tokens = self._random, list[Token]()
        while len(tokens) < STEPS:
            if drawn.random() < 0.06:
                tokens += [STALE, *[None] * drawn.randint(0, 5)]
            tokens += [float(drawn.choice(choices))] * drawn.randint(1, longest)
        self.story.tokens[key] = tokens[:STEPS]

    def always(self, key: str, value: float) -> None:
        self.story.tokens[key] = [value] * STEPS

    def calm(self) -> bool:
        """Whether nothing of a kind goes wrong this time: without it, signals would hardly ever be complete."""
        return self._random.random() < 0.5

    def number(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def service(self, service: Service) -> None:
        """All that the replicas of a service and those around it report."""
        few, many = replicas_of(service)
        replicas, scaling = self.number(few, many), service.scaling
        assert scaling is not None
        calm_up, calm_load, calm_cpu = self.calm(), self.calm(), self.calm()
        for instance in instances(service, replicas):
            if calm_up:
                self.always(up(service, instance), 1.0)
            else:
                self.steps(up(service, instance), (1, 1, 1, 1, 0), 30)
            for worker in workers():
                if scaling.in_flight_per_replica is not None:
                    self._load(active(service, instance, worker), calm=calm_load)
                if scaling.cpu is not None:
                    self.counter(cpu(service, instance, worker), 0.65 if calm_cpu else 0.3)
            if scaling.cpu is not None and not self.calm():
                self.steps(limit(service, instance), (0.5, 1.0, 4.0), 40)
        self._whoever_counts(service, replicas)
        balancers = [queue(service, name) for name in ("haproxy", "standby")] if service.edge is not None else []
        for key in balancers:
            self._load(key, calm=calm_load)
        for worker in workers() if scaling.backlog is not None else ():
            self._load(jobs(service, worker), calm=calm_load, highest=900)

    def _whoever_counts(self, service: Service, replicas: int) -> None:
        """The autoscaler, Kubernetes or nobody says how many replicas there are; sometimes nobody knows of any."""
        near = (replicas, replicas, replicas + 1)
        whom = self.number(0, 2)
        if whom == 1:
            self.steps(autoscaler(service), near, 25)
        elif whom == 2:
            self.steps(kube(service), (*near, 0), 25)
        if not self.calm():
            self._vanish(
                [*(up(service, name) for name in instances(service, replicas)), autoscaler(service), kube(service)]
            )

    def _vanish(self, keys: Sequence[str]) -> None:
        """Nobody knows of any replica for a while."""
        begin, length = self.number(0, STEPS - 1), self.number(0, 8)
        for key in keys:
            if key in self.story.tokens:
                self.story.tokens[key][begin : begin + length + 1] = [STALE, *[None] * length]
                self.story.tokens[key] = self.story.tokens[key][:STEPS]

    def _load(self, key: str, *, calm: bool, highest: float = 9) -> None:
        if calm:
            self.steps(key, (0, 1, 2, 3, highest), 8)
            self.story.tokens[key] = [0.0 if token in (STALE, None) else token for token in self.story.tokens[key]]
        else:
            self.gauge(key, highest)
            self.breakage(key)


def replicas_of(service: Service) -> tuple[int, int]:
    """At least, at most."""
    return (CROWD[0], CROWD[-1]) if service.name == "crowd" else (1, 5)


def instances(service: Service, replicas: int) -> list[str]:
    return [f"{service.name}-{number}" for number in range(1, replicas + 1)]


def workers() -> tuple[str, str]:
    return ("0", "1")


def active(service: Service, instance: str, worker: str) -> str:
    return series(names.HTTP_SERVER_ACTIVE_REQUESTS, service, instance).replace('worker="0"', f'worker="{worker}"')


def cpu(service: Service, instance: str, worker: str) -> str:
    return series(foreign.PROCESS_CPU, service, instance).replace('worker="0"', f'worker="{worker}"')


def limit(service: Service, instance: str) -> str:
    return series(names.PROCESS_CPU_LIMIT, service, instance)


def jobs(service: Service, worker: str) -> str:
    assert service.scaling is not None
    assert service.scaling.backlog is not None
    reporter = Service(name=service.scaling.backlog.reported_by)
    return series(service.scaling.backlog.metric, reporter).replace('worker="0"', f'worker="{worker}"')


def queue(service: Service, balancer: str) -> str:
    assert service.edge is not None
    return written(foreign.HAPROXY_BACKEND_QUEUE, service="haproxy", instance=balancer, proxy=service.edge.backend)


def autoscaler(service: Service) -> str:
    return written(foreign.AUTOSCALER_REPLICAS, **service.identity, instance="autoscaler")


def kube(service: Service) -> str:
    return written(
        foreign.KUBE_REPLICAS,
        **{**({"namespace": service.namespace} if service.namespace else {}), "deployment": service.name},
    )


class Replay:
    """Reads a story as Prometheus would, and gives it to the model."""

    def __init__(self, service: Service, policy: Policy, story: Story) -> None:
        assert service.scaling is not None
        self._service, self._story = service, story
        self._rules = Rules(service, policy.server, Clock())
        self._past = Past()
        self._counters: dict[str, Counter] = {}
        self._instances = instances(service, replicas_of(service)[1])

    def evaluate(self, step: int) -> dict[tuple[str, str], float | None]:
        return self._rules.record(self._scraped(step), self._past, step * EVERY_SECONDS).series()

    def _scraped(self, step: int) -> Scraped:
        service, story = self._service, self._story
        ups = [value for name in self._instances if (value := story.seen(up(service, name), step)) is not None]
        reported = story.seen(autoscaler(service), step)
        balancers = [queue(service, name) for name in ("haproxy", "standby")] if service.edge is not None else []
        backlog = [jobs(service, worker) for worker in workers()] if service.scaling and service.scaling.backlog else []
        usable = [self._usable(name, step) for name in self._instances]
        return Scraped(
            reported=reported if reported is not None else story.seen(kube(service), step),
            discovered=len(ups),
            up=ups.count(1.0),
            in_flight=[
                Reported(value=sum(values))
                for name in self._instances
                if (values := self._all([active(service, name, worker) for worker in workers()], step))
            ],
            queue=self._all(balancers, step),
            cpu=[Reported(value=sum(rates)) for name in self._instances if (rates := self._rates(name, step))],
            cpu_usable=sum(usable) if any(usable) else None,
            backlog=[Reported(value=value) for value in self._all(backlog, step)],
        )

    def _all(self, keys: Sequence[str], step: int) -> list[float]:
        plain = [value for key in keys if (value := self._story.seen(key, step)) is not None]
        return plain + [value for key in keys for value in self._story.broken(key, step)]

    def _rates(self, instance: str, step: int) -> list[float]:
        now, rates = step * EVERY_SECONDS, []
        for key in (cpu(self._service, instance, worker) for worker in workers()):
            counter = self._counters.setdefault(key, Counter(self._rules.hold_seconds))
            token = self._story.tokens.get(key, [None] * STEPS)[step]
            if isinstance(token, float):
                counter.scraped(now, token)
            rate = counter.rate(now)
            if rate is not None:
                rates.append(rate)
        return rates

    def _usable(self, instance: str, step: int) -> float:
        keys = [cpu(self._service, instance, worker) for worker in workers()]
        processes = sum(self._story.seen(key, step) is not None for key in keys)
        most = self._story.seen(limit(self._service, instance), step)
        return most if processes and most is not None and most < processes else processes


def constants(service: Service) -> dict[tuple[str, str], float]:
    """What a policy says, recorded at each evaluation."""
    scaling = service.scaling
    assert scaling is not None
    targets = {IN_FLIGHT: scaling.in_flight_per_replica, CPU: scaling.cpu}
    targets[BACKLOG] = scaling.backlog.jobs_per_replica if scaling.backlog else None
    return {
        (recorded.SCALE_MIN, ""): scaling.min_replicas,
        (recorded.SCALE_MAX, ""): scaling.max_replicas,
        (recorded.SCALE_DEMAND_EXPECTED, ""): len(scaling.signals()),
        **{(recorded.SCALE_TARGET, name): float(target) for name, target in targets.items() if target is not None},
    }


def rounded(value: float) -> float:
    return math.floor(value * (1 / TICK) + 0.5) / (1 / TICK)


def expectations(policy: Policy, values: Mapping[str, Mapping[tuple[str, str], float | None]], step: int) -> list[Any]:
    """Every recorded series at one evaluation, and that there are no others."""
    found: dict[str, list[Any]] = {query: [] for query in (EXACT, DEMAND, CPU_DEMAND, CPU_NEEDED)}
    for service in policy.scaling():
        identity = ", ".join(f'{label}="{value}"' for label, value in service.identity.items())
        for (name, signal), value in {**values[service.name], **constants(service)}.items():
            if value is None:
                continue
            labels = f'{identity}, signal="{signal}"' if signal else identity
            if name == recorded.SCALE_CPU_NEEDED:
                found[CPU_NEEDED].append({"labels": f"{{{labels}}}", "value": rounded(value)})
            elif (name, signal) == (recorded.SCALE_DEMAND, CPU):
                found[CPU_DEMAND].append({"labels": f"{{{labels}}}", "value": rounded(value)})
            else:
                query = DEMAND if name == recorded.SCALE_DEMAND else EXACT
                found[query].append({"labels": f"{name}{{{labels}}}", "value": float(value)})
    at = f"{step * EVERY_SECONDS}s"
    return [{"expr": query, "eval_time": at, "exp_samples": samples} for query, samples in found.items()]


def case(policy: Policy, seed: int) -> tuple[dict[str, Any], set[tuple[str, str, bool]]]:
    """One promtool test with the model's values, and which series had a value and which had none."""
    teller = Teller(seed)
    for service in policy.scaling():
        teller.service(service)
    replays = {service.name: Replay(service, policy, teller.story) for service in policy.scaling()}
    checks: list[Any] = []
    kinds: set[tuple[str, str, bool]] = set()
    for step in range(STEPS):
        values = {name: replay.evaluate(step) for name, replay in replays.items()}
        checks += expectations(policy, values, step)
        kinds |= {(name, signal, v is None) for found in values.values() for (name, signal), v in found.items()}
    return {
        "name": f"seed {seed}",
        "interval": f"{EVERY_SECONDS}s",
        "input_series": teller.story.written(),
        "promql_expr_test": checks,
    }, kinds


def write_cases(policy: Policy, directory: Path, seeds: Sequence[int]) -> set[tuple[str, str, bool]]:
    """Write the rules, and each seed's test into a file of its own; which series had a value and which had none."""
    for path, text in everything(policy, Clock()).items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    written_once = yaml.load((directory / "tests" / "scaling.yml").read_text(), yaml.CSafeLoader)
    kinds: set[tuple[str, str, bool]] = set()
    for seed in seeds:
        test, seen = case(policy, seed)
        kinds |= seen
        document = {**written_once, "rule_files": [*written_once["rule_files"]], "tests": [test]}
        (directory / "tests" / f"seed-{seed}.yml").write_text(yaml.dump(document, Dumper=yaml.CSafeDumper))
    return kinds


def ask(promtool: Component, directory: Path, seed: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [promtool.command("promtool"), "test", "rules", f"seed-{seed}.yml"],
        cwd=directory / "tests",
        env={**os.environ, **promtool.environment()},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def promtool(components: Mapping[str, Component]) -> Component:
    return components["prometheus"]


def test_the_model_records_what_the_generated_rules_record(promtool: Component, tmp_path: Path) -> None:
    """Every series at every evaluation, for four services and two dozen made-up stories of each."""
    kinds = write_cases(parse(POLICY), tmp_path, SEEDS)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = list(pool.map(lambda seed: ask(promtool, tmp_path, seed), SEEDS))

    failed = [answer.stdout + answer.stderr for answer in answers if answer.returncode]
    assert not failed, f"{len(failed)} of {len(SEEDS)}: {failed[0][:4000]}"
    # The stories are worth telling: each series was there at times, and at times was not.
    names_seen = {(name, signal) for name, signal, _ in kinds}
    assert kinds == {(name, signal, absent) for name, signal in names_seen for absent in (True, False)}


@pytest.mark.parametrize(
    ("expression", "instead"),
    [
        ("1.1 * service", "1.2 * service"),
        (">= on (namespace, service) group_left () service:up:count", "> on (namespace, service) group_left () 0 * service:up:count"),
        ("service:scale_wanted:replicas > on (namespace, service) (service:scale_desired:replicas", "service:scale_wanted:replicas < on (namespace, service) (service:scale_desired:replicas"),
        ("changes(service:scale_running:replicas", "0 * changes(service:scale_running:replicas"),
        ("[58s]", "[88s]"),
    ],
)  # fmt: skip
def test_rules_that_differ_from_the_model_are_found(
    promtool: Component, tmp_path: Path, expression: str, instead: str
) -> None:
    """The comparison can fail: another tolerance, no completeness, no hold of missing data, other windows."""
    seeds = range(4)
    write_cases(parse(POLICY), tmp_path, seeds)
    path = tmp_path / "rules" / "scaling.yml"
    text = path.read_text()
    assert expression in text
    path.write_text(text.replace(expression, instead))

    assert any("FAILED" in (answer := ask(promtool, tmp_path, seed)).stdout + answer.stderr for seed in seeds)
