"""`obslib doctor`: what it finds, what it says to do, and that it leaves nothing behind."""

import json
import os
import pty
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

import obslib
from obslib._cli import main
from obslib._doctor.application import NotExaminableError, import_application
from obslib._doctor.collector import collector_finding
from obslib._doctor.configuration import Configuration, configuration
from obslib._doctor.limits import Limits, facts, limit_findings, read_limits
from obslib._doctor.ownership import ownership_findings, provider_findings
from obslib._doctor.report import Finding, Report, Version
from obslib._doctor.text import render
from obslib._doctor.versions import installation_findings, installed_versions, is_inside, version_findings
from obslib._doctor.workers import worker_directory_findings, worker_findings
from obslib.settings import REDACTED_KEYS, Settings
from tests.obslib.collector import running_collector
from tests.obslib.otlp_collector import Collector, partial_success, status
from tests.obslib.processes import DEADLINE_SECONDS, environment, free_port

OBSLIB = [sys.executable, "-m", "obslib"]


@dataclass
class Done:
    """What the command did."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    def codes(self, *levels: str) -> set[str]:
        return {finding["code"] for finding in self.report["findings"] if finding["level"] in levels}


def doctor(directory: Path, code: str, *arguments: str, command: list[str] | None = None, **env: str) -> Done:
    """Run the doctor where a module `served` lies."""
    (directory / "served.py").write_text(textwrap.dedent(code))
    done = subprocess.run(
        [*(command or OBSLIB), "doctor", *arguments],
        cwd=directory,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def codes(findings: Iterator[Finding]) -> dict[str, str]:
    """Return the level of each finding."""
    return {finding.code: finding.level for finding in findings}


# --- the command -----------------------------------------------------------------------------------------------------

WELL = """
import subprocess, sys, threading, time
from pathlib import Path
import obslib
from fastapi import FastAPI

print("printed by the application")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path("child.pid").write_text(str(child.pid))
threading.Thread(target=time.sleep, args=(600,)).start()

def create_app() -> FastAPI:
    app = FastAPI()
    obslib.instrument(app, obslib.Settings.from_env(metrics_token="t0ken", log_level="ERROR"))
    return app
"""


def test_all_is_well(tmp_path: Path) -> None:
    """A set-up that works has status 0, its collector was really sent something, and nothing is left running."""
    with running_collector() as collector:
        done = doctor(
            tmp_path,
            WELL,
            "served:create_app",
            "--json",
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_HEADERS="api-key=s3cret,x-team=core",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            OBSLIB_LOG_LEVEL="DEBUG",
        )
        assert [len(request.resource_spans) for request in collector.requests] == [0]
    assert done.status == 0, done.out + done.err
    assert done.codes("warning", "error") == set()
    assert done.codes("note") == {"collector_answers"}
    assert "printed by the application" in done.err
    settings = {item["name"]: (item["value"], item["source"]) for item in done.report["settings"]}
    assert settings["service_name"] == ("tested", "OTEL_SERVICE_NAME")
    assert settings["otlp_headers"] == ("api-key=***,x-team=***", "OTEL_EXPORTER_OTLP_HEADERS")
    assert settings["metrics_token"] == ("***", "code")
    assert settings["log_level"] == ("ERROR", "code, over OBSLIB_LOG_LEVEL")
    assert settings["max_label_sets"] == ("2000", "default")
    assert "s3cret" not in done.out
    assert "t0ken" not in done.out
    assert {"python", "fastapi", "starlette", "opentelemetry-sdk", "prometheus-client", "uvicorn"} <= {
        version["name"] for version in done.report["versions"] if version["installed"]
    }
    _wait_until_ended(int((tmp_path / "child.pid").read_text()))


def _wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} still runs")


def test_import_error_is_the_users(tmp_path: Path) -> None:
    """An application that cannot be imported is an error with the user's traceback, and the rest is examined still."""
    code = """
    import obslib
    from fastapi import FastAPI
    app = FastAPI()
    def set_up():
        obslib.instrument(app, obslib.Settings.from_env(engine="steam"))
    set_up()
    """
    done = doctor(tmp_path, code, "served:app", OBSLIB_METRIC_PORT="1")
    assert done.status == 2
    assert "OBSLIB_METRIC_PORT is not a variable obslib knows. Did you mean OBSLIB_METRICS_PORT?" in done.out
    lines = [line.removeprefix("           │ ") for line in done.out.splitlines() if "│" in line]
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{tmp_path}/served.py", line 7, in <module>'
    assert "importlib" not in "\n".join(lines)
    assert "/_doctor/" not in "\n".join(lines)
    assert "service_name  " in done.out
    assert "\x1b[" not in done.out


