"""httpx: each request that goes over a network, redirects one by one, as its transports are asked for it."""

from typing import Any, Final

import httpx

from obslib._calls import Call, Counters, is_http_suppressed, timed, timed_coroutine
from obslib._client_metrics import ClientMetrics
from obslib._method_patch import MethodPatch, MethodPatches

COUNTERS: Final = Counters()


def _begin(metrics: ClientMetrics, _transport: Any, arguments: tuple[Any, ...]) -> Call | None:
    return None if is_http_suppressed() else Call(metrics, _count, arguments[0])


def _count(
    metrics: ClientMetrics,
    request: httpx.Request,
    response: httpx.Response | None,
    duration_ns: int,
    error: BaseException | None,
) -> None:
    status_code = 0 if response is None else response.status_code
    metrics.http_request(request.method, request.url.host, status_code, duration_ns, error)


_PATCHES: Final = MethodPatches(
    MethodPatch(httpx.HTTPTransport, "handle_request", timed(COUNTERS, _begin)),
    MethodPatch(httpx.AsyncHTTPTransport, "handle_async_request", timed_coroutine(COUNTERS, _begin)),
)
#: Lets calls be counted, and undoes that.
install, uninstall = _PATCHES.put_in, _PATCHES.take_out
