"""`python -m obslib`: see `obslib --help`."""

import sys

from obslib._cli import main

sys.exit(main())
