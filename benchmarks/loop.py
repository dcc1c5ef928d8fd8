"""
`make bench-loop`: from a spike to the first added replica that serves, and whether anything is lost on the way.

Everything is real: Prometheus, Alertmanager, HAProxy, the autoscaler, the shop's processes and the load. Spikes come at
random phases of scrape and evaluation.
"""

import argparse
import json
import math
import random
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.loop_course import BOUND_SECONDS, Course, seconds_above
from benchmarks.loop_stack import SHOP, BenchError, LoopStack, eventually, loop_stack, moment

#: What the demo's spike sends in all (demo_service/capacity.py): more than two replicas carry, less than four.
SPIKE_RPS: Final = 120.0
#: What one replica carries while others come and go.
_STEADY_RPS: Final = 20.0
_MOST_REPLICAS: Final = 4
#: Prometheus has seen what HAProxy counted last.
_LAST_SCRAPE_SECONDS: Final = 3.0
_PHASE_SECONDS: Final = 5.0
_WAY_BACK_SECONDS: Final = 300.0
_FEWEST_REQUESTS: Final = 20
_P95: Final = (
    "histogram_quantile(0.95, sum by (le) "
    f'(rate(http_server_request_duration_seconds_bucket{{service="{SHOP}"}}[15s])))'
)
#: Answered with an error, by the shop or by HAProxy for it; broken off; not even begun.
_FAILURES: Final = (
    '(sum(haproxy_frontend_http_responses_total{code="5xx", proxy="http"}) or vector(0))'
    ' + (sum({__name__=~"haproxy_backend_(connection_errors|response_errors|server_aborts)_total"}) or vector(0))'
)


