"""The committed dashboards: complete, consistent with each other, and what the sources say."""

import json
import re
import urllib.parse
from collections.abc import Mapping
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from grafana import generate, limits, uids
from grafana.files import everything
from grafana.promql import LONG_AGO
from obslib import names
from prometheus import links
from tests.grafana.boards import (
    PACKAGE,
    RULES,
    Asked,
    Json,
    annotation_queries,
    committed,
    panels,
    prometheus_queries,
    recorded_series,
)
from tests.prometheus.expressions import is_exposed, metrics_in

BOARDS = committed()
MACROS = {"__rate_interval", "__range"}
#: Panels that show text have no unit.
WITHOUT_UNIT = {"logs"}


@pytest.fixture(params=sorted(BOARDS))
def board(request: pytest.FixtureRequest) -> Json:
    found: Json = BOARDS[request.param]
    return found


def test_the_committed_files_are_what_the_sources_say() -> None:
    """Nobody edits them by hand, and nobody forgets to generate them."""
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize("harm", ["changed", "missing", "left over"])
def test_files_that_are_not_current_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: str) -> None:
    """A changed, a missing and a left-over file each fail the check by name, and generating mends all of them."""
    assert generate.main(["--output", str(tmp_path)]) == 0
    victim = tmp_path / "generated" / f"{uids.SLO}.json"
    if harm == "changed":
        victim.write_text(victim.read_text().replace("SLO", "Slo"))
    elif harm == "missing":
        victim.unlink()
    else:
        victim = victim.with_name("old.json")
        victim.write_text("{}")

    assert generate.main(["--check", "--output", str(tmp_path)]) == 1
    assert str(victim) in capsys.readouterr().err
    assert generate.main(["--output", str(tmp_path)]) == 0
    assert generate.main(["--check", "--output", str(tmp_path)]) == 0


def test_every_dashboard_is_there_under_its_own_uid() -> None:
    """Alerts and links name them by it."""
    assert set(BOARDS) == {
        "obslib-fleet",
        "obslib-service",
        "obslib-slo",
        "obslib-scaling",
        "obslib-runtime",
        "obslib-pipeline",
        "obslib-dependencies",
        "shop-business",
    }
    assert set(BOARDS) == set(links.DASHBOARDS)
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)
    assert len([path for path in everything() if path.startswith("generated/")]) == len(BOARDS)


def test_every_dashboard_is_of_the_model_that_old_and_new_releases_load(board: Json) -> None:
    """The schema's version is the classic model's; a database's number would overwrite somebody's dashboard."""
    assert board["schemaVersion"] == 42
    assert "id" not in board


def test_every_number_has_a_name_a_reason_and_a_unit(board: Json) -> None:
    """A panel says what it shows, and in one line what to do about it."""
    titles = [panel["title"] for panel in panels(board)]
    assert len(titles) == len(set(titles))
    for panel in panels(board):
        description = panel["description"]
        assert panel["title"]
        assert len(description) <= 200
        assert description.count("\n") == 0
        assert re.search(r"[Ww]hen |[Nn]ever red|Above the dashed", description), f"{panel['title']}: {description}"
        if panel["type"] not in WITHOUT_UNIT:
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_every_query_says_which_data_source_by_uid(board: Json) -> None:
    """The name of a data source is whatever somebody called it; the uid is provisioned."""
    provisioned = {source["uid"]: source["type"] for source in sources("datasources-with-loki")}
    for panel in panels(board):
        assert panel["targets"], panel["title"]
        for place in (panel, *panel["targets"]):
            assert provisioned[place["datasource"]["uid"]] == place["datasource"]["type"]
    for other in (*board["templating"]["list"], *board["annotations"]["list"]):
        assert provisioned[other["datasource"]["uid"]] == other["datasource"]["type"]


def test_only_folded_rows_need_loki(board: Json) -> None:
    """Where there is no Loki nothing asks for it."""
    for panel in board["panels"]:
        assert panel["type"] == "row" or panel["datasource"]["uid"] == uids.PROMETHEUS


def test_panels_are_in_the_grid_and_none_covers_another(board: Json) -> None:
    """Each row's, those of a folded one included, and each has an id of its own."""
    folded = [entry["panels"] for entry in board["panels"] if entry["type"] == "row" and entry["panels"]]
    for group in (board["panels"], *folded):
        cells = [panel["gridPos"] for panel in group]
        assert all(cell["x"] + cell["w"] <= 24 for cell in cells)
        for one, other in combinations(cells, 2):
            apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            under = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert apart or under, (one, other)
    rows = [entry["id"] for entry in board["panels"] if entry["type"] == "row"]
    every = [*rows, *(panel["id"] for panel in panels(board))]
    assert len(every) == len(set(every))


