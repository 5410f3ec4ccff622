"""Start a program and inherit every process that it leaves behind, so that their processor time is counted.

``python -m rig.keeper PROGRAM ARGUMENTS…``: OpenSSH's server often ends a session's parent before the process that
did the work, whose time then goes to whoever adopts it.  Here that is this process, which waits for it.  Ends with
the program's exit code, and passes SIGTERM and SIGINT on to it.
"""

import ctypes
import os
import signal
import subprocess
import sys

_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Run the program to its end and wait for whatever ends meanwhile."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    # The program's standard output goes straight to our parent; we say nothing ourselves.
    program = subprocess.Popen(sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: os.kill(program.pid, received))
    while True:
        pid, status = os.wait()
        if pid == program.pid:
            return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    sys.exit(main())
