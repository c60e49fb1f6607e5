"""Where a packaged binary begins: the command, and afterwards what a dead bootloader has left lying about.

One file is unpacked into a temporary folder by a bootloader, which starts us and removes the folder when we have
ended. Who kills that bootloader, as hosts do that know of one process only, leaves the folder to us.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from bulkops.__main__ import main as command

_UNPACKED = "_MEI"


def main() -> None:
    """Run the command line of this process."""
    bootloader = os.getppid()
    try:
        command()
    finally:
        unpacked = unpacked_folder(getattr(sys, "_MEIPASS", None))
        if unpacked is not None and os.getppid() != bootloader:
            shutil.rmtree(unpacked, ignore_errors=True)


def unpacked_folder(place: str | None) -> Path | None:
    """Return the temporary folder of one file; ``None`` for a folder that was installed, and from source."""
    folder = None if place is None else Path(place)
    return folder if folder is not None and folder.name.startswith(_UNPACKED) else None


if __name__ == "__main__":
    main()
