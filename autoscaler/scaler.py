"""One service's loop: woken, look, decide, order, say why. It keeps nothing that a restart would lose for long."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, StatusCode

import obslib
from autoscaler.actuators import Actuator, ActuatorError, Replicas
from autoscaler.decide import Decision, Direction, Override, Reason, Signals, State, decide, last_rise
from autoscaler.journal import Entry, Journal
from autoscaler.limits import Limits
from autoscaler.metrics import Metrics
from autoscaler.prometheus_api import PrometheusApi, PrometheusError
from autoscaler.wakes import TIMED_PATHS, Path, Wake
from prometheus.policy import Service

log = obslib.get_logger(__name__)

_ORDER_SECONDS: Final = 10.0
_SHORTEST_RETRY_SECONDS: Final = 2.0
_LONGEST_RETRY_SECONDS: Final = 60.0
#: An order that has led to nothing for so long is given again: whoever took it may have forgotten it.
_FORGOTTEN_SECONDS: Final = 90.0
#: Every further reason for one look is counted and not linked: there may be thousands.
_LINKED_WAKES: Final = 16
#: After so many evaluations the rules count the replicas of a step out; a rise after that is somebody else's.
_COUNTED_SAMPLES: Final = 3
_AGAIN_AFTER_REASONS: Final = {Reason.DEBOUNCE, Reason.COOLDOWN, Reason.ACTUATOR_BACKOFF}


class Scaler:
    """
    Keeps one service at its number of replicas.

    Args:
        service: its policy.
        limits: the same in the units of deciding.
        prometheus: who knows the demand.
        actuator: who starts and stops replicas.
        journal: where decisions are kept.
        metrics: where they are counted.
        tracer: makes their spans.
        clock: seconds since the epoch.

    """

    def __init__(
        self,
        service: Service,
        limits: Limits,
        prometheus: PrometheusApi,
        actuator: Actuator,
        journal: Journal,
        metrics: Metrics,
        tracer: trace.Tracer,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.service = service
        self.limits = limits
        self.replicas: Replicas | None = None
        self.override: Override | None = None
        self._prometheus = prometheus
        self._actuator = actuator
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._tracer = tracer
        self._wakes: list[Wake] = []
        #: Those that a look has put off: the next one answers them, too.
        self._put_off: list[Wake] = []
        self._woken = asyncio.Event()
        self._ordered_at: dict[Direction, float] = {}
        self._restored = False
        self._failures = 0
        self._retry_at: float | None = None
        self._outstanding: tuple[int, float] | None = None
        self._prometheus_trouble = ""
        self._actuator_trouble = ""
        self._again: asyncio.TimerHandle | None = None

    def wake(self, wake: Wake) -> None:
        """Look soon. However many reasons come before the next look, it looks once."""
        self._metrics.woken(self.service.name, wake.path)
        if len(self._wakes) < _LINKED_WAKES:
            self._wakes.append(wake)
        self._woken.set()

    def order(self, override: Override | None) -> None:
        """Take a person's order, or forget it, from the next look on."""
        self.override = override
        # A later look must not restore an older one.
        self._restored = True
        self._metrics.overridden(self.service.name, override, self._clock())
        if override is not None:
            left = max(0.0, override.until_seconds - self._clock())
            asyncio.get_running_loop().call_later(left, self._wake_again)

    async def run(self) -> None:
        """Look whenever there is a reason, for ever. What goes wrong in one look does not prevent the next."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            wakes, self._wakes = self._wakes, []
            try:
                await self.look(wakes)
            except Exception:
                log.exception("look_failed", scaled_service=self.service.name)

    async def keep_counting(self) -> None:
        """Say how many replicas there are as often as the rules, which divide by that, are evaluated; for ever."""
        while True:
            await asyncio.sleep(self.limits.sample_seconds)
            try:
                await self._count()
            except Exception:
                log.exception("count_failed", scaled_service=self.service.name)

    async def look(self, wakes: list[Wake]) -> Decision:
        """
        Look once: decide, and order what was decided.

        Args:
            wakes: why.

        """
        started_ns = time.time_ns()
        state = await self._state()
        now = self._clock()
        decision = decide(state, self.limits, now)
        self._metrics.decided(self.service.name, decision, state.replicas.target if state.replicas else None)
        answered = [*self._put_off, *wakes][:_LINKED_WAKES]
        self._put_off = []
        if decision.reason in _AGAIN_AFTER_REASONS:
            self._put_off = [wake for wake in answered if wake.path is Path.ALERT]
            self._look_again()
        if self._journal.is_news(self.service.name, state, decision):
            is_ordered = await self._carry_out(decision, state, answered, now, started_ns)
            if is_ordered and decision.direction is Direction.OUT:
                self._time_reaction(wakes)
        else:
            self._journal.again(self.service.name, now)
        await self._remind(decision, now)
        return decision

    def _look_again(self) -> None:
        """Look when the next sample is there, though nobody else may wake us then."""
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_later(self.limits.sample_seconds, self._wake_again)

    def _wake_again(self) -> None:
        self.wake(Wake(path=Path.AGAIN, received_seconds=time.monotonic()))

    async def _state(self) -> State:
        await self._count()
        now = self._clock()
        signals = await self._signals(now)
        if self.override is not None and now >= self.override.until_seconds:
            log.info("override_expired", scaled_service=self.service.name)
            self.order(None)
        return State(
            replicas=self.replicas,
            silent=self._actuator_trouble,
            signals=signals,
            override=self.override,
            ordered_out_at=self._stepped_out_at(signals),
            ordered_in_at=self._ordered_at.get(Direction.IN),
            retry_at=self._retry_at,
        )

    def _stepped_out_at(self, signals: Signals) -> float | None:
        """When replicas were last added, by this process, the one before it, or somebody else."""
        own, rise = self._ordered_at.get(Direction.OUT), last_rise(signals.running)
        if own is None or (rise is not None and rise > own + _COUNTED_SAMPLES * self.limits.sample_seconds):
            return rise
        return own

    async def _count(self) -> None:
        self.replicas = await self._replicas(self._clock())
        self._metrics.running(self.service.name, self.replicas.running if self.replicas else None)

    async def _replicas(self, now: float) -> Replicas | None:
        asked_after = self._outstanding
        try:
            async with asyncio.timeout(_ORDER_SECONDS):
                replicas = await self._actuator.replicas(self.service.name)
        except (ActuatorError, TimeoutError) as error:
            self._actuator_says(str(error) or f"The actuator did not answer within {_ORDER_SECONDS:g} s.")
            return None
        self._actuator_says("")
        if self._outstanding is asked_after:  # what was asked for before an order says nothing about it
            self._settle(replicas, now)
        return replicas

    def _actuator_says(self, trouble: str) -> None:
        """Log what is wrong with the actuator when that changes; nothing is wrong without a sentence."""
        if trouble and trouble != self._actuator_trouble:
            log.error("actuator_silent", scaled_service=self.service.name, reason=trouble)
        elif self._actuator_trouble and not trouble:
            log.info("actuator_back", scaled_service=self.service.name)
        self._actuator_trouble = trouble

    def _settle(self, replicas: Replicas, now: float) -> None:
        """See what has become of the last order."""
        if self._outstanding is None:
            return
        ordered, _ = self._outstanding
        if replicas.target != ordered and not replicas.error:
            self._outstanding = None  # somebody else has ordered since
            return
        if replicas.running != replicas.target:
            return
        self._outstanding = None
        if replicas.error and replicas.running != ordered:
            self._failed(replicas.error, now)
        else:
            self._failures = 0
            self._retry_at = None

    def _failed(self, sentence: str, now: float) -> None:
        self._failures += 1
        wait = min(_SHORTEST_RETRY_SECONDS * 2 ** (self._failures - 1), _LONGEST_RETRY_SECONDS)
        self._retry_at = now + wait
        self._metrics.actuator_failed(self.service.name)
        log.error("order_failed", scaled_service=self.service.name, reason=sentence, retry_after_seconds=wait)

    async def _signals(self, now: float) -> Signals:
        limits = self.limits
        try:
            if not self._restored:
                override = await self._prometheus.override(self.service, now)
                if not self._restored:  # nobody has ordered anything meanwhile
                    self._restore(override)
            signals = await self._prometheus.signals(
                self.service, now, window_seconds=limits.window_seconds, sample_seconds=limits.sample_seconds
            )
        except PrometheusError as error:
            self._metrics.prometheus_failed(error.flaw)
            self._prometheus_says(str(error))
            return Signals(unreadable=str(error))
        self._prometheus_says("")
        return signals

    def _prometheus_says(self, trouble: str) -> None:
        """Log what is wrong with Prometheus when that changes."""
        if trouble and trouble != self._prometheus_trouble:
            log.error("signals_unreadable", scaled_service=self.service.name, reason=trouble)
        elif self._prometheus_trouble and not trouble:
            log.info("signals_back", scaled_service=self.service.name)
        self._prometheus_trouble = trouble

    def _restore(self, override: Override | None) -> None:
        if override is None:
            self._restored = True
            # Not before it is known: what is scraped as "none" is what the next restart would find.
            self._metrics.overridden(self.service.name, None, 0)
            return
        log.info("override_restored", scaled_service=self.service.name, replicas=override.replicas)
        self.order(override)

    async def _carry_out(
        self, decision: Decision, state: State, wakes: list[Wake], now: float, started_ns: int
    ) -> bool:
        """Say what was decided, and order it; tell whether an order was accepted."""
        links = [Link(wake.request) for wake in wakes if wake.request is not None and wake.request.is_valid]
        span = self._tracer.start_span(
            f"decide {self.service.name}",
            # A trace of its own: several alerts may have led here, or none.
            context=Context(),
            kind=SpanKind.INTERNAL,
            links=links,
            start_time=started_ns,
            attributes={
                "autoscaler.service": self.service.name,
                "autoscaler.direction": decision.direction.value,
                "autoscaler.cause": decision.reason.value,
                "autoscaler.reason": decision.sentence,
                "autoscaler.desired_replicas": -1.0 if decision.desired is None else decision.desired,
                "autoscaler.running_replicas": state.replicas.running if state.replicas else -1,
                "autoscaler.target_replicas": -1 if decision.target is None else decision.target,
                "autoscaler.woken_by": [wake.path.value for wake in wakes],
                "autoscaler.alert_fingerprints": [wake.alert for wake in wakes if wake.alert],
            },
        )
        with trace.use_span(span, end_on_exit=True):
            entry = Entry(
                service=self.service.name,
                first_seconds=now,
                decision=decision,
                state=state,
                woken_by=sorted({f"alert {wake.alert}" if wake.alert else wake.path.value for wake in wakes}),
                trace_id=trace.format_trace_id(span.get_span_context().trace_id),
            )
            self._journal.add(entry)
            log.info(
                "decided",
                scaled_service=self.service.name,
                direction=decision.direction.value,
                cause=decision.reason.value,
                reason=decision.sentence,
                target=decision.target,
                running=state.replicas.running if state.replicas else None,
            )
            if decision.target is None:
                return False
            entry.failure = await self._order(decision.target, now)
            if entry.failure:
                self._look_again()
                span.set_status(StatusCode.ERROR, entry.failure)
                return False
            self._ordered_at[decision.direction] = now
            return True

    async def _order(self, count: int, now: float) -> str:
        """Order a number of replicas; why that failed, empty when it was accepted."""
        try:
            async with asyncio.timeout(_ORDER_SECONDS):
                await self._actuator.scale_to(self.service.name, count)
        except (ActuatorError, TimeoutError) as error:
            sentence = str(error) or f"The actuator did not take the order within {_ORDER_SECONDS:g} s."
            self._failed(sentence, now)
            return sentence
        self._outstanding = (count, now)
        return ""

    async def _remind(self, decision: Decision, now: float) -> None:
        """Give an order again that was accepted long ago and is not carried out."""
        if decision.target is not None or self._outstanding is None or decision.reason is Reason.PAUSED:
            return
        if self._retry_at is not None and now < self._retry_at:
            return
        count, since = self._outstanding
        if now - since < _FORGOTTEN_SECONDS:
            return
        await self._count()  # while this look went on, somebody else may have ordered
        if self._outstanding is not None:
            log.warning("order_repeated", scaled_service=self.service.name, replicas=count)
            await self._order(count, now)

    def _time_reaction(self, wakes: Sequence[Wake]) -> None:
        """
        Time an order to add replicas since what led to it.

        Where an alert had to wait for a second sample or a cool-down, that is the moment when the wait was over.
        """
        done = time.monotonic()
        for path in TIMED_PATHS:
            first = min((wake.received_seconds for wake in wakes if wake.path is path), default=None)
            if first is not None:
                self._metrics.reacted(self.service.name, path, done - first)
