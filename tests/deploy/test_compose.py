"""What docker-compose.yml promises: nothing copied, nothing open, nothing secret, nothing that leads nowhere."""

import ipaddress
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import obslib
from autoscaler.config import Config as AutoscalerConfig
from demo_service.__main__ import _parser
from demo_service.config import Config
from grafana import provisioning
from prometheus.read_policy import read
from stack import compose_secrets, inbox
from stack.alerting import ANY_CHAT
from stack.haproxy import ANSWER_SECONDS
from stack.ports import MAX_REPLICAS, PREFERRED
from tests.deploy.composed import (
    BUILDER,
    DEMO,
    FILE,
    MODEL,
    OURS,
    ROOT,
    SCALE_MODEL,
    SECRETS,
    SERVICES,
    environment,
    mounts,
    secret_paths,
)

PROMETHEUS_YML = ROOT / "deploy" / "compose" / "prometheus.yml"
POLICY = read(ROOT / "prometheus" / "policy.yml")
#: Nothing asks it anything: it only sends.
WITHOUT_HEALTH_CHECK = {"load"}
#: What the images listen on by default.
FOREIGN_PORTS = {
    "redis": {6379},
    "postgres": {5432},
    "prometheus": {9090},
    "alertmanager": {9093},
    "probe": {9115},
    "jaeger": {16686, 4318, 8888, 13133},
    "grafana": {3000},
}


def listening() -> dict[str, set[int]]:
    """The ports of each service: ours from the commands, HAProxy's from its environment."""
    ports = {name: set(numbers) for name, numbers in FOREIGN_PORTS.items()}
    for name in ("shop", "payments", "worker"):
        options = vars(_parser().parse_args(SERVICES[name]["command"]))
        ports[name] = {options.get("port") or options["metrics_port"]}
    haproxy = environment("haproxy")
    ports["haproxy"] = {int(haproxy["HAPROXY_PORT"]), int(haproxy["HAPROXY_METRICS_PORT"])}
    ports["autoscaler"] = {int(environment("autoscaler").get("AUTOSCALER_PORT", AutoscalerConfig.port))}
    ports["notifications"] = {PREFERRED["notifications"]}
    for name, service in SERVICES.items():
        _, _, host = service.get("network_mode", "").partition(":")
        if host:
            ports[host] |= ports[name]
    return ports


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_in_the_repository(name: str) -> None:
    """Read-only, and committed: a file that is missing would become an empty directory."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    for source in mounts(name).values():
        path = source.removeprefix("./")
        assert any(file == path or file.startswith(f"{path}/") for file in tracked), f"{path} is not committed"
    for volume in SERVICES[name].get("volumes", []):
        source = volume.partition(":")[0]
        assert volume.endswith(":ro") if source.startswith("./") else source in MODEL["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name: str) -> None:
    """A user of its own who can become nobody else, a root that nobody writes, a limit to its memory."""
    service = SERVICES[name]
    user, _, _ = service["user"].partition(":")

    assert user.isdigit()
    assert int(user) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+m", service["mem_limit"])
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_published_on_this_machine_only(name: str) -> None:
    """Docker publishes past a firewall: each port names the address."""
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:")
        assert int(port.rpartition(":")[2]) in listening()[name]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - WITHOUT_HEALTH_CHECK))
def test_a_service_says_whether_it_is_well(name: str) -> None:
    """By asking the port it serves on, in the container."""
    check = SERVICES[name]["healthcheck"]
    test = check["test"]

    assert test[0] in ("CMD", "CMD-SHELL")
    # A check that something always passes is none.
    assert "|| true" not in test[-1]
    for host, port in addresses(" ".join(test)):
        assert host == "127.0.0.1"
        assert port in listening()[name]
    assert check["interval"]
    assert check["retries"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_can_say_that_it_is_ready(name: str) -> None:
    """Started is not ready."""
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] == "service_healthy"
        assert other not in WITHOUT_HEALTH_CHECK


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned(name: str) -> None:
    """By a version, or made here: once, for several that build one tag get in each other's way, and never looked for."""
    image, _, tag = SERVICES[name]["image"].rpartition(":")

    build = {"context": ".", "dockerfile": "deploy/Dockerfile"}
    assert SERVICES[name].get("build") == (build if name == BUILDER else None)
    if name in OURS:
        assert (image, tag, SERVICES[name]["pull_policy"]) == ("obslib-demo", "local", "never")
    else:
        assert re.fullmatch(r"v?\d+(\.\d+)*(-alpine)?", tag), f"{image}:{tag}"


