"""What the name of a file says: the photo it belongs to, and whether it is its JPG or its RAW.

Cameras write ``IMG_1.JPG`` and ``IMG_1.CR2``, people ``img_2.jpeg``: the ending says the kind in any case, the
base is taken as it is. What begins with a dot is ours or somebody's secret, and no photo.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The two files that a photo may have."""

    JPG = "jpg"
    RAW = "raw"


_JPG: Final = frozenset({"jpg", "jpeg", "jpe"})
_RAW: Final = frozenset(
    {
        *(
            "raw",
            "dng",
            "cr2",
            "cr3",
            "crw",
            "nef",
            "nrw",
            "arw",
            "srf",
            "sr2",
            "orf",
            "rw2",
            "raf",
            "pef",
            "srw",
        ),
        *("x3f", "3fr", "fff", "iiq", "kdc", "dcr", "mrw", "erf", "mef", "mos", "rwl"),
    }
)
_MAX_BYTES: Final = 255


def split(name: str) -> tuple[str, Kind] | None:
    """Take a file's name apart; ``None`` when it is no photo's."""
    base, dot, ending = name.rpartition(".")
    if not dot or explain(base) is not None:
        return None
    lowered = ending.lower()
    if lowered in _JPG:
        return base, Kind.JPG
    return (base, Kind.RAW) if lowered in _RAW else None


def explain(name: object) -> str | None:
    """Say why a value cannot be the name of a project or the base of a photo, ``None`` when it can."""
    if not isinstance(name, str) or not name:
        return "it is no name"
    if name.startswith("."):
        return "it begins with a dot"
    if "/" in name or "\0" in name:
        return "it is a path, not a name"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is no UTF-8"
    return "it is too long" if size > _MAX_BYTES else None


def is_sayable(name: str) -> bool:
    """Say whether a name that the file system gave can be written: its bytes are UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def bases_of(files: Iterable[str]) -> list[str]:
    """Return the photos that files of these names belong to, each once; what is no photo's stays as it is."""
    found: dict[str, None] = {}
    for name in files:
        parts = split(name)
        found[parts[0] if parts else name] = None
    return list(found)


def reference(project: str, name: str) -> str:
    """Write the id of what has no row: a photo as ``project/base``, a file in the trash as ``project/.trash/name``."""
    return f"{project}/{name}"


def parse_reference(text: str) -> tuple[str, str]:
    """Read what `reference` wrote: the project, and what is in it.

    Raises:
        ValueError: it is no such id.
    """
    project, slash, name = text.partition("/")
    trash = name.startswith(".trash/")
    why = explain(project) or (None if trash and "/" not in name[7:] and name[7:] else explain(name))
    if not slash or why is not None:
        raise ValueError(f"{text!r} is neither an id of a row nor project/base: {why or 'no slash'}")
    return project, name
