"""What a batch is asked to do and what came of it: the values that engine, store and resources share.

Nothing here acts. An id is native: an integer, a string, or the list of a composite key's parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bulkops.errors import JobFailed

Id = int | str | list[int | str]


class Page(msgspec.Struct, frozen=True):
    """Ids at positions ``first``, ``first + 1``, … of a manifest.

    ``origins`` are the positions the same items had in the job that is being undone, else empty.
    """

    first: int
    ids: list[Id]
    origins: list[int] = []


class Todo(msgspec.Struct, frozen=True):
    """The items of one batch that are to be acted on: ``positions[i]`` is the place of ``ids[i]``."""

    positions: Sequence[int]
    ids: list[Id]
    origins: Sequence[int] = ()


class ItemException(msgspec.Struct, frozen=True):
    """One item's outcome that is not success."""

    position: int
    item: str
    outcome: str
    code: str
    message: str


class Image(msgspec.Struct, frozen=True):
    """One item as it was; ``image`` is the resource's own compressed record.

    ``listed`` says that the thing is gone from sight, not only changed.
    """

    position: int
    item: str
    label: str
    listed: bool
    image: bytes


class FileTaken(msgspec.Struct, frozen=True):
    """A file that goes with an item once its batch is durable; identity ``None``: it is missing already.

    ``trash`` is its name in the trash where the batch itself chose one, else it gets one when it is announced.
    """

    position: int
    storage: str
    path: bytes
    identity: tuple[int, int, int, int] | None
    final: bool
    trash: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch is about to do, read from the target before anything is touched.

    ``announce``: the plan must be durable before the effect. ``data`` is for recovery; ``state`` is the
    resource's own and lives in memory only. ``exceptions`` are items found unfit while planning.
    """

    announce: bool
    data: bytes = b""
    images: list[Image] = []
    files: list[FileTaken] = []
    exceptions: list[ItemException] = []
    state: object = None


class Fence(msgspec.Struct, frozen=True):
    """Which batch of which job acts, in which generation of the process, and where it leads."""

    job: str
    tenant: str | None
    generation: int
    batch: int
    cursor: int


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch did: every item of it that is not named here succeeded.

    ``hold_s`` is how long the target's write lock was held; ``cascaded`` counts rows of other tables.
    ``whole_failed``: the batch failed as a whole after its retries. ``images`` and ``files`` are what it
    moved into the trash itself, under names that were announced: kept from now on, or removed from there when
    ``final``. ``until``: it was cut short before this position of the manifest, and the rest was not begun;
    only for a batch whose plan had no images and files of its own.
    """

    exceptions: list[ItemException] = []
    hold_s: float = 0.0
    cascaded: int = 0
    whole_failed: bool = False
    images: list[Image] = []
    files: list[FileTaken] = []
    until: int | None = None


class Making(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a job makes: an ``export`` or an ``archive``.

    ``format`` is that of the wire (csv, json, ndjson, ndjson.gz, zip), the end of the name that a download has,
    after ``stem``. ``alone``: the file is all that the action does; nothing changes, nothing is to be undone.
    """

    kind: str
    format: str
    stem: str
    alone: bool = True


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job's file is: the ``position`` behind what its batches wrote, the records in it.

    ``bytes`` and ``sha256`` are of the whole file, ``None`` until it is whole and on disk under its last name.
    """

    position: int
    rows: int
    bytes: int | None = None
    sha256: str | None = None


class CutShort(Exception):
    """Writing into the job's file was asked to stop before the item at ``until``, of which nothing is left in it.

    ``failed`` are the items before that could not be written.
    """

    def __init__(self, until: int, failed: list[ItemException]) -> None:
        super().__init__(until)
        self.until = until
        self.failed = failed


def all_or_nothing(found: list[ItemException]) -> JobFailed:
    """Build the end of an atomic job that met items it cannot act on; nothing of it was done."""
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return JobFailed(first.code, f"nothing was done: item {first.item}: {first.message}{more}")
