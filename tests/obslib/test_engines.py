"""The two engines held against each other, and both against an application without telemetry, over generated sites."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from obslib import names
from obslib.settings import Settings
from obslib.testing import Captured, capture
from tests.obslib.asgi import client_of
from tests.obslib.sites import MIDDLEWARES, TREES, VARIATIONS, Site, Target, Tree, Variation

#: What contrib's span may say otherwise, and why. docs/comparison.md has the same table.
ALLOWED = {
    "client.port": "contrib adds the caller's ephemeral port, which nobody asks for; obslib leaves it out",
    "status description": "contrib repeats the exception's text there; obslib leaves it to the exception's event",
}
Engine = Literal["obslib", "contrib"]


def said_by(span: ReadableSpan) -> dict[str, Any]:
    """Return everything a span says, but for what is allowed to differ and its times."""
    attributes = {key: value for key, value in (span.attributes or {}).items() if key not in ALLOWED}
    return {
        **attributes,
        "name": span.name,
        "kind": span.kind,
        "status": span.status.status_code,
        "events": [(event.name, _stable(event.attributes or {})) for event in span.events],
        "links": len(span.links),
        "parent": span.parent,
        "ids": (span.context.trace_id, span.context.span_id) if span.context else None,
    }


def _stable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return an exception's attributes; through how many layers it came is no business of anybody's."""
    return {key: value for key, value in attributes.items() if key != "exception.stacktrace"}


def line_without_stack(line: dict[str, Any]) -> dict[str, Any]:
    """Return an access line; see `_stable`."""
    return {key: value for key, value in line.items() if key != names.LOG_EXCEPTION_STACKTRACE}


async def ask(client: httpx.AsyncClient, target: Target, variation: Variation) -> tuple[int, bytes, dict[str, str]]:
    """Send one request; return the answer without what every recorded answer has in addition."""
    path = target.path + {"slash": "/", "deeper": "/none/such", "secret": "?token=t&q=%FF"}.get(variation, "")
    method = {"method": "PUT", "odd": "BREW"}.get(variation, "GET")
    headers = {"host": target.host, **({"x-refuse": "yes"} if variation == "refused" else {})}
    response = await client.request(method, path, headers=headers)
    kept = {name: value for name, value in response.headers.items() if name != "x-request-id"}
    return response.status_code, response.content, kept


async def serve(site: Site, asked: list[tuple[Target, Variation]]) -> list[tuple[int, bytes, dict[str, str]]]:
    """Send all requests to a site."""
    async with client_of(site.app) as client:
        return [await ask(client, target, variation) for target, variation in asked]


def check_templates(asked: list[tuple[Target, Variation]], telemetry: Captured) -> None:
    """Every target that was asked for as it is has the template that it was made with."""
    for (target, variation), line in zip(asked, telemetry.access_lines, strict=True):
        if variation in {"as it is", "secret", "method"}:
            assert line[names.LABEL_ROUTE] == target.template, target


@given(trees=TREES, middlewares=MIDDLEWARES, variations=st.lists(VARIATIONS, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
async def test_engines_say_the_same(trees: list[Tree], middlewares: set[str], variations: list[Variation]) -> None:
    """Spans are equal attribute by attribute, metrics and lines wholly, and answers are those of the bare application."""
    bare = Site(trees, middlewares)
    asked = [
        (target, variation)
        for index, target in enumerate(bare.targets[:8])
        for variation in {"as it is", variations[index % len(variations)]}
    ]
    answers = await serve(bare, asked)
    said: dict[Engine, Any] = {}
    for engine in ("obslib", "contrib"):
        site = Site(trees, middlewares)
        with capture(site.app, Settings(service_name="shop", extra_registries=(), engine=engine)) as telemetry:
            assert await serve(site, asked) == answers
            assert len(telemetry.spans) == len(telemetry.access_lines) == len(asked)
            check_templates(asked, telemetry)
            said[engine] = (
                *(said_by(span) for span in telemetry.spans),
                *(line_without_stack(line) for line in telemetry.access_lines),
                *telemetry.metrics_text(openmetrics=True).splitlines(),
            )
    for ours, theirs in zip(said["obslib"], said["contrib"], strict=True):
        assert theirs == ours


def test_allowed_differences_are_written_down() -> None:
    """Every difference that is allowed stands in docs/comparison.md, with its reason."""
    page = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text()
    for what, reason in ALLOWED.items():
        assert f"| `{what}` | {reason} |" in page
