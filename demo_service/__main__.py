"""`python -m demo_service <role>`: the shop, payments, the worker, or load on them."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demo_service.config import Config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one role; return 2 with one sentence when it cannot start as it was asked to."""
    options = _parser().parse_args(arguments)
    if options.role == "load":
        # Alone: locust replaces the standard library's sockets as soon as it is imported.
        from demo_service import load  # noqa: PLC0415

        return load.run(
            options.url,
            shape=options.shape,
            rate_rps=options.rate_rps,
            duration_seconds=options.duration_seconds,
        )
    from demo_service.config import Config, SetupError  # noqa: PLC0415
    from obslib.exceptions import ObslibError  # noqa: PLC0415

    try:
        return _serve(options, Config.from_env())
    except (SetupError, ObslibError) as error:
        print(f"demo_service {options.role}: {error}", file=sys.stderr)  # noqa: T201 -- there is no logging yet
        return 2


def _serve(options: argparse.Namespace, config: "Config") -> int:
    from demo_service import capacity  # noqa: PLC0415

    if options.role == "worker":
        from demo_service import worker  # noqa: PLC0415

        return worker.run(config, metrics_port=options.metrics_port, capacity=capacity.DEFAULT)
    from demo_service import server  # noqa: PLC0415

    if options.role == "payments":
        from demo_service.payments import create_app  # noqa: PLC0415
    else:
        from demo_service.app import create_app  # noqa: PLC0415
    return server.serve(lambda health: create_app(config, health=health), config, host=options.host, port=options.port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo_service", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    for role, port in (("shop", 8000), ("payments", 8001)):
        service = roles.add_parser(role)
        service.add_argument("--host", default="127.0.0.1")
        service.add_argument("--port", type=_port, default=port)
    worker = roles.add_parser("worker")
    worker.add_argument("--metrics-port", type=_port, default=9200)
    load = roles.add_parser("load")
    load.add_argument("--url", required=True)
    load.add_argument("--shape", choices=("steady", "spike", "wave"), default="steady")
    load.add_argument("--rate-rps", type=_positive, help="requests a second: the steady rate, or the highest one")
    load.add_argument("--duration-seconds", type=_positive, help="stop after this; without it, on SIGINT or SIGTERM")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"{port} is no port")
    return port


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
