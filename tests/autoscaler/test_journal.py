"""The list of decisions."""

from autoscaler.decide import Decision, Direction, Reason, Sample, Signals, State
from autoscaler.journal import Entry, Journal


def test_samples_that_nobody_is_shown_are_not_kept() -> None:
    """A thousand decisions with the windows they were made from would be many megabytes."""
    samples = [Sample(at_seconds=1e9 + second, value=2) for second in range(1000)]
    entry = Entry(
        service="shop",
        first_seconds=1e9,
        decision=Decision(direction=Direction.HOLD, reason=Reason.STEADY, sentence="2 are needed, and there are 2."),
        state=State(replicas=None, signals=Signals(desired=samples, running=samples)),
    )
    journal = Journal()
    journal.add(entry)

    (kept,) = journal.last(1)
    inputs = kept.to_json()["inputs"]
    assert (len(kept.state.signals.desired), len(kept.state.signals.running)) == (4, 4)
    assert (len(inputs["desired"]), inputs["desired_samples"]) == (4, 1000)
    assert inputs["desired"][-1] == ["2001-09-09T02:03:19.000Z", 2]
