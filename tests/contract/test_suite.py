"""The contract suite itself: it passes what is sound, and each promise that is broken on purpose is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from bulkops import Batch, Item, Scope, action
from bulkops.resources.table.batches import TableBatches
from bulkops.resources.table.undo import TableUndo
from bulkops.testing import CHECKS, Check, Subject, Unsupported
from bulkops.testing.bench import OWNER, opened
from bulkops.testing.crashes import crashing
from tests.contract.subjects import TableSubject
from tests.custom.shelf import Shelf, ShelfSubject


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_shelf_in_memory_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    await check(ShelfSubject(tmp_path))


class Forgetful(Shelf):
    """Leaves an item out of its list."""

    def select(self, scope: Scope) -> Iterator[Item]:
        return (item for item in super().select(scope) if item.id != "b4")


class Stale(Shelf):
    """Reads what is not there any more, as out of a cache."""

    def __init__(self) -> None:
        super().__init__()
        self._cache = {box: dict(row) for box, row in self.boxes.items()}

    def read(self, ids: Sequence[str]) -> Iterable[Item]:
        return [Item(box, self._cache[box]) for box in ids if box in self._cache]


class Blind(Shelf):
    """Reads nothing."""

    def read(self, ids: Sequence[str]) -> Iterable[Item]:
        return []


class Idle(Shelf):
    """Claims to have deleted."""

    @action
    def delete(self, batch: Batch) -> None:
        pass


class Greedy(Shelf):
    """Deletes whatever it finds."""

    @action
    def delete(self, batch: Batch) -> None:
        self.boxes.clear()

    @delete.undo
    def put_back(self, batch: Batch) -> None:
        for item in batch:
            self.boxes[item.id] = dict(item.row)


class Brittle(Shelf):
    """One bad item takes its batch along."""

    @action(retries=0)
    def delete(self, batch: Batch) -> None:
        if any(item.id in self.stuck for item in batch):
            raise RuntimeError("all or nothing")
        for item in batch:
            self.boxes.pop(item.id, None)

    @delete.undo
    def put_back(self, batch: Batch) -> None:
        for item in batch:
            self.boxes[item.id] = dict(item.row)


class Sloppy(Shelf):
    """Puts back something else than it took."""

    @action
    def delete(self, batch: Batch) -> None:
        for item in batch:
            self.boxes.pop(item.id, None)

    @delete.undo
    def put_back(self, batch: Batch) -> None:
        for item in batch:
            self.boxes[item.id] = {**item.row, "size": 0}


class Generous(Shelf):
    """Puts back more than it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._all = {box: dict(row) for box, row in self.boxes.items()}

    @action
    def delete(self, batch: Batch) -> None:
        for item in batch:
            self.boxes.pop(item.id, None)

    @delete.undo
    def put_back(self, batch: Batch) -> None:
        self.boxes.update(self._all)


class Final(Shelf):
    """Says nothing of an undo that its subject promises."""

    @action
    def delete(self, batch: Batch) -> None:
        for item in batch:
            self.boxes.pop(item.id, None)


class Picky(Shelf):
    """Finds one of the items unfit."""

    def unfit(self, item: Item, action: str) -> str | None:
        return "just so" if item.id == "b2" else None


BROKEN = [
    (Forgetful, "lists_what_is_there"),
    (Picky, "lists_what_is_there"),
    (Blind, "finds_by_id"),
    (Blind, "acts_on_all"),
    (Stale, "passes_over_what_is_gone"),
    (Idle, "acts_on_all"),
    (Idle, "survives_a_crash_when_applied"),
    (Greedy, "leaves_out_what_is_excluded"),
    (Greedy, "takes_what_was_frozen"),
    (Greedy, "pauses_and_goes_on"),
    (Greedy, "cancels_between_batches"),
    (Greedy, "goes_on_after_a_stop"),
    (Brittle, "isolates_a_failure"),
    (Sloppy, "undoes_all"),
    (Sloppy, "survives_in_an_undo_a_crash_when_announced"),
    (Generous, "undoes_some"),
    (Sloppy, "undoes_what_a_cancelled_job_did"),
    (Final, "says_what_is_final"),
]


def check_of(name: str) -> Check:
    (found,) = [check for check in CHECKS if check.__name__ == name]
    return found


@pytest.mark.parametrize(("make", "name"), BROKEN, ids=lambda each: getattr(each, "__name__", each))
async def test_a_broken_promise_is_noticed(make: Callable[[], Shelf], name: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        await check_of(name)(ShelfSubject(tmp_path, make))


async def _nothing_happened(*_: Any, **__: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("batches", "name"),
    [
        (TableBatches, "survives_a_crash_when_applied"),
        (TableUndo, "survives_in_an_undo_a_crash_when_applied"),
    ],
)
async def test_a_table_that_forgets_what_it_did_before_a_crash_is_noticed(
    batches: type, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "recover", _nothing_happened)
    with pytest.raises(AssertionError, match=r"\(status, total, succeeded, failed, skipped\)"):
        await check_of(name)(TableSubject(tmp_path, soft=False, ledger="own"))


async def test_what_was_unfit_before_a_crash_stays_so_after_it(tmp_path: Path) -> None:
    subject = ShelfSubject(tmp_path)
    async with opened(subject) as bench:
        job = await bench.run(all=True, canary=2, batch_size=4)
    subject.shelf.kept = {"b3", "b7"}
    async with crashing(subject, "announced") as bench:
        await bench.runtime.service.resume(OWNER, job.id)
        await anyio.sleep_forever()
    assert sorted(subject.shelf.boxes) == ["b3", "b7", "b8"], "b7 and b8 are the batch that is announced"
    subject.shelf.kept = set()
    async with opened(subject) as bench:
        job = await bench.rested(job.id)
        assert (job.succeeded, job.failed, job.skipped) == (6, 0, 2)
        outcomes = await bench.outcomes(job.id)
        assert {item for item, told in outcomes.items() if told == ("skipped", "CONFLICT")} == {"b3", "b7"}
    assert sorted(subject.shelf.boxes) == ["b3", "b7"], "what is told as skipped is not touched"


class Few(ShelfSubject):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, lambda: Shelf(6))


async def test_a_subject_of_too_few_items_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seven items"):
        await check_of("acts_on_all")(Few(tmp_path))


async def test_what_a_subject_cannot_do_is_unsupported_and_no_failure(tmp_path: Path) -> None:
    class Bare(ShelfSubject):
        add, take_away, spoil = Subject.add, Subject.take_away, Subject.spoil

    for name in ("takes_what_was_frozen", "passes_over_what_is_gone", "isolates_a_failure"):
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(Unsupported):
            await check_of(name)(Bare(folder))
