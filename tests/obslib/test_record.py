"""The record of a request: what few requests have takes no place in the others."""

import pytest

from obslib import _record
from obslib._record import RequestRecord


def a_record() -> RequestRecord:
    return RequestRecord.begin("GET", "/", "http", "1.1", {}, "", "", 0, 0)


def test_what_is_rare_has_a_default_until_it_is_set() -> None:
    """And one field that is set leaves the others what they were."""
    record = a_record()
    assert (record.rare, record.exception, record.is_urgent, record.original_method) == (None, None, False, "")

    record.is_urgent = True

    assert (record.exception, record.is_urgent, record.time_to_first_byte_ns) == (None, True, 0)
    assert a_record().is_urgent is False
    assert isinstance(RequestRecord.exception, _record._Rare)  # help() and debuggers look there


def test_threads_that_set_the_first_rare_fields_at_once_lose_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`obslib.bind` is called in threads, while the client of the same request may be going away."""
    record = a_record()

    class Contested:
        """A lock that another thread has had first."""

        def __enter__(self) -> None:
            record.rare = {"client_disconnected": True}

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(_record._Rare, "_lock", Contested())

    record.is_urgent = True

    assert (record.is_urgent, record.client_disconnected) == (True, True)