def test_application_that_ends_the_process(tmp_path: Path) -> None:
    """A process that ends while it imports is reported with its status, in colour on a terminal; the rest is examined."""
    (tmp_path / "served.py").write_text("import os\nos._exit(7)\n")
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*OBSLIB, "doctor", "served"],
        cwd=tmp_path,
        env=environment(NO_COLOR="", OBSLIB_SPAN_QUEUE_MAX_SPANS="10"),
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # the terminal's end, as Linux says it
            break
        if not chunk:
            break
        shown += chunk
    os.close(leader)
    assert process.wait(DEADLINE_SECONDS) == 2
    text = shown.decode()
    assert "\x1b[31merror   \x1b[0m The process that imported served ended with status 7." in text
    assert "otlp_traces_endpoint" in text


def test_zero_code_agent(tmp_path: Path) -> None:
    """Under `opentelemetry-instrument` the application is examined as the service would be: with the agent."""
    agent = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    code = """
    import obslib
    from fastapi import FastAPI
    app = FastAPI()
    obslib.instrument(app)
    """
    done = doctor(
        tmp_path,
        code,
        "served",
        "--json",
        command=[agent, *OBSLIB],
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        PYTHONWARNINGS="ignore",
    )
    assert done.codes("warning", "error") >= {"agent_loaded", "contrib_instrumented"}, done.out + done.err
    assert done.status == 2


@pytest.mark.parametrize("arguments", [[], ["doktor"], ["doctor", "a", "b"]])
def test_wrong_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command that is wrong has a status of its own."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 3
    assert "usage: obslib" in capsys.readouterr().err


