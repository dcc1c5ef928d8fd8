"""The trace that the first screen and `trace --last` offer."""

import json
from pathlib import Path

import pytest

from stack.errors import StackError
from stack.example import example_trace
from stack.traces import JaegerApi, Span, parse

SPANS = parse(json.loads(Path(__file__).with_name("recorded_trace.json").read_text()))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Jaeger that is away at first, and has the spans of all services at the third time; what it was told."""
    calls: list[str] = []

    class Jaeger(JaegerApi):
        def __init__(self, url: str) -> None:
            super().__init__(url)
            calls.append("opened")

        def newest(self, service: str, limit: int = 20) -> list[list[Span]]:
            calls.append("asked")
            match calls.count("asked"):
                case 1:
                    raise StackError("Jaeger does not answer")
                case 2:
                    return [[span for span in SPANS if span.service != "worker"]]
            return [SPANS]

        def close(self) -> None:
            super().close()
            calls.append("closed")

    monkeypatch.setattr("stack.example.JaegerApi", Jaeger)
    monkeypatch.setattr("stack.example.time.sleep", lambda _seconds: None)
    return calls


def test_the_example_went_through_every_service(calls: list[str]) -> None:
    """Jaeger is asked until it has such a trace, through one client, which is closed."""
    assert example_trace("http://127.0.0.1:16686") == SPANS[0].trace_id
    assert calls == ["opened", "asked", "asked", "asked", "closed"]


def test_without_jaeger_there_is_no_example(calls: list[str]) -> None:
    """Nobody is asked."""
    assert not example_trace("")
    assert calls == []