#: Who is scraped and does not answer.
_SILENT: Final = "count(up == 0) or vector(0)"


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """One spike; seconds from the first requests of it, but for the parts."""

    ordered_seconds: float
    serving_seconds: float
    own_seconds: float
    start_seconds: float


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What cycles of out and in have cost."""

    cycles: int
    requests: int
    failed: float
    redispatched: int
    down_samples: float


def reactions(
    stack: LoopStack, spikes: int, rng: random.Random, found: list[dict[str, float]], *, by_alert: bool
) -> None:
    """
    Send spikes and time the way to the first added replica that serves.

    Args:
        spikes: how many.
        rng: chooses the phases.
        found: gets each as it comes.
        by_alert: whether the alert must be over before the next one.

    """
    while len(found) < spikes:
        settle(stack, alert=by_alert)
        time.sleep(rng.uniform(0, _PHASE_SECONDS))
        reaction = one_reaction(stack)
        if reaction is None:
            print("  (a replica came before the spike: the CPU of those before had asked for it)", flush=True)
            continue
        found.append(asdict(reaction))
        print(f"  serving after {reaction.serving_seconds:.1f} s", flush=True)


def settle(stack: LoopStack, *, alert: bool = True) -> None:
    """One replica, no load, the rules have seen it, and the alert is over, unless nobody waits for the next one."""
    eventually(lambda: not stack.is_loaded(), "the load has ended")
    eventually(lambda: stack.value(f'service:scale_wanted:replicas{{service="{SHOP}"}} <= 1') is not None, "no demand")

    def is_one() -> bool:
        # What was desired a moment ago may be ordered once more after this.
        if stack.running() != 1:
            stack.scale(1)
        return all(
            stack.value(f'service:{series}:replicas{{service="{SHOP}"}}') == 1
            for series in ("scale_running", "scale_desired")
        )

    eventually(is_one, "one replica runs and one is desired")
    if not alert:
        return
    # It goes on for a minute: a spike within that is no new one.
    firing = f'ALERTS{{alertname="ServiceScaleOutNeeded", service="{SHOP}"}}'
    eventually(lambda: stack.value(firing) is None, "the alert is over")


def one_reaction(stack: LoopStack) -> Reaction | None:
    """One spike; None when a replica was ordered before it began."""
    before, idle = stack.reaction(), stack.slots()[1].requests
    asked = time.time()
    stack.ask("spike", rate_rps=SPIKE_RPS, duration_seconds=35)
    eventually(lambda: stack.slots()[1].requests >= idle + _FEWEST_REQUESTS, "the spike's first requests")
    began = time.time()
    served = {slot: status.requests for slot, status in stack.slots().items()}
    eventually(
        lambda: any(status.requests > served[slot] for slot, status in stack.slots().items() if slot != 1),
        "an added replica serves",
    )
    serving = time.time()
    steps = stack.steps_out(asked)
    if not steps:
        return None
    ordered = moment(steps[0]["time"])
    after = stack.reaction()
    return Reaction(
        ordered_seconds=ordered - began,
        serving_seconds=serving - began,
        # Later steps out of the same spike are in the mean, too.
        own_seconds=(after[1] - before[1]) / max(1.0, after[0] - before[0]),
        start_seconds=serving - ordered,
    )


def course(stack: LoopStack, seconds: float) -> Course:
    """A spike of that length, ten seconds of quiet before it, watched every second."""
    found = Course()
    began = time.time()
    is_sent = False
    while (since := time.time() - began) < seconds + 10:
        if not is_sent and since >= 10:
            stack.ask("spike", rate_rps=SPIKE_RPS, duration_seconds=seconds)
            is_sent = True
        found.at_seconds.append(round(since - 10, 2))
        found.p95_seconds.append(_finite(stack.value(_P95)))
        found.replicas.append(stack.running())
        time.sleep(1)
    return found


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def losses(stack: LoopStack, cycles: int) -> Losses:
    """
    Out and in under load, on the twin of the rules; every answer, second try and failed scrape is counted.

    By a person's orders, for those wait for no window and no budget: what is counted is what the steps themselves lose.
    """
    stack.ask("spike", rate_rps=_STEADY_RPS, duration_seconds=3600)
    eventually(lambda: sum(slot.requests for slot in stack.slots().values()) > _FEWEST_REQUESTS, "requests")
    began = time.time()
    failed, tried, requests = stack.value(_FAILURES) or 0, _tried(stack), _served(stack)
    for _ in range(cycles):
        stack.order(_MOST_REPLICAS)
        eventually(lambda: stack.running() == _MOST_REPLICAS, "all replicas")
        _all_serve(stack)
        stack.order(1)
        eventually(lambda: stack.running() == 1, "one replica", _WAY_BACK_SECONDS)
    time.sleep(_LAST_SCRAPE_SECONDS)
    seconds = int(time.time() - began) + 1
    return Losses(
        cycles=cycles,
        requests=_served(stack) - requests,
        failed=(stack.value(_FAILURES) or 0) - failed,
        redispatched=_tried(stack) - tried,
        down_samples=stack.value(f'sum(count_over_time((up{{service="{SHOP}"}} == 0)[{seconds}s:500ms]))') or 0,
    )


def _all_serve(stack: LoopStack) -> None:
    before = {slot: status.requests for slot, status in stack.slots().items()}
    eventually(
        lambda: sum(status.requests > before[slot] for slot, status in stack.slots().items()) >= _MOST_REPLICAS,
        "all of them serve",
    )


def _served(stack: LoopStack) -> int:
    return sum(slot.requests for slot in stack.slots().values())


def _tried(stack: LoopStack) -> int:
    return sum(slot.redispatched for slot in stack.slots().values())


def frozen(stack: LoopStack, victim: str, seconds: float) -> dict[str, float]:
    """
    Stop a part of the loop under load: who dies is started again within a second, who hangs is not.

    Returns:
        How many replicas there were before, the fewest meanwhile, and how long afterwards all decides as before.

    """
    settle(stack)
    stack.ask("spike", rate_rps=SPIKE_RPS, duration_seconds=seconds + 60)
    eventually(lambda: stack.running() >= 3, "three replicas")
    before = fewest = stack.running()

    def watch() -> None:
        nonlocal fewest
        fewest = min(fewest, stack.running())

    stack.frozen(victim, seconds, watch)
    thawed = time.time()
    eventually(lambda: _is_well(stack, thawed), "everything works again")
    return {"before": before, "fewest": fewest, "recovered_seconds": time.time() - thawed}


def _is_well(stack: LoopStack, since: float) -> bool:
    newest = stack.decisions()[0]
    is_told = moment(newest["last_time"]) > since and not newest["cause"].startswith(("signal_", "actuator_"))
    return is_told and stack.value(_SILENT) == 0


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything; the seed is that of the phases."""

    spikes: int
    cycles: int
    frozen_seconds: float
    seed: int


def run_alert(plan: Plan, found: dict[str, Any]) -> None:  # Any: JSON, here and below
    """Spikes of which the autoscaler learns by the alert alone."""
    print(f"{plan.spikes} spikes, woken by the alert only", flush=True)
    found["alert"] = []
    with loop_stack("--autoscaler-tick-seconds", "0") as stack:
        reactions(stack, plan.spikes, random.Random(plan.seed), found["alert"], by_alert=True)


def run_tick(plan: Plan, found: dict[str, Any]) -> None:
    """Spikes of which it learns by looking."""
    print(f"{plan.spikes} spikes, woken by the tick only", flush=True)
    found["tick"] = []
    with loop_stack("--no-alertmanager") as stack:
        reactions(stack, plan.spikes, random.Random(plan.seed + 1), found["tick"], by_alert=False)


