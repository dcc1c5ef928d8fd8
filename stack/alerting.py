"""The committed prometheus/alertmanager.yml made to work here: its secrets' places and its receivers' addresses."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from stack.errors import StackError
from stack.state import StateDirectory

#: The receivers whose messages the supervisor takes, in the chat's format, by their names in alertmanager.yml.
CHAT: Final = ("page", "ticket", "info")
#: Where one address stands for all three, their messages' titles tell them apart.
ANY_CHAT: Final = "chat"
WATCHDOG: Final = "watchdog"
SCALE: Final = "scale"
_COMMITTED_SECRETS: Final = "/etc/alertmanager/secrets"

Document = dict[str, Any]  # Any: YAML


@dataclass(frozen=True)
class Secrets:
    """
    The files of secrets that Alertmanager reads.

    Args:
        directory: where they are.
        receiver_url: where the supervisor takes messages.

    """

    directory: Path
    receiver_url: str

    def write(self, state: StateDirectory, token: str) -> None:
        """Write them, readable by this user alone; a chat's address is its secret."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        for name in ("autoscaler_token", "watchdog_token"):
            state.write_secret(self.directory / name, token + "\n")
        for receiver in CHAT:
            state.write_secret(self.chat_url(receiver), f"{self.receiver_url}/{token}/{receiver}\n")

    def chat_url(self, receiver: str) -> Path:
        return self.directory / f"chat_url_{receiver}"

    def here(self, committed: str) -> str:
        """Where a file named in the committed configuration is."""
        return committed.replace(_COMMITTED_SECRETS, str(self.directory), 1)


def configuration(committed: str, secrets: Secrets, *, autoscaler_url: str) -> str:
    """
    What Alertmanager is started with.

    Args:
        committed: the text of prometheus/alertmanager.yml.
        secrets: the files to read.
        autoscaler_url: who takes alerts that ask for replicas.

    Raises:
        StackError: the committed configuration has a receiver that nobody takes messages of here.

    """
    document: Document = yaml.safe_load(committed)
    # The three chats share one list in the file; each gets its own, with an address that says whose message it is.
    document["receivers"] = [copy.deepcopy(receiver) for receiver in document["receivers"]]
    webhooks = {SCALE: autoscaler_url, WATCHDOG: f"{secrets.receiver_url}/{WATCHDOG}"}
    for receiver in document["receivers"]:
        _lead_here(receiver, secrets, webhooks)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _lead_here(receiver: Document, secrets: Secrets, webhooks: Mapping[str, str]) -> None:
    name = receiver["name"]
    if not (name in webhooks and "webhook_configs" in receiver) and not (name in CHAT and "slack_configs" in receiver):
        raise StackError(f"prometheus/alertmanager.yml: nobody takes messages for the receiver {name!r} here.")
    for webhook in receiver.get("webhook_configs", []):
        webhook["url"] = webhooks[name]
        authorization = webhook["http_config"]["authorization"]
        authorization["credentials_file"] = secrets.here(authorization["credentials_file"])
    for chat in receiver.get("slack_configs", []):
        chat["api_url_file"] = str(secrets.chat_url(name))
