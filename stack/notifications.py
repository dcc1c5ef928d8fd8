"""What Alertmanager has told: one line of JSON a message, and how people read it."""

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from stack.alerting import WATCHDOG
from stack.logs import open_log, parse, tail
from stack.ports import HOST, is_free
from stack.terminal import Style

_FIRING: Final = "firing"
# As prometheus/templates/obslib.tmpl writes them.
_TITLE: Final = re.compile(r"\[(?P<status>[A-Z]+)[^]]*\] (?:(?P<severity>\w+): )?(?P<alert>.+)")
_SUMMARY: Final = re.compile(r"^\*(.+)\*(?: \(over\))?$", re.MULTILINE)
_LINK: Final = re.compile(r"<(?P<url>https?://[^|>\s]+)\|(?P<name>\w+)>")
_LINK_ANNOTATION: Final = "_url"
# The watchdog's are among them.
_LINES_LOOKED_AT: Final = 100_000

Message = Mapping[str, Any]  # Any: JSON of Alertmanager


@dataclass(frozen=True, kw_only=True)
class Notification:
    """
    One message about a group of alerts.

    Args:
        time: when it came, RFC 3339.
        severity: how urgent: what a chat's message says, else the receiver's name.
        status: `firing` or `resolved`.
        alert: the alert's name and whom it is about.
        summaries: a sentence for each alert of the group.
        links: by what they lead to: runbook, dashboard, traces, logs.

    """

    time: str
    severity: str
    status: str
    alert: str
    summaries: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, severity: str, message: Message) -> Self:
        """
        Understand a message in the chat's format or in Alertmanager's own.

        Raises:
            ValueError: it is neither.

        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            fields = _of_chat(message) if "attachments" in message else _of_webhook(message)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"no message of Alertmanager: {error!r}") from error
        return cls(**{"time": now, "severity": severity, **fields})


def _of_chat(message: Message) -> dict[str, Any]:  # Any: a notification's fields
    (attachment,) = message["attachments"]
    title = _TITLE.match(attachment["title"])
    if title is None:
        raise ValueError("no message of Alertmanager: its title has no status")
    text = html.unescape(attachment["text"])
    links: dict[str, str] = {}
    for link in _LINK.finditer(text):
        # Alerts of a group lead to the same pages but for their time: the first is as good as any.
        links.setdefault(link["name"], link["url"])
    return {
        **({"severity": title["severity"]} if title["severity"] else {}),
        "status": title["status"].lower(),
        "alert": title["alert"],
        "summaries": _SUMMARY.findall(text),
        "links": links,
    }


def _of_webhook(message: Message) -> dict[str, Any]:  # Any: a notification's fields
    labels, alerts = message["groupLabels"], message["alerts"]
    annotations = alerts[0]["annotations"]
    return {
        "status": message["status"],
        "alert": " ".join(labels[key] for key in ("alertname", "namespace", "service") if labels.get(key)),
        "summaries": [alert["annotations"]["summary"] for alert in alerts],
        "links": {
            name.removesuffix(_LINK_ANNOTATION): url
            for name, url in annotations.items()
            if name.endswith(_LINK_ANNOTATION)
        },
    }


class NotificationLog:
    """
    Keeps messages, newest last; the oldest are set aside with the file.

    Args:
        path: the file.

    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, notification: Notification) -> None:
        with open_log(self._path) as file:
            file.write(json.dumps(asdict(notification)).encode() + b"\n")

    def last(self, count: int) -> list[Notification]:
        """The newest messages to people, oldest first: the watchdog's are none."""
        return [one for one in self._read() if one.severity != WATCHDOG][-count:]

    def _read(self) -> Iterator[Notification]:
        for line in tail(self._path, _LINES_LOOKED_AT):
            if fields := parse(line):
                yield Notification(**fields)  # type: ignore[arg-type] # as it was written


def render(notifications: list[Notification], style: Style, answers: Callable[[int], bool] | None = None) -> str:
    """
    Messages for people: when, how urgent, what, and where to look.

    Args:
        notifications: oldest first.
        style: for a terminal, or plain.
        answers: whether somebody listens at a port of this machine; looked at if not given.

    """
    if not notifications:
        return "Nobody was told anything yet."
    lines: list[str] = []
    for one in notifications:
        moment = datetime.fromisoformat(one.time).strftime("%Y-%m-%d %H:%M:%S UTC")
        status = style.error(one.status) if one.status == _FIRING else style.good(one.status)
        lines.append(f"{style.faint(moment)}  {style.strong(one.severity)}  {status}  {one.alert}")
        lines += [f"    {summary}" for summary in one.summaries]
        lines += [f"    {style.faint(f'{name:<10}')} {url}" for name, url in one.links.items()]
    links = [link for one in notifications for link in one.links.items()]
    for port, names in _silent(links, answers or (lambda port: not is_free(port))).items():
        hint = " Grafana runs in containers: docs/compose.md." if "dashboard" in names else ""
        lines.append(f"Nobody answers at {HOST}:{port} ({', '.join(sorted(names))}).{hint}")
    return "\n".join(lines)


def _silent(links: Iterable[tuple[str, str]], answers: Callable[[int], bool]) -> dict[int, set[str]]:
    """Which links lead to ports of this machine where nobody listens, by port."""
    found: dict[int, set[str]] = {}
    for name, url in links:
        parts = urlsplit(url)
        if parts.hostname == HOST and parts.port is not None:
            found.setdefault(parts.port, set()).add(name)
    return {port: names for port, names in found.items() if not answers(port)}
