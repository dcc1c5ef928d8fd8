"""`python -m autoscaler.simulate`."""

import sys

from autoscaler.simulate.cli import main

if __name__ == "__main__":
    sys.exit(main())
