"""The simulation's command, its demands, its measures, and the HPA beside it."""

import json
import math
import sys
from pathlib import Path

import pytest

from autoscaler.simulate.cli import main
from autoscaler.simulate.counter import Counter
from autoscaler.simulate.faults import Fault, Faults, Period
from autoscaler.simulate.hpa import Hpa
from autoscaler.simulate.report import Measures, table
from autoscaler.simulate.run import Order, Run, Setup, with_autoscaler, with_hpa
from autoscaler.simulate.shapes import NAMES, TraceError, read_csv, shape
from autoscaler.simulate.world import Unit
from prometheus.read_policy import read
from tests.prometheus.test_policy import COMMITTED

POLICY = read(COMMITTED)
SHOP = POLICY.services["shop"]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def setup(demand: list[float], **more: object) -> Setup:
    return Setup(service=SHOP, server=POLICY.server, demand=demand, **more)  # type: ignore[arg-type] # fields of Setup


def test_the_documented_run_is_a_real_one(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/scaling.md has the table as it is printed."""
    status, out, _ = told(capsys, "--shape", "spike")

    assert status == 0
    assert f"```text\n{out}```\n" in (COMMITTED.parents[1] / "docs" / "scaling.md").read_text()


def test_a_run_is_printed_side_by_side_and_written_for_programs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The whole table; the same numbers as JSON; and the same again for the same seed."""
    file = tmp_path / "run.json"
    status, out, _ = told(capsys, "--shape", "spike", "--minutes", "15", "--json", str(file))

    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "shop, 1 to 8 replicas: spike (work), 15 minutes, seed 1"
    assert lines[2].split() == ["obslib", "HPA"]
    assert [line.rsplit(maxsplit=2)[0] for line in lines[3:]] == [
        "replica-hours",
        "violated, s",
        "longest shortage, s",
        "scale-outs",
        "scale-ins",
        "flaps",
        "moments out of bounds",
        "busy on average",
    ]
    numbers = json.loads(file.read_text())["runs"]
    assert set(numbers) == {"obslib", "HPA"}
    assert numbers["obslib"]["out_of_bounds"] == 0
    assert lines[4].split()[2] == f"{numbers['obslib']['violation_seconds']:g}"
    assert told(capsys, "--shape", "spike", "--minutes", "15")[1] == out


@pytest.mark.parametrize("service", ["shop", "worker"])
@pytest.mark.parametrize("name", NAMES)
def test_every_shape_can_be_asked_for(capsys: pytest.CaptureFixture[str], service: str, name: str) -> None:
    """For both kinds of demand that the policy has."""
    status, out, _ = told(capsys, "--shape", name, "--service", service, "--minutes", "3", "--seed", "7")

    assert status == 0
    assert name in out


WRONG = [
    (["--service", "payments"], "No service 'payments' scales. There are shop, worker."),
    (["--replicas-max", "0"], "--replicas-max 0 is below the policy's min_replicas, 1."),
    (["--policy", "/does/not/exist.yml"], "No such file"),
    (["--csv", "/does/not/exist.csv"], "cannot be read as CSV"),
    (["--json", "/does/not/exist/run.json", "--minutes", "1"], "No such file"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_what_cannot_be_simulated_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    """With the status 1, and no traceback."""
    status, _, said = told(capsys, *arguments)

    assert status == 1
    assert sentence in said
    assert "Traceback" not in said


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "soon", "1e9"])
def test_minutes_are_a_number_of_minutes(capsys: pytest.CaptureFixture[str], minutes: str) -> None:
    """argparse's own status and sentence."""
    with pytest.raises(SystemExit, match="2"):
        main([f"--minutes={minutes}"])

    assert "is no number above 0 and up to 10080, a week" in capsys.readouterr().err


def test_without_matplotlib_the_way_to_it_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is simulated."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, said = told(capsys, "--plot", str(tmp_path / "run.png"))

    assert (status, out) == (1, "")
    assert "make .venv-bench/.ready" in said
    assert not (tmp_path / "run.png").exists()


def test_a_recorded_demand_is_replayed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Each row holds until the next one, wherever the clock began; blank lines do not matter."""
    file = tmp_path / "demand.csv"
    file.write_text("seconds,demand\n1000,2\n1002,4.5\n\n1004,0\n")

    assert read_csv(file, 1.0) == [2, 2, 4.5, 4.5, 0, 0]
    status, out, _ = told(capsys, "--csv", str(file), "--unit", "in-flight")
    assert status == 0
    assert f"{file} (in-flight), 0.1 minutes" in out


BAD_ROWS = [
    ("", ":1: the header must be seconds,demand."),
    ("time,value\n0,1\n", ":1: the header must be seconds,demand."),
    ("seconds,demand\n0,1\n", "there are 1 rows, and at least two are needed."),
    ("seconds,demand\n0,1\n5,many\n", ":3: '5,many' are not two numbers."),
    ("seconds,demand\n0,1\n5\n", ":3: there are 1 cells; write seconds,demand."),
    ("seconds,demand\n0,1\n5,-1\n", ":3: '5,-1': time must be finite, and demand 0 or more."),
    ("seconds,demand\n0,1\n5,inf\n", ":3: '5,inf': time must be finite"),
    ("seconds,demand\nnan,1\n5,1\n", ":2: 'nan,1': time must be finite"),
    ("seconds,demand\n0,1\n\n5,1\n5,2\n", ":5: 5 s is not after 5 s; sort the rows by time."),
]


@pytest.mark.parametrize(("text", "sentence"), BAD_ROWS)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    """The line as an editor counts it."""
    file = tmp_path / "demand.csv"
    file.write_text(text)

    with pytest.raises(TraceError) as raised:
        read_csv(file, 1.0)
    assert sentence in str(raised.value)


def test_a_file_of_other_bytes_is_no_demand(tmp_path: Path) -> None:
    """Not a traceback about codecs."""
    file = tmp_path / "demand.csv"
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(TraceError, match="cannot be read as CSV"):
        read_csv(file, 1.0)


def test_noise_is_ten_per_cent_and_the_seeds() -> None:
    """Never more than that off the wave, and another one for another seed."""
    given = {"highest": 100.0, "length_seconds": 1800.0, "step_seconds": 5.0}
    wave = shape("wave", seed=1, **given)
    noisy = shape("wave-noise", seed=1, **given)

    assert all(abs(ours - plain) <= 0.1 * plain + 1e-9 for ours, plain in zip(noisy, wave, strict=True))
    assert noisy == shape("wave-noise", seed=1, **given)
    assert noisy != shape("wave-noise", seed=2, **given)


def test_measures_are_what_they_say() -> None:
    """Counted by hand: six steps of ten seconds, and orders of which one is taken back."""
    run = Run(
        name="by hand",
        setup=setup([3, 9, 9, 9, 3, 9], step_seconds=10.0),
        running=[1, 1, 2, 9, 3, 2],
        serving=[1, 1, 2, 3, 3, 2],
        busy_share=[0.75, 1.0, 1.0, 0.75, 0.25, 1.0],
        violated=[False, True, True, False, False, True],
        orders=[
            Order(at_seconds=10, before=1, after=3),
            Order(at_seconds=309, before=3, after=2),
            Order(at_seconds=609, before=2, after=3),
        ],
    )

    measured = Measures.of(run)
    assert measured.replica_hours == pytest.approx(180 / 3600)
    assert measured.violation_seconds == 30
    assert measured.shortage_seconds == math.inf
    assert (measured.scale_outs, measured.scale_ins, measured.flaps, measured.out_of_bounds) == (2, 1, 1, 1)
    assert measured.busy_share == pytest.approx(4.75 / 6)
    assert measured.as_json()["shortage_seconds"] is None
    assert "to the end" in table([run])


# --- the world -------------------------------------------------------------------------------------------------------


def test_too_much_work_waits_and_is_late() -> None:
    """One replica has four slots of 80 ms: eight for ten seconds leave what two, four and eight slots have to catch up."""
    run = with_autoscaler(setup([8.0] * 10, replicas=1))

    assert run.violated == [True] * 10
    # Each second four slot-seconds are left over, and a replica works off four a second.
    assert run.delay_seconds == pytest.approx([float(second) for second in range(1, 11)])
    assert run.busy_share == [1.0] * 10


def test_whoever_waits_too_long_gives_up() -> None:
    """Ten seconds of patience bound what piles up, so that the service recovers."""
    run = with_autoscaler(setup([100.0] * 200 + [2.0] * 400, replicas=8))

    assert max(run.delay_seconds) <= 10 * 100 / (8 * 4) + 1e-6
    assert not run.violated[-1]


def test_replicas_take_their_time() -> None:
    """The first of several starts alone; each is ready four to nine seconds after its start."""
    run = with_autoscaler(setup([15.0] * 120, unit=Unit.IN_FLIGHT))
    ordered = int(run.orders[0].at_seconds)

    assert run.orders[0].after == 5
    assert run.serving[: ordered + 5] == [1] * (ordered + 5)
    assert run.running[ordered + 1] == 2
    assert 2 in run.serving
    assert run.serving.index(5) in range(ordered + 8, ordered + 21)


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Fault.NEVER_READY, lambda run: max(run.serving[:200]) == 1 and max(run.running[:200]) > 1),
        (Fault.ACTUATOR_HANGS, lambda run: max(run.running[:200]) == 1 and run.orders),
        (Fault.ACTUATOR_REFUSES, lambda run: run.orders[0].at_seconds >= 200),
        (Fault.ACTUATOR_SILENT, lambda run: run.orders[0].at_seconds >= 200),
        (Fault.PROMETHEUS_DEAD, lambda run: run.orders[0].at_seconds >= 200 and math.isnan(run.desired[100])),
        (Fault.DEMAND_LOST, lambda run: run.orders[0].at_seconds >= 200),
    ],
)
def test_a_fault_does_what_it_is_called_and_passes(fault: Fault, seen: object) -> None:
    """Nothing serves more for two hundred seconds; afterwards there are enough."""
    faults = Faults(periods=[Period(fault=fault, begin_seconds=0, end_seconds=200)])
    run = with_autoscaler(setup([15.0] * 600, unit=Unit.IN_FLIGHT, faults=faults))

    assert callable(seen)
    assert seen(run)
    assert run.serving[-1] == 5
    assert not run.violated[-1]


# --- the HPA ---------------------------------------------------------------------------------------------------------


def test_the_hpa_doubles_or_adds_four_and_waits_five_minutes() -> None:
    """Its documented defaults, one sync after another."""
    hpa = Hpa(min_replicas=1, max_replicas=100)

    assert [hpa.sync([50.0], count, now) for now, count in ((0, 1), (15, 5), (30, 10), (45, 20), (60, 40))] == [
        5,
        10,
        20,
        40,
        50,
    ]
    assert hpa.sync([54.0], 50, 75) == 50  # 1.08 is within the tolerance
    assert hpa.sync([46.0], 50, 90) == 50
    assert hpa.sync([10.0], 50, 105) == 50
    assert hpa.sync([10.0], 50, 390) == 50  # at 90 s it still recommended 50
    assert hpa.sync([10.0], 50, 391) == 10


def test_the_hpa_scales_in_only_when_every_metric_can_be_read() -> None:
    """It may scale out all the same; and without any metric it does nothing."""
    hpa = Hpa(min_replicas=1, max_replicas=10)

    assert hpa.sync([8.0, None], 4, 0) == 8
    assert [hpa.sync([1.0, None], 8, now) for now in range(15, 900, 15)] == [8] * 59
    assert hpa.sync([None, None], 8, 900) == 8
    assert hpa.sync([1.0, 2.0], 8, 915) == 2


def test_the_hpa_waits_as_well_as_the_autoscaler_for_what_is_dead() -> None:
    """A dead Prometheus moves no replica of either."""
    faults = Faults(periods=[Period(fault=Fault.PROMETHEUS_DEAD, begin_seconds=60, end_seconds=900)])
    given = setup([18.0] * 60 + [0.0] * 840, unit=Unit.IN_FLIGHT, replicas=6, faults=faults)

    for play in (with_autoscaler, with_hpa):
        assert play(given).orders == []


def test_a_rate_is_extrapolated_to_the_windows_edges() -> None:
    """As Prometheus does it: to an edge that is near, and by half a step to one that is far."""
    counter = Counter(60.0)
    assert counter.rate(0) is None
    counter.scraped(30, 1000)
    assert counter.rate(30) is None
    for step in range(1, 5):
        counter.scraped(30 + 5 * step, 1000 + 10 * step)

    # 20 s of samples, 2.5 s towards the beginning, and 2 s to the end.
    assert counter.rate(52) == pytest.approx(40 * (24.5 / 20) / 60)
    assert counter.rate(500) is None
