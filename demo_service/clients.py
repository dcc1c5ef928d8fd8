"""Who is asking: an API key if there is one, else an address."""

import hashlib
from typing import Final

from starlette.types import Scope

_HEADER: Final = b"x-api-key"
_DIGEST_CHARACTERS: Final = 32


def client_of(scope: Scope) -> str:
    """Return whose orders a request may see: a digest of its API key, `""` without one."""
    for name, value in scope["headers"]:
        if name == _HEADER and value:
            return hashlib.sha256(value).hexdigest()[:_DIGEST_CHARACTERS]
    return ""


def limited_party(scope: Scope) -> str:
    """Return who shares one rate limit: the API key's digest, else the caller's address."""
    client = client_of(scope)
    if client:
        return f"key:{client}"
    address = scope.get("client")
    return f"address:{address[0] if address else ''}"
