"""`python -m obslib._doctor FILE_DESCRIPTOR APPLICATION`: examine, write the report as JSON, and end at once."""

import json
import os
import sys


def main() -> None:
    """Run one examination; `diagnosis` calls this in a process of its own."""
    from obslib._doctor.examination import examine  # noqa: PLC0415 -- only in the process that examines

    with os.fdopen(int(sys.argv[1]), "w") as stream:
        json.dump(examine(sys.argv[2]).as_json(), stream)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads, servers and exit handlers that the application has made end here, unheard


main()
