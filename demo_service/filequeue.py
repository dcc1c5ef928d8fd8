"""
kombu's filesystem transport, with messages that appear whole.

The original creates the message's file under its final name and writes afterwards; a consumer that looks in between
reads half a message and stops (https://github.com/celery/kombu/blob/v5.6.2/kombu/transport/filesystem.py, `_put`).
"""

import uuid
from pathlib import Path
from time import time_ns
from typing import Any, ClassVar

from kombu.transport import filesystem
from kombu.utils.encoding import str_to_bytes
from kombu.utils.json import dumps


class Channel(filesystem.Channel):  # type: ignore[misc] # kombu is not typed
    """Writes beside the queue and renames into it."""

    def _put(self, queue: str, payload: Any, **_options: Any) -> None:
        name = f"{time_ns()}_{uuid.uuid4()}.{queue}.msg"
        staged = Path(self.processed_folder) / name
        staged.write_bytes(str_to_bytes(dumps(payload)))
        staged.replace(Path(self.data_folder_out) / name)


class Transport(filesystem.Transport):  # type: ignore[misc] # kombu is not typed
    """The transport that Celery is told to use."""

    Channel = Channel
    #: kombu would take localhost for the missing host of a directory, and warn that it does.
    default_connection_params: ClassVar[dict[str, str]] = {}
