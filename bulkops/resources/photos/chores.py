"""What each action does to a photo, decided from its row and what is on disk: values in, values out.

An action is told by what its items are: rows of the table, photos that may have none, or files in the trash.
Nothing here reads the disk or the table; what needs doing and what is done already come out of one function, so
that a job's set of work and the work itself cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import msgspec

from bulkops.effects import Id
from bulkops.resources.paths import Identity, Seen
from bulkops.resources.photos.deeds import Deed, File, Verdict
from bulkops.resources.photos.names import Kind
from bulkops.resources.photos.projects import Listing, Trashed
from bulkops.resources.photos.rows import AVAILABLE, KEEP, Photo

_DAY_MS: Final = 86_400_000
_OPERATOR: Final = ["operator", "admin", "owner"]
_PROJECT: Final[dict[str, Any]] = {"type": "string", "title": "The project; without one, all of them"}
_FILES: Final[dict[str, Any]] = {
    "type": "array",
    "items": {"type": "string"},
    "title": "Only photos that files of these names belong to",
}


class Over(Enum):
    """What the items of an action are."""

    ROWS = "rows"
    BASES = "photos, by project/base"
    TRASH = "files in the trash, by project/.trash/name"


class Chore(msgspec.Struct, frozen=True, kw_only=True):
    """An action. ``looks``: which rows need it is seen on disk.

    ``roles``: ``None`` for those of its kind. ``batch_size``: where a batch holds no lock, nothing else bounds it.
    """

    over: Over
    final: bool
    looks: bool = True
    roles: list[str] | None = None
    batch_size: int | None = None
    options: dict[str, dict[str, Any]] = {}


CHORES: Final[dict[str, Chore]] = {
    "file_removal": Chore(over=Over.ROWS, final=False, looks=False, options={"project": _PROJECT}),
    "revert": Chore(over=Over.ROWS, final=False, looks=False, options={"project": _PROJECT}),
    "upload_postprocess": Chore(
        over=Over.BASES,
        final=True,
        roles=_OPERATOR,
        options={
            "project": _PROJECT,
            "files": _FILES,
            "new_only": {"type": "boolean", "default": False, "title": "Only photos that have no row yet"},
        },
    ),
    "generate_derivatives": Chore(
        over=Over.ROWS,
        final=True,
        roles=_OPERATOR,
        batch_size=8,
        options={"project": _PROJECT, "files": _FILES},
    ),
    "manifest_check": Chore(over=Over.ROWS, final=True, roles=_OPERATOR, options={"project": _PROJECT}),
    "folder_check": Chore(over=Over.BASES, final=True, roles=_OPERATOR, options={"project": _PROJECT}),
    "manifest_cleaning": Chore(over=Over.ROWS, final=False, options={"project": _PROJECT}),
    "trash_maintenance": Chore(
        over=Over.TRASH,
        final=True,
        options={
            "project": _PROJECT,
            "days": {"type": "number", "minimum": 0, "title": "How long files stay in the trash, in days"},
        },
    ),
}

_DONE: Final = "ALREADY_DONE"


def _skipped(code: str, message: str) -> Verdict:
    return Verdict("skipped", code, message)


def _refused(message: str) -> Verdict:
    return Verdict("failed", "REFUSED_PATH", message)


Verdicts = Deed | Verdict


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """An item in its place: who it is, and the folder it is in."""

    position: int
    item: Id
    project: str
    base: str
    listing: Listing


def check(photo: Photo, place: Place) -> Verdicts:
    """Compare a row's word on which files there are with the folder."""
    if place.listing.refused is not None:
        return _refused(place.listing.refused)
    actual = {kind: bool(place.listing.files(place.base, kind)) for kind in Kind}
    to = {AVAILABLE[kind]: int(there) for kind, there in actual.items() if photo.has(kind) != there}
    if not to:
        return _skipped(_DONE, "its row is right")
    return _deed(place, photo, to)


def revert(photo: Photo, place: Place) -> Verdicts:
    """Keep again what is there, and nothing else."""
    to = {KEEP[kind]: int(photo.has(kind)) for kind in Kind if photo.keeps(kind) != photo.has(kind)}
    if not to:
        return _skipped(_DONE, "it keeps what is there already")
    return _deed(place, photo, to)


def clean(_: Photo, place: Place) -> Verdicts:
    """Find a row that has no file left. A project whose folder is not there is none that was emptied."""
    if place.listing.refused is not None:
        return _refused(place.listing.refused)
    if not place.listing.there:
        return _skipped("INELIGIBLE", "its project's folder is not there")
    if any(
        place.listing.files(place.base, kind) or place.listing.odd_files(place.base, kind) for kind in Kind
    ):
        return _skipped("INELIGIBLE", "it has files")
    return Deed(position=place.position, item=place.item, project=place.project, base=place.base)