@pytest.mark.parametrize("name", ["shop", "worker"])
def test_a_scaled_service_has_nothing_that_only_one_can_have(name: str) -> None:
    """Neither a name nor a port on the host nor a volume."""
    assert not {"container_name", "ports", "volumes", "hostname"} & set(SERVICES[name])


def test_secrets_are_the_files_that_are_made(tmp_path: Path) -> None:
    """Each is declared, made by `make compose-secrets`, and needed by somebody; git ignores where they are."""
    made = set(compose_secrets.write(tmp_path / "secrets"))
    declared = MODEL["secrets"]

    assert declared == {name: {"file": f".secrets/{name}"} for name in made}
    assert {name for service in SERVICES for name in secret_paths(service).values()} == made
    assert compose_secrets.DIRECTORY == ROOT / ".secrets"
    assert subprocess.run(["git", "check-ignore", "-q", ".secrets/any"], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_in_the_file(name: str) -> None:
    """What is called a password, a token or a secret is a path to one the service gets, and no URL has one."""
    paths = secret_paths(name)

    for variable, value in environment(name).items():
        if re.search("PASSWORD|TOKEN|SECRET", variable):
            assert variable.endswith("_FILE")
            assert value in paths
        elif variable.endswith("_FILE"):
            assert value in {**paths, **mounts(name)}
    for path in re.findall(rf"{SECRETS}/\w+", yaml.safe_dump(SERVICES[name])):
        assert path in paths
    assert not re.search(r"://[^/\s]*:[^/\s]*@", FILE.read_text())


@pytest.mark.parametrize("name", DEMO)
def test_our_services_understand_their_environment(name: str, tmp_path: Path) -> None:
    """Read by the code that will read it, secrets included; nothing is a default by mistake."""
    compose_secrets.write(tmp_path)
    given = {variable: value.replace(SECRETS, str(tmp_path)) for variable, value in environment(name).items() if value}

    config = Config.from_env(given)
    settings = obslib.Settings.from_env(given)

    assert _parser().parse_args(SERVICES[name]["command"]).role == name
    if name != "load":
        assert settings.service_name == name
        assert settings.otlp_traces_endpoint == "http://jaeger:4318/v1/traces"
        assert config.faults_token
    if name in ("shop", "worker"):
        assert config.database_url.startswith("postgresql+asyncpg://")
        assert config.broker_url.startswith("redis://")
    if name == "shop":
        assert config.cache_url != config.rate_limit_url != config.broker_url
        assert all(ipaddress.ip_network(network).is_private for network in config.trusted_proxies)
    for host, port in addresses(f"{config.payments_url} {config.database_url} {config.broker_url}"):
        assert name in ("payments", "load") or port in listening()[host]


def autoscaler_config(changes: dict[str, str], directory: Path) -> AutoscalerConfig:
    """As the autoscaler reads what it is given, each mounted file from where it is."""
    compose_secrets.write(directory)
    given = {**environment("autoscaler"), **changes}
    for target, source in mounts("autoscaler").items():
        given = {variable: value.replace(target, str(ROOT / source)) for variable, value in given.items()}
    return AutoscalerConfig.from_env({name: value.replace(SECRETS, str(directory)) for name, value in given.items()})


def test_the_autoscaler_understands_its_environment_and_touches_nothing(tmp_path: Path) -> None:
    """By the policy the rules were made from, with the token that Alertmanager shows."""
    config = autoscaler_config({}, tmp_path)
    settings = obslib.Settings.from_env(environment("autoscaler"))

    assert (config.actuator, config.policy) == ("dry-run", POLICY)
    assert config.webhook_token == (tmp_path / "autoscaler_token").read_text()
    assert config.operator_token == (tmp_path / "operator_token").read_text() != config.webhook_token
    assert (config.host, settings.service_name) == ("0.0.0.0", "autoscaler")
    assert not any("docker.sock" in volume for service in SERVICES.values() for volume in service.get("volumes", []))


@pytest.mark.parametrize("name", ["autoscaler", "notifications"])
def test_alertmanager_and_whom_it_tells_are_one_host(name: str) -> None:
    """They are called on loopback, and restarted when it is; the autoscaler is found by a name of Alertmanager's."""
    told = SERVICES[name]

    assert told["network_mode"] == "service:alertmanager"
    assert SERVICES["alertmanager"]["networks"]["default"]["aliases"] == ["autoscaler"]
    assert told["depends_on"]["alertmanager"]["restart"] is True
    # Docker refuses what only the namespace's owner can have.
    assert not {"ports", "networks", "hostname", "dns"} & set(told)


def test_whoever_alertmanager_tells_is_there(tmp_path: Path) -> None:
    """Every receiver's address is one of those two's, and people's and the watchdog's shows the token that is expected."""
    compose_secrets.write(tmp_path)
    document = yaml.safe_load((ROOT / "prometheus" / "alertmanager.yml").read_text())
    told = [webhook["url"] for receiver in document["receivers"] for webhook in receiver.get("webhook_configs", [])]
    chat = (tmp_path / "chat_url").read_text()
    given = {name: value.replace(SECRETS, str(tmp_path)) for name, value in environment("notifications").items()}

    assert sorted(addresses(" ".join([*told, chat]))) == [("127.0.0.1", 9095), ("127.0.0.1", 9096), ("127.0.0.1", 9096)]
    assert {9095, 9096} <= listening()["alertmanager"]
    token = inbox.token(given)
    assert token == (tmp_path / "watchdog_token").read_text()
    assert chat.endswith(f"/{token}/{ANY_CHAT}")


def test_what_lets_the_autoscaler_act_gives_it_the_socket_and_nothing_else(tmp_path: Path) -> None:
    """Of the project that the file names, by the group the socket belongs to."""
    assert set(SCALE_MODEL) == {"services"}
    ((name, changes),) = SCALE_MODEL["services"].items()
    config = autoscaler_config(changes["environment"], tmp_path)

    assert name == "autoscaler"
    assert set(changes) == {"environment", "group_add", "volumes"}
    assert (config.actuator, config.compose_project) == ("docker", MODEL["name"])
    assert changes["volumes"] == [f"{config.docker_socket}:{config.docker_socket}"]
    assert set(changes["environment"]) == {"AUTOSCALER_ACTUATOR", "AUTOSCALER_COMPOSE_PROJECT"}
    for service in config.policy.scaling():
        assert "container_name" not in SERVICES[service.name]


def addresses(text: str) -> list[tuple[str, int]]:
    """Every `host:port` of a URL in a text."""
    return [(host, int(port)) for host, port in re.findall(r"://(?:[^/@\s]*@)?([\w.-]+):(\d+)", text)]


@pytest.mark.parametrize("name", SERVICES)
def test_addresses_lead_to_services(name: str) -> None:
    """In environments and commands; those of this machine are links, and published."""
    published = {int(port.split(":")[1]) for service in SERVICES.values() for port in service.get("ports", [])}
    service = SERVICES[name]

    for host, port in addresses(yaml.safe_dump([service.get("environment"), service.get("command")])):
        assert port in (published if host == "127.0.0.1" else listening()[host])


def test_both_prometheus_configurations_are_one_but_for_discovery() -> None:
    """Intervals, limits, rules, jobs and their names: what differs is where targets come from."""
    ours = yaml.safe_load(PROMETHEUS_YML.read_text())
    stacks = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    for settings in (ours, stacks):
        (alertmanagers,) = settings["alerting"]["alertmanagers"]
        for holder in (alertmanagers, *settings["scrape_configs"]):
            assert [holder.pop(key) for key in list(holder) if key.endswith("sd_configs") or key == "static_configs"]
    for job in ours["scrape_configs"][:2]:
        # They only fill in what a target file says.
        from_dns, job["relabel_configs"] = job["relabel_configs"][:2], job["relabel_configs"][2:]
        assert [rule["target_label"] for rule in from_dns] == ["service", "replica"]

    assert ours == stacks


def test_every_replica_of_every_service_is_scraped() -> None:
    """By the service's name, at the port it serves on; a name the policy does not know has no objectives."""
    services, autoscaler, platform = yaml.safe_load(PROMETHEUS_YML.read_text())["scrape_configs"]
    by_name = [*services["dns_sd_configs"], *autoscaler["dns_sd_configs"]]

    found = {config["names"][0]: config["port"] for config in by_name}
    assert set(found) == set(POLICY.services)
    webhook = dict(addresses((ROOT / "prometheus" / "alertmanager.yml").read_text().partition("name: watchdog")[0]))
    assert found["autoscaler"] == webhook["127.0.0.1"]
    for name, port in found.items():
        assert port in listening()[name]
    for config in by_name:
        assert (config["type"], config["refresh_interval"]) == ("A", "5s")
    for group in platform["static_configs"]:
        (target,) = group["targets"]
        host, _, port = target.partition(":")
        assert group["labels"]["service"] == group["labels"]["replica"] == host
        assert int(port) in listening()[host]
    probed = [group["labels"] for group in platform["static_configs"] if "probed" in group["labels"]]
    assert [labels["probed"] for labels in probed] == [
        name for name, service in POLICY.services.items() if service.edge and service.edge.probed
    ]
    ((host, asked),) = addresses(probed[0]["__param_target"])
    assert (host, asked) == ("haproxy", int(environment("haproxy")["HAPROXY_PORT"]))


def test_prometheus_keeps_what_the_policy_counts_on() -> None:
    """A budget over a week needs more than a week of samples; its rules are where its configuration looks."""
    assert f"--storage.tsdb.retention.time={POLICY.server.retention}" in SERVICES["prometheus"]["command"]
    assert mounts("prometheus") == {
        "/etc/prometheus/prometheus.yml": "./deploy/compose/prometheus.yml",
        "/etc/prometheus/rules": "./prometheus/generated/rules",
    }


def test_alertmanager_gets_the_files_it_names() -> None:
    """Secrets by their absolute paths, templates beside its configuration."""
    text = (ROOT / "prometheus" / "alertmanager.yml").read_text()

    assert set(re.findall(r"/etc/alertmanager/secrets/\w+", text)) == set(secret_paths("alertmanager"))
    assert mounts("alertmanager") == {
        "/etc/alertmanager/alertmanager.yml": "./prometheus/alertmanager.yml",
        "/etc/alertmanager/templates": "./prometheus/templates",
    }


def test_grafana_finds_its_sources_and_its_home() -> None:
    """Each address the provisioning asks for is given; the dashboards are where it says they are."""
    sources = (ROOT / mounts("grafana")["/etc/grafana/provisioning/datasources"] / "obslib.yml").read_text()
    given = environment("grafana")

    # `$$` is a dollar that stays one.
    assert set(re.findall(r"(?<!\$)\$\{(\w+)\}", sources)) == {name for name in given if name.endswith("_URL")} - {
        "GF_SERVER_ROOT_URL"
    }
    dashboards = mounts("grafana")[provisioning.DASHBOARDS_PATH]
    home = Path(given["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provisioning.DASHBOARDS_PATH
    assert (ROOT / dashboards / home.name).is_file()
    assert '"uid": "obslib-fleet"' in (ROOT / dashboards / home.name).read_text()


def test_links_in_alerts_lead_to_published_pages() -> None:
    """Grafana and Jaeger are where the policy's links say."""
    links = yaml.safe_dump(yaml.safe_load((ROOT / "prometheus" / "policy.yml").read_text())["links"])
    published = {port.rpartition(":")[0] for service in SERVICES.values() for port in service.get("ports", [])}

    assert {f"{host}:{port}" for host, port in addresses(links)} <= published


def test_haproxy_has_a_slot_for_every_replica_and_finds_the_shop() -> None:
    """As many as the policy allows; each variable of its configuration is given."""
    text = (ROOT / "deploy" / "haproxy.cfg").read_text()
    given = environment("haproxy")

    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(given)
    assert re.findall(r"server-template shop- (\d+)", text) == [str(MAX_REPLICAS)] * 2
    scaling = POLICY.services["shop"].scaling
    assert scaling is not None
    assert scaling.max_replicas == MAX_REPLICAS
    host, _, port = given["HAPROXY_SHOP"].partition(":")
    assert int(port) in listening()[host]


def test_a_replica_that_stops_may_answer_what_haproxy_waits_for() -> None:
    """Nobody drains it: it goes on as long as a request may last, and Docker waits for that, and for its last spans."""
    shop = Config.from_env({name: value for name, value in environment("shop").items() if name.endswith("_SECONDS")})
    lasts = shop.drain_seconds + shop.graceful_seconds + obslib.Settings().shutdown_timeout_seconds

    assert shop.graceful_seconds >= ANSWER_SECONDS
    assert float(SERVICES["shop"]["stop_grace_period"].removesuffix("s")) > lasts


def test_jaeger_listens_where_others_reach_it() -> None:
    """Its configuration is on loopback unless told otherwise, and its ports are the ones others are told."""
    text = (ROOT / "deploy" / "jaeger.yaml").read_text()
    ports = {int(port) for port in re.findall(r"JAEGER_\w*PORT:-(\d+)", text)}

    assert environment("jaeger")["JAEGER_HOST"] == "0.0.0.0"
    assert listening()["jaeger"] <= ports
    assert set(mounts("jaeger")) == {SERVICES["jaeger"]["command"][1]}


def test_the_image_has_what_the_lock_has() -> None:
    """The same versions as everywhere else, each with its hashes."""
    pin = re.compile(r"^([\w.-]+)==([^\s;]+).*?\\$", re.MULTILINE)
    everywhere = dict(pin.findall((ROOT / "requirements.lock").read_text()))
    image = dict(pin.findall((ROOT / "deploy" / "requirements.lock").read_text()))

    assert image.items() <= everywhere.items()
    assert {"fastapi", "celery", "locust", "asyncpg", "opentelemetry-instrumentation-celery"} <= set(image)
    assert not {"mypy", "pyright", "ruff", "grafana-foundation-sdk"} & set(image)


def test_the_image_is_made_of_what_it_may_see() -> None:
    """Everything is ignored but what is copied; it runs as the user that docker-compose.yml names."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = set(re.findall(r"^COPY (?!--)(\S+)", text, re.MULTILINE))
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / path).exists() for path in copied)
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == [SERVICES["shop"]["user"]]
    assert "--require-hashes" in text


def test_a_replica_names_itself_by_its_address() -> None:
    """As Prometheus does; what else the environment says about it stays."""
    script = ROOT / "deploy" / "entrypoint.sh"
    fake = "hostname() { echo '10.0.0.7 fd00::7'; }; python() { echo \"$OTEL_RESOURCE_ATTRIBUTES|$*\"; }"
    # A shell function cannot be executed by `exec`.
    text = script.read_text().replace("exec python", "python")

    for before, after, role, module in (
        ("", "", "shop --host 0.0.0.0", "demo_service shop --host 0.0.0.0"),
        ("a=b", ",a=b", "autoscaler", "autoscaler"),
        ("", "", "notifications", "stack.inbox"),
        ("", "", "", "demo_service"),
    ):
        said = subprocess.run(
            ["sh", "-c", f"{fake}\n{text}", "sh", *role.split()],
            env={"OTEL_RESOURCE_ATTRIBUTES": before},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert said == f"service.instance.id=10.0.0.7{after}|-m {module}\n"
    assert script.stat().st_mode & 0o111
