"""
`python -m grafana.plot`: pictures of the dashboards, drawn from their own JSON and a running Prometheus.

For the eye, where no Grafana runs: panels in their grid, with titles, units, legends and thresholds. Needs matplotlib.
"""

import argparse
import json
import math
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from grafana.promql import EVERY_INSTANCE

_BOARDS: Final = Path(__file__).parent / "generated"
_POINTS: Final = 240
_COLUMNS: Final = 24
_ROWS_AN_INCH: Final = 3.4
_CHOSEN: Final = {"namespace": ".*", "instance": EVERY_INSTANCE, "route": ".*", "slo": ".+", "__rate_interval": "20s"}
_UNITS: Final = {
    "s": (1, " s"),
    "currencyEUR": (1, " €"),
    "percentunit": (100, " %"),
    "bytes": (2**-20, " MiB"),
    "ops": (1, "/s"),
    "reqps": (1, "/s"),
    "none": (1, ""),
    "short": (1, ""),
}
_LONGEST_LEGEND: Final = 8

Json = dict[str, Any]  # Any: JSON
Series = tuple[Mapping[str, str], Sequence[tuple[float, float]]]


class Source:
    """
    Answers panels' queries.

    Args:
        url: of Prometheus.
        service: the one the dashboard is about.
        seconds: how far back.

    """

    def __init__(self, url: str, service: str, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._chosen = {**_CHOSEN, "service": service, "__range": f"{seconds:.0f}s"}
        self._step = max(1.0, seconds / _POINTS)
        self.until = time.time()

    def series(self, target: Json) -> list[Series]:
        """What a panel's query returns, over time or, where it asks for that, now."""
        expression = re.sub(r"\$([a-z_]\w*)", lambda match: self._chosen[match.group(1)], target["expr"])
        if target.get("instant"):
            asked = {"query": expression, "time": f"{self.until}"}
        else:
            asked = {
                "query": expression,
                "start": f"{self.until - self._seconds}",
                "end": f"{self.until}",
                "step": f"{self._step}",
            }
        endpoint = "query" if target.get("instant") else "query_range"
        data = urllib.parse.urlencode(asked).encode()
        with urllib.request.urlopen(f"{self._url}/api/v1/{endpoint}", data, timeout=60) as answer:  # noqa: S310 -- whoever runs it chose the URL
            found = json.load(answer)["data"]["result"]
        return [
            (entry["metric"], self._samples(entry["values"] if "values" in entry else [entry["value"]]))
            for entry in found
        ]

    def _samples(self, pairs: list[tuple[float, str]]) -> list[tuple[float, float]]:
        """Seconds from now, and values; where some are missing the line breaks, as in Grafana."""
        samples: list[tuple[float, float]] = []
        for at, value in pairs:
            since = float(at) - self.until
            if samples and since - samples[-1][0] > 1.5 * self._step:
                samples.append((since, math.nan))
            samples.append((since, float(value)))
        return samples


def draw(board: Json, source: Source, path: Path) -> None:
    """
    Draw one dashboard as a PNG.

    Args:
        board: its JSON.
        source: answers its queries.
        path: where to.

    """
    import matplotlib as mpl  # noqa: PLC0415 -- it lives in the bench's own environment

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    panels = board["panels"]  # what a folded row has is drawn when somebody opens it
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(16, height / _ROWS_AN_INCH), facecolor="white")
    figure.text(0.99, 1, board["title"], ha="right", va="top", fontsize=14, weight="bold")
    for panel in panels:
        place = panel["gridPos"]
        left, width = place["x"] / _COLUMNS, place["w"] / _COLUMNS
        bottom, tall = 1 - (place["y"] + place["h"]) / height, place["h"] / height
        if panel["type"] == "row":
            figure.text(0.01, bottom + 0.2 * tall, panel["title"], fontsize=11, weight="bold", color="#444444")
            continue
        graph = panel["type"] in {"timeseries", "heatmap"}
        margin = 0.028 if graph else 0.008
        axis = figure.add_axes(
            (left + margin, bottom + 0.24 * tall, width - margin - 0.012, tall * (0.58 if graph else 0.5))
        )
        axis.set_title(panel["title"], fontsize=8, loc="left")
        _panel(axis, panel, source)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _panel(axis: Any, panel: Json, source: Source) -> None:  # Any: matplotlib is not typed here
    defaults = panel["fieldConfig"]["defaults"]
    factor, unit = _UNITS.get(defaults.get("unit", "none"), (1, f" {defaults.get('unit')}"))
    targets = [target for target in panel["targets"] if target["datasource"]["type"] == "prometheus"]
    found = [(target, labels, samples) for target in targets for labels, samples in source.series(target)]
    if not found:
        axis.text(0.5, 0.5, "no data", ha="center", va="center", fontsize=9, color="#999999", transform=axis.transAxes)
        axis.set_axis_off()
    elif panel["type"] == "timeseries":
        dashed = {
            override["matcher"]["options"]
            for override in panel["fieldConfig"]["overrides"]
            if override["matcher"]["id"] == "byFrameRefID"
        }
        for place, (target, labels, samples) in enumerate(found):
            axis.plot(
                [at / 60 for at, _ in samples],
                [value * factor for _, value in samples],
                linewidth=1,
                linestyle="--" if target["refId"] in dashed else "-",
                color="#c0392b" if target["refId"] in dashed else None,
                label=_legend(target, labels) if place < _LONGEST_LEGEND else None,
            )
        for step in (defaults.get("thresholds") or {}).get("steps", [])[1:]:
            axis.axhline(step["value"] * factor, color=step["color"], linestyle=":", linewidth=1)
        axis.legend(fontsize=5.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)
        axis.tick_params(labelsize=6)
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}{unit}")
    else:
        lines = [
            f"{_legend(target, labels)}  {samples[-1][1] * factor:.4g}{unit}".strip()
            for target, labels, samples in found
            if math.isfinite(samples[-1][1])
        ]
        size = 16 if len(lines) == 1 and panel["type"] == "stat" else 6
        axis.text(0.02, 0.95, "\n".join(lines[:14]), va="top", fontsize=size, transform=axis.transAxes)
        axis.set_axis_off()


def _legend(target: Json, labels: Mapping[str, str]) -> str:
    template = target.get("legendFormat") or ""
    if template in {"", "__auto"}:
        return (
            ""
            if template == "" and not target.get("instant")
            else ", ".join(value for name, value in labels.items() if name != "__name__")
        )
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match.group(1), ""), template)


def main() -> None:
    """Draw all dashboards, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m grafana.plot", description=__doc__)
    parser.add_argument("uids", nargs="*", help="default: all")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--service", default="shop")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--output", type=Path, default=Path(".bench"))
    options = parser.parse_args()
    options.output.mkdir(exist_ok=True)
    for path in sorted(_BOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        if not options.uids or board["uid"] in options.uids:
            picture = options.output / f"{board['uid']}.png"
            draw(board, Source(options.prometheus, options.service, options.minutes * 60), picture)
            print(picture)  # noqa: T201 -- this is a command


if __name__ == "__main__":
    main()
