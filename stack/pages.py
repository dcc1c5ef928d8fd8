"""Pages worth opening: only those that load and show something are ever printed."""

from html.parser import HTMLParser
from typing import Final

import httpx

from obslib import names
from stack.components.catalogue import ALERTMANAGER, HAPROXY, PROMETHEUS
from stack.plan import AUTOSCALER, Plan
from stack.processes import SHOP

REPLICAS_UP: Final = f'count(up{{{names.LABEL_SERVICE}="{SHOP}"}} == 1)'
REQUESTS_SEEN: Final = f'sum({names.HTTP_SERVER_REQUEST_DURATION}_count{{{names.LABEL_SERVICE}="{SHOP}"}}) > 0'


async def that_load(plan: Plan, http: httpx.AsyncClient) -> dict[str, str]:
    """The pages by title, without those that are empty or answer an error here."""
    found: dict[str, str] = {}
    for title, urls in _candidates(plan).items():
        for url in urls:
            if title not in found and await _shows_something(url, http):
                found[title] = url
    return found


def _candidates(plan: Plan) -> dict[str, tuple[str, ...]]:
    pages: dict[str, tuple[str, ...]] = {
        "the shop": (f"{plan.shop_url}/v1/products",),
        "its API": (f"{plan.shop_url}/docs",),
        "its metrics": (plan.url("shop-1", "/metrics"),),
    }
    if plan.has(PROMETHEUS.name):
        graph = f"/graph?g0.expr={names.HTTP_SERVER_ACTIVE_REQUESTS}&g0.tab=0"
        # Debian's Prometheus has the old pages only, and drops the query on the way from /graph to them.
        pages["Prometheus"] = (plan.url("prometheus", f"/classic{graph}"), plan.url("prometheus", graph))
        pages["its targets"] = (plan.url("prometheus", "/classic/targets"), plan.url("prometheus", "/targets"))
    if plan.has(ALERTMANAGER.name):
        pages["Alertmanager"] = (plan.url("alertmanager"),)
    if plan.autoscales:
        pages["why it scaled"] = (plan.url(AUTOSCALER, "/v1/decisions"),)
    if plan.has(HAPROXY.name):
        pages["HAProxy"] = (plan.url("haproxy_metrics", "/metrics"),)
    return pages


async def _shows_something(url: str, http: httpx.AsyncClient) -> bool:
    try:
        answer = await http.get(url)
        if not answer.is_success or not answer.text.strip():
            return False
        if "html" not in answer.headers.get("content-type", ""):
            return True
        # A page drawn by a script is empty until the script has come.
        page = _Page()
        page.feed(answer.text)
        for address in page.scripts:
            script = await http.get(answer.url.join(address))
            if not script.is_success or not script.content:
                return False
    except httpx.HTTPError:
        return False
    return bool(page.scripts or page.has_text)


class _Page(HTMLParser):
    """What a page says and which scripts of its own server it needs."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.has_text = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        source = dict(attrs).get("src")
        if tag == "script" and source and "://" not in source:
            self.scripts.append(source)

    def handle_data(self, data: str) -> None:
        self.has_text = self.has_text or bool(data.strip())