def test_queries_use_variables_that_are_there(board: Json) -> None:
    """An unknown one would stay in the query as it is written."""
    known = {variable["name"] for variable in board["templating"]["list"]}
    text = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    text += [mark["expr"] for mark in board["annotations"]["list"]]
    text += [variable["query"]["query"] for variable in board["templating"]["list"]]

    used = {name for expression in text for name in re.findall(r"\$([a-z_]\w*)", expression)}

    assert used <= known | MACROS
    assert known <= used | {"namespace"}


def test_a_variable_asks_only_for_those_before_it(board: Json) -> None:
    """Grafana fills them in this order."""
    known: set[str] = set()
    for variable in board["templating"]["list"]:
        assert set(re.findall(r"\$([a-z_]\w*)", variable["query"]["query"])) <= known
        known.add(variable["name"])


@pytest.mark.parametrize("asked", [*prometheus_queries(), *annotation_queries()], ids=str)
def test_rates_fit_any_zoom(asked: Asked) -> None:
    """A fixed window is empty or coarse at some zoom: windows are Grafana's, but where the rule's own number is meant."""
    expression = asked.expression
    for function, window in re.findall(r"\b(rate|increase|changes)\([^\[\]]*\[([^\]]+)\]", expression):
        assert window in {"$__rate_interval", "$__range"} or (function, window) in {
            ("changes", "30m"),
            ("changes", "2m"),
        }, expression
    if expression.endswith(f"}} offset {LONG_AGO}"):
        return  # its exemplars are drawn, and nothing else
    for counter in re.findall(r"\b\w+(?:_total|_count|_sum|_bucket)\b(?=[{\[ ),]|$)", expression):
        assert re.search(rf"(rate|increase)\({counter}\b", expression), f"{counter} is drawn as it is in {expression}"


def test_links_lead_to_dashboards_and_hand_over_what_these_have(board: Json) -> None:
    """Each uid exists, and each variable a link sets exists on its target."""
    found = [link["url"] for link in board["links"]]
    found += [
        link["url"]
        for panel in panels(board)
        for link in panel["fieldConfig"]["defaults"].get("links") or []
        if link["url"].startswith("/d/")
    ]
    assert {urllib.parse.urlsplit(url).path.removeprefix("/d/") for url in found} >= set(BOARDS) - {board["uid"]}
    here = {variable["name"] for variable in board["templating"]["list"]}
    for url in found:
        path, _, query = url.partition("?")
        target = BOARDS[path.removeprefix("/d/")]
        there = {variable["name"] for variable in target["templating"]["list"]}
        handed = set(re.findall(r"\$\{(\w+):queryparam\}", query))
        assert handed <= here & there, url
        assert set(re.findall(r"var-(\w+)=", query)) <= there, url


def test_links_to_traces_are_questions_that_jaeger_understands(board: Json) -> None:
    """What Explore is handed is JSON, for the data source that is there."""
    urls = [
        link["url"]
        for panel in panels(board)
        for link in panel["fieldConfig"]["defaults"].get("links") or []
        if link["url"].startswith("/explore")
    ]
    for url in urls:
        parameters = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
        (pane,) = json.loads(parameters["panes"][0]).values()
        (query,) = pane["queries"]
        assert pane["datasource"] == query["datasource"]["uid"] == uids.JAEGER
        assert query["queryType"] == "search"
        assert pane["range"] == {"from": "${__from}", "to": "${__to}"}
    assert bool(urls) == (board["uid"] in {uids.SERVICE, uids.SLO, uids.DEPENDENCIES})


def test_latencies_show_their_traces() -> None:
    """Durations of requests and calls ask for exemplars, which lead to Jaeger."""
    with_traces = {
        f"{uid}/{panel['title']}"
        for uid, board in BOARDS.items()
        for panel in panels(board)
        if any(target.get("exemplar") for target in panel["targets"])
    }

    assert with_traces == {
        "obslib-dependencies/Calls by host, p95",
        "obslib-dependencies/Operations, p95",
        "obslib-service/Duration",
        "obslib-service/Durations",
    }
    (prometheus,) = (source for source in sources("datasources") if source["uid"] == uids.PROMETHEUS)
    assert prometheus["jsonData"]["exemplarTraceIdDestinations"] == [
        {
            "name": names.EXEMPLAR_TRACE_ID,
            "datasourceUid": uids.JAEGER,
            "urlDisplayLabel": "Trace of this request",
        }
    ]


