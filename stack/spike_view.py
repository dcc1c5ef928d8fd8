"""A spike as it goes: what the shop is asked for and how it answers, how many replicas it has, and why."""

import time
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self

import httpx

from obslib import names
from prometheus.durations import Clock
from prometheus.read_policy import read
from stack import control
from stack.processes import SHOP
from stack.state import ROOT, StateDirectory
from stack.status import StackStatus

_ANSWER_SECONDS: Final = 2.0
_WINDOW: Final = "20s"
# Replicas are given up after minutes in which fewer were enough, one step after the other.
_LONGEST_RECOVERY: Final = "30m"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """
    What there is at one moment; None where nobody says.

    Args:
        seconds: since the spike began.
        is_over: whether all of its requests have been sent.
        running: replicas there are.
        target: replicas that were ordered.
        desired: replicas that the rules ask for.
        requests_rps: answered requests, over a short window, as the three that follow.
        p95_seconds: within which 95 % of them were answered.
        errors_rps: answers of 500 and above.
        said: the autoscaler's last decision, a sentence.

    """

    seconds: float
    is_over: bool
    running: int
    target: int
    desired: float | None = None
    requests_rps: float | None = None
    p95_seconds: float | None = None
    errors_rps: float | None = None
    said: str = ""

    def differs(self, other: "Moment") -> bool:
        """Whether something happened between them."""
        steady = {"seconds": 0.0, "requests_rps": None, "p95_seconds": None, "errors_rps": None}
        return replace(self, **steady) != replace(other, **steady)  # type: ignore[arg-type] # each is what its field may be


class SpikeView:
    """
    Looks at the shop during a spike and until it has recovered.

    Args:
        control_socket: the supervisor's.
        prometheus_url: who knows the rates; "" when there is none.
        autoscaler_url: who says why it scales; "" when nobody does.
        duration_seconds: for how long requests are sent.
        clock: that of the stack's rules.

    """

    def __init__(
        self, control_socket: Path, prometheus_url: str, autoscaler_url: str, duration_seconds: float, clock: Clock
    ) -> None:
        self._control_socket = control_socket
        self._prometheus_url = prometheus_url
        self._autoscaler_url = autoscaler_url
        self._duration_seconds = duration_seconds
        self._window = clock(_WINDOW)
        self._longest_seconds = duration_seconds + float(clock(_LONGEST_RECOVERY).seconds)
        self._http = httpx.Client(trust_env=False, timeout=_ANSWER_SECONDS)
        self._began = time.monotonic()
        self._first_running = self._replicas()["running"]
        objectives = read(ROOT / "prometheus" / "policy.yml").services[SHOP].objectives
        assert objectives is not None
        assert objectives.latency_bound is not None
        self._bound_seconds = float(objectives.latency_bound.seconds)

    @classmethod
    def of(cls, status: StackStatus, state: StateDirectory, duration_seconds: float) -> Self:
        """
        The view of a stack that runs.

        Args:
            status: which parts of it there are.
            state: where its socket is.
            duration_seconds: for how long requests are sent.

        """
        urls = {name: process.url for name in ("prometheus", "autoscaler") if (process := status.process(name))}
        return cls(
            state.control_socket,
            urls.get("prometheus", ""),
            urls.get("autoscaler", ""),
            duration_seconds,
            Clock(Fraction(status.time_scale).limit_denominator()),
        )

    def close(self) -> None:
        self._http.close()

    def look(self) -> Moment:
        """
        The present.

        Raises:
            StackError: the supervisor does not answer.

        """
        seconds = time.monotonic() - self._began
        replicas = self._replicas()
        duration, service = names.HTTP_SERVER_REQUEST_DURATION, f'{names.LABEL_SERVICE}="{SHOP}"'
        failed = f'{service},{names.LABEL_STATUS_CODE}=~"5.."'
        return Moment(
            seconds=seconds,
            is_over=seconds > self._duration_seconds,
            running=replicas["running"],
            target=replicas["target"],
            desired=self._value(f"service:scale_desired:replicas{{{service}}}"),
            requests_rps=self._value(f"sum(rate({duration}_count{{{service}}}[{self._window}]))"),
            p95_seconds=self._value(
                f"histogram_quantile(0.95, sum by (le) (rate({duration}_bucket{{{service}}}[{self._window}])))"
            ),
            errors_rps=self._value(f"sum(rate({duration}_count{{{failed}}}[{self._window}])) or vector(0)"),
            said=self._decision(),
        )

    def has_recovered(self, moment: Moment) -> bool:
        """Whether the spike is over, its answers are fast again, and its replicas are gone; or it takes too long."""
        if moment.seconds > self._longest_seconds:
            return True
        is_fast = moment.p95_seconds is None or moment.p95_seconds <= self._bound_seconds
        is_settled = moment.running == moment.target
        is_small = moment.running <= self._first_running or not self._autoscaler_url
        return moment.is_over and is_fast and is_settled and is_small

    def _replicas(self) -> dict[str, Any]:  # Any: JSON
        found: dict[str, Any] = control.ask(self._control_socket, {"command": "replicas"})["services"][SHOP]
        return found

    def _value(self, query: str) -> float | None:
        if not self._prometheus_url:
            return None
        try:
            answer = self._http.get(f"{self._prometheus_url}/api/v1/query", params={"query": query})
            answer.raise_for_status()
            result = answer.json()["data"]["result"]
        except httpx.HTTPError:
            return None
        value = float(result[0]["value"][1]) if result else None
        # NaN is what a quantile of nothing is.
        return value if value == value else None  # noqa: PLR0124 - the one number that differs from itself

    def _decision(self) -> str:
        if not self._autoscaler_url:
            return ""
        try:
            answer = self._http.get(f"{self._autoscaler_url}/v1/decisions", params={"service": SHOP, "limit": 1})
            answer.raise_for_status()
            decisions = answer.json()
        except httpx.HTTPError:
            return "The autoscaler does not answer."
        return f"{decisions[0]['direction']}: {decisions[0]['reason']}" if decisions else ""
