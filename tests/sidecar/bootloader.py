"""What stands between a host and a server in a packaged binary: a process that starts it and waits for it.

It does as PyInstaller's bootloader does for one file: the child inherits the pipes, signals that can be caught
are handed on, and the child's exit code is its own. Killed, it leaves the child behind.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the command in the arguments as a child."""
    child = os.fork()
    if child == 0:
        os.execvp(sys.argv[1], sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda caught, _: os.kill(child, caught))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
