"""What was made for a key, kept for the next time that the key comes: most requests need a look-up only."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

AnyKey = TypeVar("AnyKey")
AnySequence = TypeVar("AnySequence", bound=Sequence[Any])

#: A caller who invents paths or user agents only empties what he has filled.
_MAX_KEPT: Final = 1024
_MAX_LENGTH: Final = 512


class Kept(dict[AnyKey, AnySequence]):
    """
    A dictionary that makes what it does not have, and forgets everything when it is full.

    Args:
        make: Makes the text, bytes or tuple for a key; a text or bytes longer than 512 are made anew each time.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[AnyKey], AnySequence]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: AnyKey) -> AnySequence:
        made = self._make(key)
        if len(made) <= _MAX_LENGTH:
            if len(self) >= _MAX_KEPT:
                self.clear()
            self[key] = made
        return made