def test_doctor_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A doctor that cannot examine says so, and does not end as if it had found warnings."""
    monkeypatch.setattr("obslib._doctor.diagnosis._examine_elsewhere", lambda *_: -9)
    assert main(["doctor"]) == 3
    assert "was ended by SIGKILL" in capsys.readouterr().err


def test_status_is_the_worst_findings() -> None:
    """Warnings are 1, errors 2, notes nothing; and what is said last is the worst."""
    notes = [Finding(level="note", code="n", what="N")]
    warnings = [Finding(level="warning", code="w", what="W", fix="F"), *notes]
    errors = [Finding(level="error", code="e", what="E", detail="1\n2"), *warnings]
    reports = [Report(findings=findings) for findings in ([], notes, warnings, errors)]
    assert [report.exit_status for report in reports] == [0, 0, 1, 2]
    assert Report.from_json(json.loads(json.dumps(reports[3].as_json()))) == reports[3]
    reports[3].versions = [Version(name="starlette", installed=""), Version(name="python", installed="3.11")]
    said = render(reports[3], colour=False).partition("findings\n")[2]
    assert said == (
        "  note     N\n  warning  W\n           → F\n  error    E\n           │ 1\n           │ 2\n"
        "\nTelemetry is lost or wrong.\n"
    )
    assert "\x1b[2m  starlette  not installed\x1b[0m" in render(reports[3], colour=True)


# --- the application -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "path", "code_found", "said"),
    [
        ("", "elsewhere:app", "application_not_found", "There is no module elsewhere in "),
        (
            "import fastapi\nweb = fastapi.FastAPI()",
            "{module}:app",
            "application_not_found",
            "Did you mean {module}:web?",
        ),
        ("aap = 1", "{module}:app", "application_not_found", "Did you mean {module}:aap?"),
        ("", "{module}", "application_not_found", "has no app. Name what the server is given."),
        ("app = 1", "{module}", "application_unknown", "is a int, and neither"),
        ("async def app(scope, receive, send): ...", "{module}", "application_unknown", "is a function, and neither"),
        ("import json.nothing", "{module}", "application_not_imported", "ModuleNotFoundError: No module named 'json.n"),
        ("raise SystemExit(1)", "{module}", "application_not_imported", "raised SystemExit: 1"),
        ("app = 1 +", "{module}", "application_not_imported", "SyntaxError"),
        ("def app():\n    return None.x", "{module}", "application_not_imported", "'NoneType' object has no attribute"),
    ],
)
def test_applications_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, path: str, code_found: str, said: str
) -> None:
    """What is wrong with the name, or the module, is said, with a suggestion where there is one."""
    module = f"served_{abs(hash((code, path)))}"
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(NotExaminableError) as raised:
        import_application(path.format(module=module))
    finding = raised.value.finding
    assert finding.code == code_found
    assert said.format(module=module) in f"{finding.what} {finding.fix}"
    sys.modules.pop(module, None)


def test_wrapped_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application inside pure ASGI wrappers is found."""
    code = """
    import fastapi
    class Wrapper:
        def __init__(self, app): self.app = app
    app = Wrapper(Wrapper(fastapi.FastAPI()))
    """
    (tmp_path / "served_wrapped.py").write_text(textwrap.dedent(code))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert isinstance(import_application("served_wrapped"), FastAPI)
    del sys.modules["served_wrapped"]


QUIET = Settings(service_name="shop", extra_registries=(), traces_exporter="none", instrumentations=())


@pytest.fixture
def instrumented() -> Iterator[Callable[..., FastAPI]]:
    """Make instrumented applications; undo it afterwards."""
    made = []

    def make(settings: Settings = QUIET, **options: Any) -> FastAPI:
        app = FastAPI(**options)
        made.append(obslib.instrument(app, settings))
        return app

    yield make
    for observability in reversed(made):
        observability.shutdown()


class ForeignMiddleware:
    """Somebody's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do nothing of its own."""
        await self.app(scope, receive, send)


ForeignMiddleware.__module__ = "starlette_exporter.middleware"


def test_nobody_else(instrumented: Callable[..., FastAPI]) -> None:
    """An application of obslib's alone gives nothing to say."""
    assert codes(ownership_findings(instrumented())) == {}


