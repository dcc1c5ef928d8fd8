"""`python -m autoscaler`: keeps services at the replicas their rules ask for; `AUTOSCALER_*` variables set it up."""

import argparse
import logging
import sys
from collections.abc import Sequence

import uvicorn

from autoscaler.app import create_app
from autoscaler.config import Config, SetupError
from obslib.exceptions import ObslibError


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; return 2 with one sentence when it cannot start as it was asked to."""
    argparse.ArgumentParser(prog="python -m autoscaler", description=__doc__).parse_args(arguments)
    try:
        config = Config.from_env()
        app = create_app(config)
    except (SetupError, ObslibError) as error:
        print(f"autoscaler: {error}", file=sys.stderr)  # noqa: T201 -- there is no logging yet
        return 2
    # A line for each question to Prometheus, several a second, would bury the decisions; they are counted.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
    )
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