def picture(photo: Photo, place: Place, *, fresh: bool) -> Verdicts:
    """Choose the file that a photo's derivatives are made of."""
    if place.listing.refused is not None:
        return _refused(place.listing.refused)
    files = place.listing.files(place.base, Kind.JPG)
    if not photo.has(Kind.JPG) or not files:
        return _skipped("NOT_FOUND", "its JPG is not there")
    if fresh:
        return _skipped(_DONE, "its thumbnail and preview are there")
    return Deed(
        position=place.position, item=place.item, project=place.project, base=place.base, picture=files[0]
    )


def goes(photo: Photo) -> list[Kind]:
    """Say which files of a photo are there and not kept."""
    return [kind for kind in Kind if photo.has(kind) and not photo.keeps(kind)]


def unkept(photo: Photo, place: Place) -> list[str] | Verdict:
    """Name the files that go; none when they are missing, which is fine."""
    listing = place.listing
    if listing.refused is not None:
        return _refused(listing.refused)
    if not goes(photo):
        return _skipped(_DONE, "nothing of it is there that is not kept")
    for kind in goes(photo):
        for name, why in listing.odd_files(place.base, kind).items():
            return _refused(f"{name}: {why}")
    return [name for kind in goes(photo) for name in listing.files(place.base, kind)]


def remove(photo: Photo, place: Place, seen: dict[str, Seen], free: Callable[[str], str]) -> Verdicts:
    """Take away what is not kept; ``free`` makes a name that the trash does not hold yet."""
    files = unkept(photo, place)
    if isinstance(files, Verdict):
        return files
    moved = []
    for name in files:
        found = seen.get(name)
        if isinstance(found, Identity):
            moved.append(File.of(name, free(name), found))
        elif found is not None:
            return _refused(f"{name}: {found.reason}")
    kinds = goes(photo)
    deed = _deed(place, photo, {AVAILABLE[kind]: 0 for kind in kinds})
    return msgspec.structs.replace(deed, files=moved, drop=Kind.JPG in kinds, record=photo.record)


def register(photo: Photo | None, place: Place, *, new_only: bool) -> Verdicts:
    """Write down a photo whose files came: what is new is kept."""
    listing = place.listing
    if listing.refused is not None:
        return _refused(listing.refused)
    actual = {kind: bool(listing.files(place.base, kind)) for kind in Kind}
    if not any(actual.values()):
        return _skipped("NOT_FOUND", "no file of it is there")
    if photo is None:
        flags = {KEEP[kind]: int(there) for kind, there in actual.items()}
        flags |= {AVAILABLE[kind]: int(there) for kind, there in actual.items()}
        return Deed(
            position=place.position, item=place.item, project=place.project, base=place.base, add=flags
        )
    came = [kind for kind, there in actual.items() if there and not photo.has(kind)]
    if not came or new_only:
        return _skipped(_DONE, "its row is there")
    deed = _deed(place, photo, {AVAILABLE[kind]: 1 for kind in came} | {KEEP[kind]: 1 for kind in came})
    return msgspec.structs.replace(deed, record=photo.record)


def discover(known: bool, place: Place) -> Verdicts:  # noqa: FBT001  the one thing that is asked
    """Find a photo that has no row."""
    if place.listing.refused is not None:
        return _refused(place.listing.refused)
    if known:
        return _skipped(_DONE, "it has a row by now")
    if place.base not in place.listing.photos:
        return _skipped("NOT_FOUND", "no file of it is there any more")
    return Deed(position=place.position, item=place.item, project=place.project, base=place.base)


def is_old(file: Trashed, *, days: float, now_ms: int) -> bool:
    """Say whether a file has been in the trash for so many days."""
    return file.since_ms + days * _DAY_MS <= now_ms


def purge(file: Trashed | None, place: Place, *, days: float, now_ms: int) -> Verdicts:
    """Let go of a file that has been in the trash long enough."""
    if file is None:
        return _skipped("NOT_FOUND", "it is not in the trash")
    if not is_old(file, days=days, now_ms=now_ms):
        return _skipped("INELIGIBLE", f"it has not been in the trash for {days:g} days")
    gone = File.of("", file.name, file.identity)
    return Deed(position=place.position, item=place.item, project=place.project, purge=gone)


def _deed(place: Place, photo: Photo, to: dict[str, Any]) -> Deed:
    return Deed(
        position=place.position,
        item=photo.id,
        project=place.project,
        base=place.base,
        was=photo.held,
        to=to,
    )