def test_everybody_else(instrumented: Callable[..., FastAPI]) -> None:
    """Whoever else observes an instrumented application is named."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    app, inner = instrumented(), instrumented(title="inner")
    app.mount("/inner", Starlette(routes=[]))
    app.mount("/deep", inner)
    app.mount("/plain", ForeignMiddleware(inner))
    inner.add_middleware(ForeignMiddleware)
    app.add_api_route("/metrics", lambda: "theirs")
    app._telemetry["tracing"] = True  # type: ignore[typeddict-item,attr-defined,unused-ignore]
    FastAPIInstrumentor.instrument_app(app)
    try:
        found = list(ownership_findings(app))
    finally:
        FastAPIInstrumentor.uninstrument_app(app)
    assert codes(iter(found)) == {
        "instrumented_twice": "warning",
        "native_telemetry": "error",
        "contrib_instrumented": "error",
        "others_middleware": "warning",
        "metrics_path_taken": "warning",
    }
    assert all(finding.fix for finding in found)
    assert "A mounted application is instrumented, too (inner)" in found[0].what


@pytest.mark.parametrize("with_provider", [True, False])
def test_not_instrumented(monkeypatch: pytest.MonkeyPatch, with_provider: bool) -> None:
    """An application that nobody instruments is said to be so, and what FastAPI would do by itself."""
    telemetry: Any = {"tracer_provider": TracerProvider()} if with_provider else {}
    if not with_provider:
        monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    found = list(ownership_findings(FastAPI(telemetry=telemetry)))
    assert codes(iter(found)) == {"not_instrumented": "warning", "native_telemetry": "warning"}
    assert ("tracer_provider" in found[1].what) is with_provider
    monkeypatch.delenv("FASTAPI_OTEL_AUTO_CONFIGURE", raising=False)
    for app in (FastAPI(), Starlette()):
        assert codes(ownership_findings(app)) == {"not_instrumented": "warning"}


def test_metrics_elsewhere(instrumented: Callable[..., FastAPI]) -> None:
    """A route `/metrics` is the application's own where obslib's is on another port."""
    app = instrumented(Settings(service_name="shop", traces_enabled=False, metrics_port=free_port()))
    app.add_api_route("/metrics", lambda: "theirs")
    assert codes(ownership_findings(app)) == {}


class ForeignProvider(trace.NoOpTracerProvider):
    """Not the SDK's."""


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        (TracerProvider(shutdown_on_exit=False), "it samples, describes the service. To have obslib's sampler"),
        (ForeignProvider(), "cannot send them. See that it exports them"),
    ],
)
def test_foreign_provider(monkeypatch: pytest.MonkeyPatch, provider: trace.TracerProvider, said: str) -> None:
    """A global provider of somebody else's decides what obslib's settings cannot."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    [finding] = provider_findings()
    assert (finding.level, finding.code) == ("warning", "foreign_tracer_provider")
    assert said in f"{finding.what} {finding.fix}"


def test_foreign_exporters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign provider that exports by itself sends every span a second time."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    try:
        [finding] = provider_findings()
    finally:
        provider.shutdown()
    assert "exports with InMemorySpanExporter, ConsoleSpanExporter" in finding.what
    assert "each span is sent twice" in finding.fix


# --- the environment -------------------------------------------------------------------------------------------------


def row(found: Configuration, name: str) -> tuple[str, str]:
    """Return value and source of a setting."""
    [item] = [item for item in found.rows if item.name == name]
    return item.value, item.source


def test_variables_that_do_nothing() -> None:
    """Misspelt, invalid and foreign variables are told apart, all of them at once."""
    environ = {
        "OTEL_SERVICE_NAM": "shop",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_QUITE_ELSE": "1",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_PYTHON_LOG_LEVEL": "debug",
        "OTEL_TRACES_SAMPLER": "sometimes",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OBSLIB_METRIC_PORT": "1",
        "OBSLIB_ACCESS_LOG": "perhaps",
        "OBSLIB_ENGINE": "steam",
        "OBSLIB_MAX_LABEL_SETS": "0",
    }
    found = configuration(environ, None)
    said = [(finding.level, finding.code, f"{finding.what} {finding.fix}") for finding in found.findings]
    assert [(level, code) for level, code, _ in said] == [
        *[("error", "variable_refused")] * 3,
        ("warning", "variable_ignored"),
        *[("warning", "variable_unknown")] * 2,
        *[("error", "setting_invalid")] * 2,
    ]
    text = "\n".join(text for _, _, text in said)
    assert "OTEL_SERVICE_NAM means nothing to obslib. Did you mean OTEL_SERVICE_NAME?" in text
    assert "OTEL_QUITE_ELSE means nothing to obslib. Unset it" in text
    assert "Did you mean OBSLIB_METRICS_PORT?" in text
    assert "must be one of obslib, contrib, not 'steam'. Change OBSLIB_ENGINE." in text
    assert "OTEL_METRICS_EXPORTER" not in text
    assert found.settings is not None
    assert found.settings.engine == "obslib"


def test_settings_that_do_not_fit_together() -> None:
    """Where no valid settings are left there is nothing to ask a collector with, and the rows are shown still."""
    found = configuration({"OBSLIB_SPAN_QUEUE_MAX_SPANS": "10", "OTEL_SERVICE_NAME": "shop"}, None)
    assert found.settings is None
    [finding] = found.findings
    assert finding.what.startswith("Settings.span_batch_max_spans")
    assert row(found, "span_queue_max_spans") == ("10", "OBSLIB_SPAN_QUEUE_MAX_SPANS")


def test_code_decides() -> None:
    """A setting that code gave is the code's, whatever the environment says; a broken variable then only warns."""
    given = Settings(excluded_paths=("/a", "/b"), redacted_keys=frozenset({"iban"}))
    found = configuration({"OTEL_SERVICE_NAME": "shop", "OBSLIB_MAX_LABEL_SETS": "0"}, given)
    assert row(found, "service_name") == ("unknown_service", "code, over OTEL_SERVICE_NAME")
    assert row(found, "excluded_paths") == ("/a,/b", "code")
    assert row(found, "redacted_keys") == (f"1 keys (1 added, {len(REDACTED_KEYS)} removed)", "code")
    assert codes(iter(found.findings)) == {"setting_invalid": "warning", "service_name_missing": "warning"}


