"""
Become a child that cannot outlive the supervisor, then run the program: `launch.py SUPERVISOR_PID PROGRAM [ARGUMENT…]`.

Linux sends the signal named by PR_SET_PDEATHSIG when the parent dies, also by `kill -9`, and keeps that promise across
exec. A file of its own, run by a bare interpreter (15 ms), because code between fork and exec of a threaded process can
deadlock.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Arm the signal, make sure the parent is still the supervisor, and become the program."""
    supervisor, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(supervisor):
        sys.exit("The supervisor is gone.")
    os.execvp(command[0], command)  # noqa: S606 - becoming another program is all this file does


if __name__ == "__main__":
    main()
