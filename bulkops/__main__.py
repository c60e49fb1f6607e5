"""`python -m bulkops`: the command, where its script is not on the path."""

from __future__ import annotations

from bulkops.cli import main

if __name__ == "__main__":
    main(prog_name="bulkops")
