"""Cursors of keyset pagination: opaque to callers, checked when they come back."""

import base64
import binascii
import re
from typing import Final

from demo_service.problems import Problem

_MAX_CHARACTERS: Final = 128
_INVALID: Final = "The cursor is not one this endpoint has given; start again without it."


def encode(*parts: str | int) -> str:
    """Return the cursor that continues after these parts."""
    return base64.urlsafe_b64encode(":".join(str(part) for part in parts).encode()).decode().rstrip("=")


def decode(cursor: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """
    Return the parts of a cursor, which must match the pattern's groups.

    Raises:
        Problem: 422, the cursor was not made here.
    """
    if len(cursor) > _MAX_CHARACTERS:
        raise Problem(422, _INVALID, kind="invalid-cursor")
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise Problem(422, _INVALID, kind="invalid-cursor") from None
    match = pattern.fullmatch(text)
    if match is None:
        raise Problem(422, _INVALID, kind="invalid-cursor")
    return match.groups()