def test_secrets_stay_inside() -> None:
    """Passwords in a URL, secret parameters and resource attributes named as secrets are masked."""
    found = configuration(
        {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://me:pw@host:4318/v1/traces?api_key=hidden&x=1",
            "OTEL_RESOURCE_ATTRIBUTES": "team=core,db.password=hidden",
            "OTEL_EXPORTER_OTLP_HEADERS": f"a={'h' * 200}",
            "OBSLIB_EXCLUDED_PATHS": ",".join(f"/path-{number}" for number in range(50)),
            "OTEL_SERVICE_NAME": "shop",
        },
        None,
    )
    assert row(found, "otlp_traces_endpoint")[0] == "https://***@host:4318/v1/traces?api_key=REDACTED&x=1"
    assert row(found, "resource_attributes")[0] == "team=core,db.password=***"
    assert row(found, "excluded_paths")[0].endswith("…")
    assert found.findings == []


def test_a_batch_is_cut_to_its_queue() -> None:
    """Where one variable's value is cut by another's, or by a default, the source says whose it is."""
    larger = configuration({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096"}, None)
    smaller = configuration({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, None)
    assert row(larger, "span_batch_max_spans") == ("2048", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
    assert row(smaller, "span_batch_max_spans") == ("100", "OTEL_BSP_MAX_QUEUE_SIZE")


# --- the collector ---------------------------------------------------------------------------------------------------


def asked(endpoint: str, **options: Any) -> Finding:
    return collector_finding(Settings(service_name="shop", otlp_traces_endpoint=endpoint, **options))


@pytest.mark.parametrize(
    ("code", "level", "said"),
    [
        (200, "note", "answered 200 OK in "),
        (401, "error", "OTEL_EXPORTER_OTLP_HEADERS"),
        (404, "error", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is whole"),
        (307, "error", "Redirects are not followed"),
        (500, "error", "Ask whoever runs the collector"),
    ],
)
def test_answers(code: int, level: str, said: str) -> None:
    """What the collector answers is said, with what to do about it."""
    collector = Collector()
    collector.behaviour = status(code)
    try:
        finding = asked(collector.url)
    finally:
        collector.stop()
    assert finding.level == level
    assert said in f"{finding.what} {finding.fix}"


def test_collector_that_warns() -> None:
    """A partial success carries the collector's own words."""
    collector = Collector()
    collector.behaviour = partial_success(0, "quota nearly used up")
    try:
        finding = asked(collector.url)
    finally:
        collector.stop()
    assert (finding.level, finding.code) == ("warning", "collector_warns")
    assert finding.what.endswith("and says: quota nearly used up")


def test_collector_that_is_not_asked() -> None:
    """Where nothing is sent nobody is asked, and that is said."""
    assert (
        asked("http://127.0.0.1:1", traces_exporter="none").what == "No collector was asked: traces_exporter is none."
    )
    assert asked("http://127.0.0.1:1", traces_enabled=False).what == "No collector was asked: traces are off."


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://127.0.0.1:{free}/v1/traces", "nobody listens there. Start a collector"),
        ("http://collector.invalid/v1/traces", "the host collector.invalid is not known"),
        ("http://127.0.0.1:{strange}/v1/traces", "does not speak HTTP/1.1 (BadStatusLine). Point it at"),
        ("https://127.0.0.1:{strange}/v1/traces", "no TLS (WRONG_VERSION_NUMBER). Write http://"),
        ("http://127.0.0.1:{silent}/v1/traces", "no answer within 0.05 s. Look for a firewall"),
    ],
)
def test_collectors_that_are_none(endpoint: str, said: str) -> None:
    """What stands in the way of an answer is named."""
    with socket.create_server(("127.0.0.1", 0)) as strange, socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=_answer_strangely, args=(strange,), daemon=True).start()
        ports = {"free": free_port(), "strange": strange.getsockname()[1], "silent": silent.getsockname()[1]}
        finding = asked(endpoint.format(**ports), otlp_timeout_seconds=0.05 if "silent" in endpoint else 10)
        strange.shutdown(socket.SHUT_RDWR)
    assert (finding.level, finding.code) == ("error", "collector_unreachable")
    assert said in f"{finding.what} {finding.fix}"


def _answer_strangely(server: socket.socket) -> None:
    try:
        connection, _ = server.accept()
    except OSError:  # nobody came
        return
    with connection:
        connection.recv(65536)
        connection.sendall(b"\x00\x00\x12\x04 not HTTP\r\n\r\n")


def test_certificates(tmp_path: Path, tls_collector: tuple[Collector, Path]) -> None:
    """A certificate that nobody trusts, and a file that is none, are told apart."""
    collector, authority = tls_collector
    assert "its certificate is not trusted (self-signed certificate)" in asked(collector.url).what
    assert asked(collector.url, otlp_certificate_file=str(authority)).level == "note"
    missing = asked(collector.url, otlp_certificate_file=str(tmp_path / "none.pem"))
    assert missing.fix == "Correct the address, or the certificate files."


@pytest.fixture
def tls_collector(tmp_path: Path) -> Iterator[tuple[Collector, Path]]:
    import ssl

    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=collector"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "certificate.pem"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    collector = Collector(context)
    yield collector, tmp_path / "certificate.pem"
    collector.stop()


# --- versions, limits, workers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "supported", "is_supported"),
    [
        ("0.51b0", ">=0.51b0", True),
        ("0.50b0", ">=0.51b0", False),
        ("1.30", ">=1.30.0", True),
        ("1.9", ">=1.30", False),
        ("2.1.0", ">=2.0.40,<2.1", False),
        ("2.0.50", ">=2.0.40,<2.1", True),
        ("3.11.7", ">=3.11", True),
        ("unknown", ">=1", False),
        ("7", "", True),
    ],
)
def test_ranges(installed: str, supported: str, is_supported: bool) -> None:
    """Versions are compared by their numbers."""
    assert is_inside(installed, supported) is is_supported


def test_versions() -> None:
    """Everything installed here is supported, and a version that is not is an error with the range."""
    versions = installed_versions()
    assert list(version_findings(versions)) == []
    assert all(version.installed for version in versions if version.name != "python")
    old = Version(name="starlette", installed="0.27", supported=">=0.40", is_supported=False)
    [finding] = version_findings([old])
    assert (finding.level, finding.fix) == ("error", 'Install "starlette>=0.40".')


def test_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy without metadata has no ranges, and says so; PyPI's `obslib` is another project."""
    monkeypatch.setattr("obslib._doctor.versions._DISTRIBUTION", "obslib-not-installed")
    assert {version.supported for version in installed_versions()} == {""}
    assert codes(version_findings([])) == {"installation_differs": "warning"}
    assert codes(installation_findings(obslib.__version__, "0.7.1")) == {"other_project_installed": "error"}


def test_control_groups(tmp_path: Path) -> None:
    """What the control groups allow is what the metrics say, too."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/pod\n")
    (tmp_path / "proc" / "self" / "mountinfo").write_text("1 0 0:1 / /cgroup rw - cgroup2 none rw\n")
    (tmp_path / "cgroup" / "pod").mkdir(parents=True)
    (tmp_path / "cgroup" / "pod" / "memory.max").write_text("134217728\n")
    (tmp_path / "cgroup" / "pod" / "cpu.max").write_text("50000 100000\n")
    limits = read_limits(tmp_path)
    assert (limits.cpu_cores, limits.memory_bytes) == (0.5, 128 << 20)
    assert {fact.name: fact.value for fact in facts(limits)}["memory"] == "128 MiB"


def test_stdout_that_is_a_file(tmp_path: Path) -> None:
    """A file as stdout has a disk that can fill up; a pipe and a closed one have none."""
    before = os.dup(1)
    try:
        with (tmp_path / "lines").open("w") as stream:
            os.dup2(stream.fileno(), 1)
            assert read_limits().stdout_free_bytes
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(reading)
        os.close(writing)
        assert read_limits().stdout_free_bytes is None
        os.close(1)
        assert read_limits().stdout_free_bytes is None
    finally:
        os.dup2(before, 1)
        os.close(before)


def test_limits_that_are_close() -> None:
    """Few files, little memory beside the buffers, and a full disk are warnings."""
    little = Limits(open_files=256, cpu_cores=0.5, memory_bytes=128 << 20, stdout_free_bytes=1 << 20)
    assert codes(limit_findings(little, Settings())) == {
        "few_open_files": "warning",
        "little_memory": "warning",
        "disk_almost_full": "warning",
    }
    assert codes(limit_findings(Limits(None, 1, 1, None), None)) == {}
    assert codes(limit_findings(Limits(1 << 16, 2.0, 1 << 30, 1 << 40), Settings())) == {}


def test_multiprocess_directory() -> None:
    """prometheus_client's directory for several processes does nothing for obslib."""
    assert codes(worker_findings({"PROMETHEUS_MULTIPROC_DIR": "/tmp/x"})) == {"multiprocess_directory": "warning"}
    assert codes(worker_findings({})) == {}


def test_worker_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where workers meet must be writable, by us alone; what does not exist yet will be made."""
    good, file = tmp_path / "run", tmp_path / "file"
    good.mkdir(mode=0o700)
    file.touch()

    def whats(chosen: Path | None) -> list[str]:
        found = list(worker_directory_findings(None if chosen is None else str(chosen)))
        assert {finding.code for finding in found} <= {"worker_directory"}
        return [finding.what.partition(": ")[2] for finding in found]

    assert whats(good) == whats(good / "yet" / "to" / "come") == []
    assert whats(file) == [f"{file} is no directory that this user can write."]
    good.chmod(0o770)
    assert whats(good) == [f"others can write {good}."]
    good.chmod(0o1777)
    assert whats(good) == []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert whats(None) == []
    ours = tmp_path / f"obslib-{os.geteuid()}"
    ours.mkdir()
    ours.chmod(0o755)
    assert whats(None) == [f"{ours} is no directory of this user alone."]
    monkeypatch.setattr("os.access", lambda *_: False)
    assert whats(good) == [f"{good} is no directory that this user can write."]
