"""What becomes of a file, decided: values in, values out, before and after anything is touched.

What comes in: what was seen at the source and in the trash, and the identity that was recorded; what goes out: the
step that is to be done, or the verdict when there is none to do. Nothing here may open a file.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum

import msgspec

from bulkops.resources.paths import Identity, Refused, Seen, is_final, reason_of


class Verdict(StrEnum):
    """What became of an entry; all but the last three are its next state in the queue."""

    TRASHED = "trashed"
    PURGED = "purged"
    RESTORED = "restored"
    MISSING = "missing"
    SUPERSEDED = "superseded"
    SHARED = "shared"  # another live row names the file: it is nobody's to remove
    REFUSED = "refused"
    CONFLICT = "conflict"  # something stands where it would go back to; it stays in the trash
    RETRY = "retry"
    UNTRIED = "untried"  # the batch was stopped before its turn


class Step(Enum):
    """What has to be done to reach a verdict."""

    RENAME = "rename"
    UNLINK_HERE = "unlink the name left behind: the other one holds the same inode"
    COMPARE = "unlink what is left behind if the copy has its bytes"
    UNLINK = "unlink"


class Entry(msgspec.Struct, frozen=True):
    """One file to act on: its path below the root, its name in the trash, the identity recorded for it.

    ``mine`` is ``None`` when there was no file as its row went.
    """

    path: bytes
    trash: bytes
    mine: Identity | None


class Result(msgspec.Struct, frozen=True):
    """The verdict on one entry; ``identity`` is there when the file has got a new one (it was copied)."""

    verdict: Verdict
    reason: str = ""
    identity: Identity | None = None


#: Asked before each entry; once true, the rest of a batch stays untried.
Stop = Callable[[], bool]


def never() -> bool:
    return False


def _is_twin(seen: Seen, mine: Identity | None) -> bool:
    """Say whether it has my size and time: a copy of me, as far as one can see without reading."""
    return (
        isinstance(seen, Identity)
        and mine is not None
        and seen.size == mine.size
        and seen.mtime_ns == mine.mtime_ns
    )


def _is_kept(seen: Seen, mine: Identity | None) -> bool:
    """Say whether what lies under my name in the trash is me.

    The device is left out: numbers of devices change over a restart, names in the trash are used once.
    """
    return _is_twin(seen, mine) and isinstance(seen, Identity) and mine is not None and seen.ino == mine.ino


def plan_move(source: Seen, trash: Seen, mine: Identity | None) -> Step | Verdict:
    """Decide how an entry gets into the trash."""
    if _is_twin(trash, mine):  # moved before a crash; whatever else is at the source is new
        if source != mine:
            return Verdict.TRASHED
        return Step.UNLINK_HERE if source == trash else Step.COMPARE
    if trash is not None:
        return Verdict.REFUSED
    if source is None:
        return Verdict.MISSING
    if isinstance(source, Refused):
        return Verdict.REFUSED
    return Step.RENAME if source == mine else Verdict.SUPERSEDED


def plan_purge(trash: Seen, mine: Identity | None) -> Step | Verdict:
    """Decide how an entry leaves the trash for good; one that is gone was unlinked before a crash."""
    if trash is None:
        return Verdict.PURGED
    return Step.UNLINK if _is_kept(trash, mine) else Verdict.REFUSED


def plan_restore(source: Seen, trash: Seen, mine: Identity | None) -> Step | Verdict:
    """Decide how an entry gets back from the trash; never over a file that stands there."""
    if trash is None:
        if _is_twin(source, mine):
            return Verdict.RESTORED
        return Verdict.MISSING
    if not _is_twin(trash, mine):
        return Verdict.REFUSED
    if source is None:
        return Step.RENAME
    if not _is_twin(source, mine):
        return Verdict.CONFLICT
    return Step.UNLINK_HERE if source == trash else Step.COMPARE


def judge(error: OSError) -> Result:
    """Sort an error into ``missing``, ``refused`` or worth another try."""
    if isinstance(error, FileNotFoundError):
        return Result(Verdict.MISSING)
    return Result(Verdict.REFUSED if is_final(error) else Verdict.RETRY, reason_of(error))
