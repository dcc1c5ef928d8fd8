"""The queue between shop and worker: Celery over Redis, or over files where there is no Redis."""

from pathlib import Path
from typing import Any, Final

from celery import Celery
from kombu import Exchange, Queue

from demo_service.config import Config, SetupError

TASK: Final = "demo_service.fulfil_order"
QUEUE: Final = "fulfilment"

_SOCKET_TIMEOUT_SECONDS: Final = 1.0
#: Longer than the blocking read a consumer repeats.
_CONSUMER_SOCKET_TIMEOUT_SECONDS: Final = 30.0
_POLLING_INTERVAL_SECONDS: Final = 0.2
#: Redis hands an unacknowledged message out again after this; the outbox's lease does it sooner.
_VISIBILITY_TIMEOUT_SECONDS: Final = 600


def create_celery(config: Config, *, consuming: bool) -> Celery:
    """
    Return a Celery application that publishes, or consumes, fulfilment jobs.

    Raises:
        SetupError: The queue's directory cannot be made.
    """
    celery = Celery("demo_service", set_as_current=False)
    celery.conf.update(
        broker_connection_timeout=_SOCKET_TIMEOUT_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_publish_retry=False,
        # No exchange: one queue needs no bindings, and the filesystem transport's table of them is not safe to share.
        task_queues=[Queue(QUEUE, Exchange(""), routing_key=QUEUE)],
        task_default_queue=QUEUE,
        task_default_exchange="",
        task_default_routing_key=QUEUE,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        **_transport(config.broker_url, consuming=consuming),
    )
    return celery


def publish(celery: Celery, order_id: str, *, expires_seconds: float) -> None:
    """
    Hand one job to the broker, or fail within about a second.

    Raises:
        kombu.exceptions.OperationalError: The broker is away.
    """
    # A message older than its lease has a younger twin: the worker throws it away unread.
    celery.send_task(TASK, args=[order_id], queue=QUEUE, expires=expires_seconds, retry=False)


def _transport(url: str, *, consuming: bool) -> dict[str, Any]:
    if url.startswith("filesystem://"):
        folder = Path(url.removeprefix("filesystem://"))
        messages, processed = folder / "messages", folder / "staging"
        try:
            for needed in (messages, processed):
                needed.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"SHOP_BROKER_URL: no queue can be made in {folder}: {error.strerror}. "
                "Name a directory that can be written."
            ) from None
        return {
            "broker_url": "filesystem://",
            "broker_transport": "demo_service.filequeue:Transport",
            "broker_transport_options": {
                "data_folder_in": str(messages),
                "data_folder_out": str(messages),
                "processed_folder": str(processed),
                "control_folder": str(folder / "control"),
                "polling_interval": _POLLING_INTERVAL_SECONDS,
            },
        }
    return {
        "broker_url": url,
        "broker_transport_options": {
            "socket_timeout": _CONSUMER_SOCKET_TIMEOUT_SECONDS if consuming else _SOCKET_TIMEOUT_SECONDS,
            "socket_connect_timeout": _SOCKET_TIMEOUT_SECONDS,
            "visibility_timeout": _VISIBILITY_TIMEOUT_SECONDS,
            # Without it a publisher tries a hundred times before it says that the broker is away.
            **({} if consuming else {"max_retries": 0}),
        },
    }
