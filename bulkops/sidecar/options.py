"""What a sidecar is started with: arguments of the command line in, options out.

This is the quick way in, beside the one that every command takes: what parses options well costs a tenth of a
start. Whatever it does not know, it leaves to that one, also to say what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

_PATHS: Final = {"--data-dir": "data_dir", "--config": "config"}
_NUMBERS: Final = {"--port": ("port", 0, 65_535), "--host-pid": ("host_pid", 1, 2**32 - 1)}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `bulkops sidecar`; ``port`` 0 takes a free one."""

    data_dir: Path
    config: Path | None = None
    port: int = 0
    host_pid: int | None = None


def read(arguments: Sequence[str]) -> Options | None:
    """Read a command line that is plain and right, ``--name value`` or ``--name=value``; else ``None``."""
    found: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        name, is_pair, value = rest.pop(0).partition("=")
        if not is_pair:
            if not rest or rest[0].startswith("-"):
                return None
            value = rest.pop(0)
        if name in _PATHS and value:
            found[_PATHS[name]] = Path(value)
        elif name in _NUMBERS and value.isascii() and value.isdigit() and len(value) <= 10:
            field, low, high = _NUMBERS[name]
            if not low <= int(value) <= high:
                return None
            found[field] = int(value)
        else:
            return None
    return Options(**found) if "data_dir" in found else None
