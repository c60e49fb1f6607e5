"""`bulkops` and `python -m bulkops`: the command, and a quicker way to the sidecar, whose host is waiting."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line of this process."""
    gc.disable()  # nothing that a start makes is garbage; a command collects again when it begins
    if sys.argv[1:2] == ["sidecar"]:
        from bulkops.sidecar.options import read

        options = read(sys.argv[2:])
        if options is not None:
            from bulkops.sidecar.process import run

            sys.exit(run(options))
    from bulkops.cli import main as command

    command(prog_name="bulkops")


if __name__ == "__main__":
    main()
