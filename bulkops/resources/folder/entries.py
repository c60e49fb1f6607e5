"""What stands directly below a root: of which kind it is, and whether a job may touch it."""

from __future__ import annotations

import os
import stat
from typing import Final

import msgspec

from bulkops.resources.paths import FileKey

#: Why an entry is left alone: the code of the wire and what to say.
UNFIT: Final[dict[str, tuple[str, str]]] = {
    "link": ("INELIGIBLE", "it is a symbolic link"),
    "fifo": ("INELIGIBLE", "it is a FIFO"),
    "socket": ("INELIGIBLE", "it is a socket"),
    "device": ("INELIGIBLE", "it is a device"),
    "mount": ("INELIGIBLE", "something else is mounted there"),
    "ours": ("PROTECTED", "it is, or holds, a database, a configuration or a folder of the server's"),
}
_KINDS: Final = {
    stat.S_IFDIR: "folder",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


class Ground(msgspec.Struct, frozen=True):
    """What is compared with: the root's file system, and what must never be touched."""

    dev: int
    forbidden: frozenset[FileKey]


def kind_of(found: os.stat_result) -> str:
    """Return ``folder``, ``file``, or what else it is."""
    return _KINDS.get(stat.S_IFMT(found.st_mode), "device")


def odd_of(found: os.stat_result, ground: Ground) -> str | None:
    """Return the key in `UNFIT` of why an entry is left alone, ``None`` when it is fit."""
    kind = kind_of(found)
    if kind not in ("folder", "file"):
        return kind
    if found.st_dev != ground.dev:
        return "mount"
    return "ours" if (found.st_dev, found.st_ino) in ground.forbidden else None
