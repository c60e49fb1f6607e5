"""A folder resource's trash as a storage: what the deletion queue and undo ask of it, for whole trees.

What comes in: entries of the queue; what goes out: a verdict an entry. Retention, the list of the trash, retries
and undo are those of every other file that goes: this only knows how to move what is more than one file.
"""

from __future__ import annotations

from collections.abc import Sequence

from bulkops.resources.folder.yard import attempt, opened_yard
from bulkops.resources.paths import Area, reason_of
from bulkops.resources.storage import LocalStorage
from bulkops.resources.verdicts import Entry, Result, Stop, Verdict, never

_CHANGED = frozenset({Verdict.TRASHED, Verdict.PURGED, Verdict.RESTORED})


class FolderStorage(LocalStorage):
    """A root whose direct entries are items, and their trash; every method may wait for the disk."""

    @property
    def area(self) -> Area:
        """The root, its trash, and what is never touched, as they are now."""
        return self._area()

    def move(self, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
        """Move entries into the trash."""
        return self._each("take", entries, stop)

    def remove(self, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
        """Remove entries from where they are, for good, by way of the trash."""
        moved = self._each("take", entries, stop)
        going = [index for index, result in enumerate(moved) if result.verdict is Verdict.TRASHED]
        cleared = self._each("clear", [_after(entries[index], moved[index]) for index in going], stop)
        for index, result in zip(going, cleared, strict=True):
            moved[index] = result
        return moved

    def restore(self, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
        """Move entries from the trash to where they were, never over anything."""
        return self._each("give", entries, stop)

    def purge(self, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
        """Remove entries from the trash for good; one that is cut short goes on another time."""
        return self._each("clear", entries, stop)

    def _each(self, act: str, entries: Sequence[Entry], stop: Stop) -> list[Result]:
        results: list[Result] = []
        try:
            with opened_yard(self._area()) as yard:
                for entry in entries:
                    untried = stop()
                    results.append(
                        Result(Verdict.UNTRIED) if untried else attempt(yard, act, entry, stop=stop)
                    )
                if any(result.verdict in _CHANGED for result in results):
                    yard.sync()
        except OSError as error:
            return [Result(Verdict.RETRY, reason_of(error))] * len(entries)
        return results


def _after(entry: Entry, moved: Result) -> Entry:
    return Entry(entry.path, entry.trash, moved.identity or entry.mine)