def run_course(_plan: Plan, found: dict[str, Any]) -> None:
    """A spike, watched every second, with and without scaling."""
    print("a spike, watched, with and without scaling", flush=True)
    with loop_stack() as stack:
        settle(stack)
        found["scaled"] = asdict(course(stack, 110))
    with loop_stack("--no-autoscaler") as stack:
        found["unscaled"] = asdict(course(stack, 110))


def run_frozen(plan: Plan, found: dict[str, Any]) -> None:
    """Parts of the loop that stand still under load."""
    found["frozen"] = {}
    with loop_stack() as stack:
        for victim in ("prometheus", "alertmanager", "autoscaler"):
            print(f"{victim} stands still for {plan.frozen_seconds:.0f} s under load", flush=True)
            found["frozen"][victim] = frozen(stack, victim, plan.frozen_seconds)


def run_losses(plan: Plan, found: dict[str, Any]) -> None:
    """Out and in under load, on the time-scaled twin."""
    print(f"{plan.cycles} cycles of out and in under load", flush=True)
    with loop_stack("--time-scale", "1/10") as stack:
        found["losses"] = asdict(losses(stack, plan.cycles))


#: In this order. Each fills keys of its own.
PARTS: Final = {
    "alert": run_alert,
    "tick": run_tick,
    "course": run_course,
    "frozen": run_frozen,
    "losses": run_losses,
}


def table(found: dict[str, Any]) -> str:
    """What was found, as a table in Markdown; parts that were not run have no rows."""
    rows = [("what", "measured", "bar"), ("---", "---", "---")]
    for way in ("alert", "tick"):
        if reacted := [Reaction(**reaction) for reaction in found.get(way, ())]:
            rows += _reaction_rows(way, reacted)
    for name, title, bar in (("scaled", "with scaling", "≤ 60 s"), ("unscaled", "without", "")):
        if name in found:
            above = seconds_above(Course(**found[name]))
            said = "never under it again" if math.isinf(above) else f"{above:.0f} s"
            rows.append((f"p95 above {BOUND_SECONDS:g} s after a spike, {title}", said, bar))
    for victim, counts in found.get("frozen", {}).items():
        said = (
            f"{counts['before']}, never fewer than {counts['fewest']}; well after {counts['recovered_seconds']:.1f} s"
        )
        rows.append((f"replicas while {victim} stands still for a minute under load", said, "unchanged or more"))
    if "losses" in found:
        lost = Losses(**found["losses"])
        what = f"failed requests, second tries, failed scrapes in {lost.cycles} cycles, {lost.requests} requests"
        rows.append((what, f"{lost.failed:.0f}, {lost.redispatched}, {lost.down_samples:.0f}", "0"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _reaction_rows(way: str, reacted: list[Reaction]) -> list[tuple[str, str, str]]:
    serving = [reaction.serving_seconds for reaction in reacted]
    measured = f"median {statistics.median(serving):.1f} s, p95 {percentile(serving, 0.95):.1f} s"
    own = max(reaction.own_seconds for reaction in reacted)
    started = statistics.median(reaction.start_seconds for reaction in reacted)
    return [
        (f"spike → first added replica serves, woken by the {way} only, {len(reacted)} spikes", measured, "p95 ≤ 30 s"),
        ("the autoscaler's own part of it", f"largest {own:.3f} s", "≤ 1 s"),
        ("a replica's start, in it", f"median {started:.1f} s", ""),
    ]


def main() -> int:
    """Run the bench; the exit status says whether it could be run, not how it came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=__doc__)
    parser.add_argument(
        "--part", action="append", choices=tuple(PARTS), dest="parts", help="only this; what is there of others is kept"
    )
    parser.add_argument("--spikes", type=int, default=20, help="on each way (default: 20, a minute and a half each)")
    parser.add_argument("--cycles", type=int, default=20, help="out and in (default: 20, about a minute each)")
    parser.add_argument("--frozen-seconds", type=float, default=60.0, help="how long a part stands still (default: 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(".bench/loop.json"))
    options = parser.parse_args()
    plan = Plan(spikes=options.spikes, cycles=options.cycles, frozen_seconds=options.frozen_seconds, seed=options.seed)
    output: Path = options.output
    found: dict[str, Any] = json.loads(output.read_text()) if options.parts and output.exists() else {}
    try:
        for part in options.parts or PARTS:
            PARTS[part](plan, found)
    except BenchError as error:
        print(error)
        return 1
    finally:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{table(found)}\n\nAlso in {output}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