def test_every_dashboard_marks_what_happened(board: Json) -> None:
    """Deploys, restarts, alerts and scaling, each in a colour of its own, as ones that Grafana draws."""
    marks = board["annotations"]["list"]

    assert [mark["name"] for mark in marks] == ["Deploys", "Restarts", "Alerts", "Scaling"]
    assert len({mark["iconColor"] for mark in marks}) == len(marks)
    assert all("group by" in mark["expr"] for mark in marks)


def test_no_service_is_named() -> None:
    """They work for whatever service uses obslib; the last is the demo's own."""
    for asked in prometheus_queries():
        if asked.uid != uids.SHOP:
            assert not re.search(r"shop|payments", asked.expression), asked


def sources(variant: str) -> list[Json]:
    """The data sources as Grafana reads them: `$$` is a dollar, `${NAME}` comes from its environment."""
    text = (PACKAGE / "provisioning" / variant / "obslib.yml").read_text()
    environment = {name: f"http://{name.lower()}" for name in re.findall(r"(?<!\$)\$\{(\w+_URL)\}", text)}

    def expanded(match: re.Match[str]) -> str:
        return "$" if match.group() == "$$" else environment[match.group(1)]

    document = yaml.safe_load(re.sub(r"\$\$|\$\{?([\w.]+)\}?", expanded, text))
    found: list[Json] = document["datasources"]
    return found


def test_data_sources_have_fixed_uids_and_addresses_from_outside() -> None:
    """Loki's are apart: without it nothing points at it."""
    plain = {source["uid"]: source["url"] for source in sources("datasources")}
    with_logs = {source["uid"]: source["url"] for source in sources("datasources-with-loki")}

    assert plain == {
        "prometheus": "http://prometheus_url",
        "jaeger": "http://jaeger_url",
        "alertmanager": "http://alertmanager_url",
    }
    assert with_logs == {**plain, "loki": "http://loki_url"}
    assert "loki" not in json.dumps(sources("datasources"))


def test_a_trace_leads_to_its_logs_and_metrics() -> None:
    """What Grafana replaces survives its reading of the file."""
    (jaeger,) = (source for source in sources("datasources-with-loki") if source["uid"] == uids.JAEGER)
    logs, metrics = jaeger["jsonData"]["tracesToLogsV2"], jaeger["jsonData"]["tracesToMetrics"]

    assert logs["datasourceUid"] == uids.LOKI
    assert logs["query"].endswith('trace_id="${__trace.traceId}"')
    assert (logs["spanStartTimeShift"], logs["spanEndTimeShift"]) == ("-5m", "5m")
    assert metrics["datasourceUid"] == uids.PROMETHEUS
    assert {"key": "service.name", "value": "service"} in metrics["tags"]
    for query in metrics["queries"]:
        assert "{$__tags" in query["query"]
        assert "[$__rate_interval]" in query["query"]


def test_a_log_line_leads_to_its_trace() -> None:
    """The field is found in the lines that obslib writes."""
    (loki,) = (source for source in sources("datasources-with-loki") if source["uid"] == uids.LOKI)
    (field,) = loki["jsonData"]["derivedFields"]
    line = '{"event":"x","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7"}'

    match = re.search(field["matcherRegex"], line)

    assert match is not None
    assert match.group(1) == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (field["url"], field["datasourceUid"]) == ("${__value.raw}", uids.JAEGER)


def test_grafana_draws_with_the_interval_that_prometheus_scrapes_with() -> None:
    """Another one would make other rates than the alerts compute."""
    settings = yaml.safe_load((PACKAGE.parent / "prometheus" / "prometheus.yml").read_text())
    (prometheus,) = (source for source in sources("datasources") if source["uid"] == uids.PROMETHEUS)

    assert prometheus["jsonData"]["timeInterval"] == settings["global"]["scrape_interval"] == "5s"


