"""`python -m demo_service.healthcheck URL`: ends with 0 if the URL answers well; the image has no other HTTP client."""

import sys
import urllib.error
import urllib.request

_TIMEOUT_SECONDS = 3.0


def main(url: str) -> int:
    """Return 0, or 1 and why not on stderr."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS):  # noqa: S310 -- whoever runs it chose the URL
            return 0
    except (urllib.error.URLError, OSError) as error:
        print(f"{url}: {error}", file=sys.stderr)  # noqa: T201 -- Docker keeps what a health check says
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
