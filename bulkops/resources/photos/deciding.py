"""From items to deeds: rows read, folders listed, each item's chore asked what is to be done to it.

The same eyes choose a job's set of work and plan its batches; nothing is touched here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio.to_thread
import msgspec

from bulkops.effects import Id, ItemException
from bulkops.errors import Transient
from bulkops.resources.contract import Query
from bulkops.resources.paths import Seen
from bulkops.resources.photos import chores, names
from bulkops.resources.photos.chores import CHORES, Over, Place, Verdicts
from bulkops.resources.photos.deeds import Decided, Deed, Verdict
from bulkops.resources.photos.ground import Ground
from bulkops.resources.photos.projects import Listing, Projects
from bulkops.resources.photos.rows import Photo
from bulkops.resources.table.bound import CONFLICT
from bulkops.resources.table.filters import Condition
from bulkops.resources.table.keys import hashable

T = TypeVar("T")
_GONE = Verdict("skipped", "CONFLICT", CONFLICT)
_NO_PHOTO = Verdict("skipped", "NOT_FOUND", "there is no such item")


class Read(Protocol):
    """How the table is read: by a reader, or on the write connection."""

    def __call__(self, work: Callable[[Any], T]) -> Awaitable[T]: ...


async def in_thread(work: Callable[..., T], *values: Any) -> T:
    """Ask the disk in a thread.

    Raises:
        Transient: it balks.
    """
    try:
        return await anyio.to_thread.run_sync(work, *values)
    except OSError as error:
        raise Transient("IO_ERROR", f"the project folders cannot be read now: {error.strerror}") from error


class Deciding:
    """Decides for one job."""

    def __init__(self, ground: Ground, query: Query, fit: Condition, read: Read, *, days: float) -> None:
        self._ground = ground
        self._query = query
        self._fit = fit
        self._read = read
        self._days = days
        self._chore = CHORES[query.action]

    async def decide(self, positions: Sequence[int], ids: Sequence[Id]) -> Decided:
        """Decide about items; those that nothing is to be done to are exceptions.

        Raises:
            Halt: the table or the disk cannot be read now.
        """
        deeds: list[Deed] = []
        exceptions: list[ItemException] = []
        for (position, item), verdict in zip(
            zip(positions, ids, strict=True), await self.judge(positions, ids), strict=True
        ):
            if isinstance(verdict, Deed):
                deeds.append(verdict)
            else:
                exceptions.append(verdict.on(position, item))
        return Decided(deeds, exceptions)

    async def judge(self, positions: Sequence[int], ids: Sequence[Id]) -> list[Verdicts]:
        """Return what is to be done to each item, or why nothing is.

        Raises:
            Halt: as `decide`.
        """
        if not ids:
            return []
        if self._chore.over is Over.ROWS:
            return await self._rows(positions, ids)
        if self._chore.over is Over.BASES:
            return await self._bases(positions, ids)
        return await self._trash(positions, ids)

    async def _rows(self, positions: Sequence[int], ids: Sequence[Id]) -> list[Verdicts]:
        mirror, fit = self._ground.mirror, self._fit
        photos = await self._read(lambda connection: mirror.read(connection, ids, fit))
        found = [photos.get(hashable(item)) for item in ids]
        places = [
            _GONE if photo is None else self._place(position, photo)
            for position, photo in zip(positions, found, strict=True)
        ]
        standing = [place for place in places if isinstance(place, Place)]
        listings = await self._listings({place.project for place in standing})
        pairs = [
            (photo, msgspec.structs.replace(place, listing=listings[place.project]))
            for photo, place in zip(found, places, strict=True)
            if photo is not None and isinstance(place, Place)
        ]
        judged = iter(await self._judge_rows(pairs))
        return [next(judged) if isinstance(place, Place) else place for place in places]

    def _place(self, position: int, photo: Photo) -> Place | Verdict:
        for what, value in (("project", photo.project), ("name", photo.base)):
            why = names.explain(value)
            if why is not None:
                return Verdict("failed", "REFUSED_PATH", f"its {what} is refused: {why}")
        return Place(
            position=position,
            item=photo.id,
            project=str(photo.project),
            base=str(photo.base),
            listing=Listing(),
        )

    async def _listings(self, projects: set[str]) -> dict[str, Listing]:
        if self._query.action == "revert":
            return dict.fromkeys(projects, Listing())
        return await in_thread(_listings, self._ground.projects, projects)

    async def _judge_rows(self, pairs: list[tuple[Photo, Place]]) -> list[Verdicts]:
        action = self._query.action
        if action == "file_removal":
            return await in_thread(_judge_removals, self._ground.projects, pairs)
        if action == "generate_derivatives":
            return await in_thread(_judge_pictures, self._ground.projects, pairs)
        judge = {"manifest_check": chores.check, "revert": chores.revert, "manifest_cleaning": chores.clean}[
            action
        ]
        return [judge(photo, place) for photo, place in pairs]

    async def _bases(self, positions: Sequence[int], ids: Sequence[Id]) -> list[Verdicts]:
        read = [_parse(item) for item in ids]
        listings = await self._listings({each[0] for each in read if each is not None})
        wanted: dict[str, list[str]] = {}
        for project, base in filter(None, read):
            wanted.setdefault(project, []).append(base)
        photos = await self._read(partial(self._named, wanted=wanted))
        verdicts: list[Verdicts] = []
        for position, item, each in zip(positions, ids, read, strict=True):
            if each is None or not self._is_in_reach(each[0]):
                verdicts.append(_NO_PHOTO)
                continue
            project, base = each
            place = Place(position=position, item=item, project=project, base=base, listing=listings[project])
            verdicts.append(self._judge_base(photos.get(each), place))
        return verdicts

    def _is_in_reach(self, project: str) -> bool:
        wanted = self._query.options.get("project")
        return wanted is None or wanted == project

    def _judge_base(self, photo: Photo | None, place: Place) -> Verdicts:
        if self._query.action == "folder_check":
            return chores.discover(photo is not None, place)
        return chores.register(photo, place, new_only=bool(self._query.options.get("new_only")))

    def _named(self, connection: Any, *, wanted: dict[str, list[str]]) -> dict[tuple[str, str], Photo]:
        mirror = self._ground.mirror
        return {
            (project, str(photo.base)): photo
            for project, bases in wanted.items()
            for photo in mirror.named(connection, project, bases)
        }

    async def _trash(self, positions: Sequence[int], ids: Sequence[Id]) -> list[Verdicts]:
        read = [_parse(item) for item in ids]
        projects = sorted({each[0] for each in read if each is not None})
        kept = await in_thread(_trashes, self._ground.projects, projects)
        verdicts: list[Verdicts] = []
        for position, item, each in zip(positions, ids, read, strict=True):
            if each is None or not self._is_in_reach(each[0]):
                verdicts.append(_NO_PHOTO)
                continue
            place = Place(position=position, item=item, project=each[0], base="", listing=Listing())
            file = kept.get((each[0], each[1].removeprefix(".trash/")))
            verdicts.append(chores.purge(file, place, days=self._days, now_ms=self._query.stamp_ms))
        return verdicts


def _parse(item: Id) -> tuple[str, str] | None:
    try:
        return names.parse_reference(str(item))
    except ValueError:
        return None


def _listings(projects: Projects, wanted: set[str]) -> dict[str, Listing]:
    return {name: projects.listing(name) for name in wanted}


def _trashes(projects: Projects, wanted: list[str]) -> dict[tuple[str, str], Any]:
    return {(name, file.name): file for name in wanted for file in projects.trash(name)}


def _judge_removals(projects: Projects, pairs: list[tuple[Photo, Place]]) -> list[Verdicts]:
    seen: dict[str, dict[str, Seen]] = {}
    taken: dict[str, set[str]] = {}
    for name in {place.project for _, place in pairs}:
        here = [(photo, place) for photo, place in pairs if place.project == name]
        files = [chores.unkept(photo, place) for photo, place in here]
        wanted = [file for each in files if isinstance(each, list) for file in each]
        seen[name] = projects.identify(name, wanted) if wanted else {}
        taken[name] = {file.name for file in projects.trash(name)} if wanted else set()
    return [
        chores.remove(photo, place, seen[place.project], partial(_free, taken[place.project]))
        for photo, place in pairs
    ]


def _free(taken: set[str], name: str) -> str:
    """Return the name a file has in the trash: its own, or one like it while that is taken."""
    stem, dot, ending = name.rpartition(".")
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{stem}~{number}{dot}{ending}"
    taken.add(free)
    return free


def _judge_pictures(projects: Projects, pairs: list[tuple[Photo, Place]]) -> list[Verdicts]:
    fresh: dict[str, set[str]] = {}
    for name in {place.project for _, place in pairs}:
        sources = {
            place.base: files[0]
            for _, place in pairs
            if place.project == name and (files := place.listing.files(place.base, names.Kind.JPG))
        }
        fresh[name] = projects.fresh(name, sources) if sources else set()
    return [chores.picture(photo, place, fresh=place.base in fresh[place.project]) for photo, place in pairs]