@cache
def rules() -> list[Json]:
    """Every rule of the generated files."""
    groups = [group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def test_every_recorded_series_that_is_read_is_recorded() -> None:
    """A misspelt one would be an empty panel."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    read = {name for asked in prometheus_queries() for name in recorded_series(asked.expression)}

    assert read <= recorded


@pytest.mark.parametrize("asked", [*prometheus_queries(), *annotation_queries()], ids=str)
def test_every_metric_is_one_that_somebody_exposes(asked: Asked) -> None:
    """obslib, the demo, another program or a rule: with a misspelt one the failure has the panel's name."""
    made = {rule["record"] for rule in rules() if "record" in rule}

    assert {
        name for name in metrics_in(re.sub(r"\$\w+", "1m", asked.expression)) if not is_exposed(name, made)
    } == set()


def test_counters_are_read_by_what_they_gained(board: Json) -> None:
    """Their own value says since when the process runs; exemplars are asked for where there is none."""
    for panel in panels(board):
        for target in panel["targets"]:
            bare = re.sub(r"\b(rate|increase|changes|resets)\([^\[]*\[[^\]]*\]( offset \w+)?\)", "", target["expr"])
            left = re.sub(rf"\w+{{[^}}]*}} offset {LONG_AGO}", "", re.sub(r"[a-z]+:[\w:]+|{{[^}}]*}}", "", bare))
            assert not re.search(r"\b\w+_(total|count|sum|bucket)\b{", left), f"{panel['title']}: {left}"


def test_menus_follow_the_time_and_nobody_edits_what_is_generated(board: Json) -> None:
    """What had stopped by then is not offered; a change in the browser would be lost with the next release."""
    on_time_range = 2

    assert board["editable"] is False
    assert all(variable["refresh"] == on_time_range for variable in board["templating"]["list"])


#: What an expression must have in it for a unit to be right.
SHOWN_BY: Mapping[str, str] = {
    "s": r"_seconds|:seconds",
    "d": r"_remaining:ratio",
    "bytes": r"^(?!.*rate\().*_bytes",
    "Bps": r"rate\(\w*_bytes",
    "reqps": r"rate\(http_(server|client)_request|:rate5m",
    "ops": r"rate\(",
    "percentunit": r"/|:ratio|:avg2m|rate\(\w+_seconds_sum",
    "currencyEUR": r"_euros",
    # Numbers of things, by themselves and shortened.
    "none": "",
    "short": "",
}
#: The unit that a whole expression of a kind must have.
SHOWN_AS: Mapping[str, str] = {
    r"^histogram_quantile\(": "s",
    r"^(sum|max|min)( by \([\w, ]+\))? \(?\w+_bytes\{[^}]*\}\)$": "bytes",
    r"^service:(slo|process)_\w+:ratio\w*(\{[^}]*\})?$": "percentunit",
}


def test_units_fit_names(board: Json) -> None:
    """Seconds are shown as seconds, bytes as bytes, shares as per cent: the metrics' names say what they are."""
    for panel in panels(board):
        unit = panel["fieldConfig"]["defaults"].get("unit")
        for target in panel["targets"]:
            expression = " ".join(target.get("expr", "").split())
            if panel["type"] not in WITHOUT_UNIT:
                assert re.search(SHOWN_BY[unit], expression), f"{panel['title']}: {unit} of {expression}"
            if panel["type"] not in {"table", *WITHOUT_UNIT}:
                for kind, expected in SHOWN_AS.items():
                    assert not re.search(kind, expression) or unit == expected, f"{panel['title']}: {unit}"


@pytest.mark.parametrize(
    ("alert", "limit"),
    [
        ("EventLoopLagHigh", limits.EVENT_LOOP_LAG_SECONDS),
        ("FdExhaustion", limits.OPEN_FDS_SHARE),
        ("CpuSaturated", limits.CPU_SHARE),
        ("ConcurrencySaturated", limits.IN_FLIGHT_TIMES_TARGET),
        ("DependencyFailing", limits.DEPENDENCY_ERROR_SHARE),
        ("DatabaseFailing", limits.DEPENDENCY_ERROR_SHARE),
        ("ReplicaErrorsOutlier", limits.REPLICA_ERROR_SHARE),
        ("EdgeDisagrees", limits.EDGE_DIFFERENCE_SHARE),
        ("ScaleFlapping", limits.REPLICA_TURNS),
        ("ScrapeNearSampleLimit", limits.SCRAPE_SHARE),
    ],
)
def test_red_begins_where_the_alert_does(alert: str, limit: float) -> None:
    """A panel that is green while its alert fires helps nobody."""
    expressions = [rule["expr"] for rule in rules() if rule.get("alert") == alert]

    assert any(re.search(rf"> {re.escape(f'{limit:g}')}(\s|$)", text) for text in expressions), expressions
