"""`python pinned.py CPU COMMAND …` becomes the command, on one CPU."""

import os
import sys

os.sched_setaffinity(0, {int(sys.argv[1])})
os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 -- that is its job
