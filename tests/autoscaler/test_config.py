"""How the autoscaler is set up, and what is said about a set-up that is wrong."""

from fractions import Fraction
from pathlib import Path

import pytest

from autoscaler.__main__ import main
from autoscaler.config import Config, SetupError
from tests.prometheus.test_policy import COMMITTED, GOOD

TOKEN = "a-token-of-some-length"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What has to be set."""
    (tmp_path / "webhook").write_text(TOKEN + "\n")
    (tmp_path / "operator").write_text(f"operator-{TOKEN}")
    return {
        "AUTOSCALER_POLICY_FILE": str(COMMITTED),
        "AUTOSCALER_WEBHOOK_TOKEN_FILE": str(tmp_path / "webhook"),
        "AUTOSCALER_OPERATOR_TOKEN_FILE": str(tmp_path / "operator"),
    }


def test_what_is_set_is_used(environment: dict[str, str]) -> None:
    """Files are read, and their secrets stay out of the repr."""
    config = Config.from_env(
        environment
        | {
            "AUTOSCALER_PROMETHEUS_URL": "http://prometheus:9090/",
            "AUTOSCALER_ACTUATOR": "docker",
            "AUTOSCALER_DOCKER_SOCKET": "/run/docker.sock",
            "AUTOSCALER_COMPOSE_PROJECT": "obslib",
            "AUTOSCALER_TICK_SECONDS": "0",
            "AUTOSCALER_TIME_SCALE": "1/20",
            "AUTOSCALER_PORT": " 19095 ",
            "OTEL_SERVICE_NAME": "not ours",
        }
    )

    assert (config.prometheus_url, config.actuator, config.tick_seconds) == ("http://prometheus:9090", "docker", 0)
    assert (config.docker_socket, config.compose_project) == (Path("/run/docker.sock"), "obslib")
    assert (config.time_scale, config.port, config.host) == (Fraction(1, 20), 19095, "127.0.0.1")
    assert (config.webhook_token, config.operator_token) == (TOKEN, f"operator-{TOKEN}")
    assert TOKEN not in repr(config)


WRONG = [
    ("AUTOSCALER_POLICY_FILE", "", "AUTOSCALER_POLICY_FILE is not set; it names a file."),
    ("AUTOSCALER_POLICY_FILE", "/nowhere", "AUTOSCALER_POLICY_FILE: [Errno 2] No such file"),
    ("AUTOSCALER_WEBHOOK_TOKEN_FILE", "/nowhere", "AUTOSCALER_WEBHOOK_TOKEN_FILE cannot be read as ASCII text"),
    ("AUTOSCALER_OPERATOR_TOKEN_FILE", " ", "AUTOSCALER_OPERATOR_TOKEN_FILE is not set"),
    ("AUTOSCALER_OPERATOR_TOKEN_FILE", "/dev/null", "must hold at least 16 characters"),
    ("AUTOSCALER_PROMETHEUS_URL", "prometheus:9090", "must begin with http:// or https://."),
    ("AUTOSCALER_ACTUATOR", "magic", "AUTOSCALER_ACTUATOR must be one of processes,"),
    ("AUTOSCALER_COMPOSE_PROJECT", "a/b", "must be a project of Compose (a-z, 0-9, _ and -), not 'a/b'."),
    ("AUTOSCALER_PORT", "65536", "AUTOSCALER_PORT must be a port from 0 to 65535, not '65536'."),
    ("AUTOSCALER_PORT", "-1", "must be a port"),
    ("AUTOSCALER_TICK_SECONDS", "soon", "AUTOSCALER_TICK_SECONDS must be seconds from 0 (no ticks) to 3600"),
    ("AUTOSCALER_TICK_SECONDS", "nan", "must be seconds"),
    ("AUTOSCALER_TIME_SCALE", "20", "AUTOSCALER_TIME_SCALE must be a fraction above 0 and up to 1, such as 1/20"),
    ("AUTOSCALER_TIME_SCALE", "1/0", "must be a fraction"),
    ("AUTOSCALER_TICKSECONDS", "5", "not a variable the autoscaler knows. Did you mean AUTOSCALER_TICK_SECONDS?"),
    ("AUTOSCALER_COLOUR", "red", "Known are AUTOSCALER_POLICY_FILE,"),
]


@pytest.mark.parametrize(("variable", "value", "sentence"), WRONG)
def test_a_wrong_setting_is_named_with_the_way_out(
    environment: dict[str, str], variable: str, value: str, sentence: str
) -> None:
    """At the start, not at the first spike."""
    with pytest.raises(SetupError) as refusal:
        Config.from_env(environment | {variable: value})

    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("good", "wrong", "sentence"),
    [
        (
            "min_replicas: 1\n      max_replicas: 8",
            "min_replicas: 9\n      max_replicas: 8",
            "9 is more than max_replicas",
        ),
        ("scaling:", "scalling:", "unknown key. Did you mean `scaling`?"),
    ],
)
def test_a_wrong_policy_ends_the_start_with_its_line(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    good: str,
    wrong: str,
    sentence: str,
) -> None:
    """In one sentence on stderr, with the exit status for a wrong call."""
    (tmp_path / "policy.yml").write_text(GOOD.replace(good, wrong, 1))
    for variable, value in (environment | {"AUTOSCALER_POLICY_FILE": str(tmp_path / "policy.yml")}).items():
        monkeypatch.setenv(variable, value)

    assert main([]) == 2

    said = capsys.readouterr().err
    assert said.startswith("autoscaler: AUTOSCALER_POLICY_FILE: ")
    assert sentence in said


def test_a_policy_in_which_nothing_scales_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    """An autoscaler without a service would look well and do nothing."""
    text = GOOD[: GOOD.index("    scaling:")]
    (tmp_path / "policy.yml").write_text(text)

    with pytest.raises(SetupError, match="no service has `scaling:`"):
        Config.from_env(environment | {"AUTOSCALER_POLICY_FILE": str(tmp_path / "policy.yml")})
