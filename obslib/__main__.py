"""`python -m obslib`: see `obslib --help`."""

import sys

from obslib._cli import main

if __name__ == "__main__":
    sys.exit(main())
