"""Methods of other people's classes, replaced for a while."""

import functools
from collections.abc import Callable
from typing import Any, Final

#: Takes the method there is, returns what to call in its place.
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class MethodPatch:
    """
    Replaces a method of a class.

    Others wrap the same methods. What lies beneath a wrapper of theirs cannot be taken out: it stays, and is found and
    not put in twice when it is needed again.
    """

    def __init__(self, owner: type, name: str, wrap: Wrap) -> None:
        self._owner: Final = owner
        self._name: Final = name
        self._wrap = wrap
        self._ours: Callable[..., Any] | None = None
        self._theirs: Callable[..., Any] | None = None

    def put_in(self) -> None:
        """Replace the method, unless it still is."""
        if self._is_in():
            return
        self._theirs = theirs = vars(self._owner)[self._name]
        self._ours = functools.wraps(theirs)(self._wrap(theirs))
        setattr(self._owner, self._name, self._ours)

    def take_out(self) -> None:
        """Put the method back, unless somebody has wrapped ours meanwhile."""
        if vars(self._owner)[self._name] is self._ours:
            setattr(self._owner, self._name, self._theirs)

    def _is_in(self) -> bool:
        method: Any = vars(self._owner)[self._name]
        while method is not None:
            if method is self._ours:
                return True
            method = getattr(method, "__wrapped__", None)
        return False


class MethodPatches:
    """Several of them, replaced and put back together."""

    def __init__(self, *patches: MethodPatch) -> None:
        self._patches = patches

    def put_in(self) -> None:
        """Replace each method, unless it still is."""
        for patch in self._patches:
            patch.put_in()

    def take_out(self) -> None:
        """Put each back, unless somebody has wrapped ours meanwhile."""
        for patch in self._patches:
            patch.take_out()
