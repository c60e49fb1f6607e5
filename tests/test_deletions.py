"""The file deletion queue's rows: announced, settled, claimed, recorded, taken back, retired, steered."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from bulkops.effects import FileTaken
from bulkops.store import deletions
from bulkops.store.deletions import DeletionRow, DeletionStats, Settled
from bulkops.store.store import Store
from tests.conftest import HandClock
from tests.store_house import a_job, stored

HOUR_MS = 3_600_000


def taken(position: int, *, final: bool = False, path: bytes | None = None, size: int = 100) -> FileTaken:
    return FileTaken(position, "r.files", path or b"f%d" % position, (1, position, size, 5), final)


async def announce(
    store: Store,
    files: list[FileTaken],
    *,
    job: str = "J",
    tenant: str | None = None,
    resource: str = "receipts",
) -> None:
    await store.write(lambda tx: deletions.insert_tentative(tx, job, files, resource=resource, tenant=tenant))


async def queue(
    store: Store,
    count: int,
    *,
    job: str = "J",
    tenant: str | None = None,
    final: bool = False,
    resource: str = "receipts",
) -> None:
    files = [taken(n, final=final) for n in range(count)]
    await announce(store, files, job=job, tenant=tenant, resource=resource)
    await store.write(lambda tx: deletions.settle(tx, job, 0, count, untouched=[]))


async def rows(store: Store, job: str = "J") -> list[DeletionRow]:
    return await store.read(lambda connection: deletions.for_items(connection, job, list(range(100))))


async def states(store: Store, job: str = "J") -> list[str]:
    return [row.state for row in await rows(store, job)]


async def claim(store: Store, limit: int = 500) -> list[int]:
    return [each.id for each in await store.write(lambda tx: deletions.claim(tx, limit))]


async def record(store: Store, ids: list[int], state: str, **fields: Any) -> None:
    settled = [Settled(each, state, **fields) for each in ids]
    await store.write(lambda tx: deletions.record(tx, settled))


async def test_files_wait_until_their_batch_is_accounted_for(store: Store) -> None:
    await announce(store, [taken(0), taken(1), taken(2), taken(3)])
    assert await claim(store) == []
    await store.write(lambda tx: deletions.settle(tx, "J", 0, 3, untouched=[1]))
    assert [(row.position, row.state) for row in await rows(store)] == [
        (0, "queued"),
        (2, "queued"),
        (3, "tentative"),
    ]


async def test_settling_rings_for_the_cleaner_only_when_files_go(store: Store) -> None:
    rung: list[bool] = []
    store.on_commit.append(lambda commit: rung.append(commit.deletions))
    await announce(store, [taken(0)])
    await store.write(lambda tx: deletions.settle(tx, "J", 0, 1, untouched=[0]))
    await announce(store, [taken(0)])
    await store.write(lambda tx: deletions.settle(tx, "J", 0, 1, untouched=[]))
    assert rung == [False, False, False, True]


async def test_a_batch_that_did_not_happen_leaves_no_entry(store: Store) -> None:
    await announce(store, [taken(0), taken(1), taken(2)])
    await store.write(lambda tx: deletions.withdraw(tx, "J", 0, 2))
    assert [row.position for row in await rows(store)] == [2]


async def test_announcing_a_batch_again_replaces_it_and_leaves_settled_ones(store: Store) -> None:
    await queue(store, 1)
    await announce(store, [taken(1), taken(1, path=b"second")])
    await announce(store, [taken(1, path=b"other")])
    assert [(row.position, row.path, row.state) for row in await rows(store)] == [
        (0, b"f0", "queued"),
        (1, b"other", "tentative"),
    ]


async def test_a_path_is_kept_byte_for_byte_and_a_missing_file_has_no_identity(store: Store) -> None:
    strange = b"\xff\xfe/line\nbreak\\" + b"n" * 200
    await announce(store, [FileTaken(0, "r.files", strange, None, final=False), taken(1)])
    first, second = await rows(store)
    assert (first.path, first.identity) == (strange, None)
    assert second.identity == (1, 1, 100, 5)
    assert first.trash != second.trash


async def test_a_claim_counts_the_attempt_and_says_what_to_do(store: Store) -> None:
    await queue(store, 2)
    await queue(store, 1, job="K", final=True)
    claimed = await store.write(lambda tx: deletions.claim(tx, 10))
    assert [(each.state, each.attempts, each.final) for each in claimed] == [
        ("moving", 1, False),
        ("moving", 1, False),
        ("purging", 1, True),
    ]


async def test_a_claim_takes_the_oldest_up_to_its_limit_and_passes_over_what_is_held(store: Store) -> None:
    await queue(store, 5)
    ids = [row.id for row in await rows(store)]
    held = await claim(store, 2)
    assert held == ids[:2]
    others = await store.write(lambda tx: deletions.claim(tx, 10, held=held))
    assert [each.id for each in others] == ids[2:]


async def test_after_a_crash_what_was_being_worked_is_due_at_once(store: Store) -> None:
    await queue(store, 2)
    first = await claim(store)
    again = await store.write(lambda tx: deletions.claim(tx, 10))
    assert [each.id for each in again] == first
    assert {(each.state, each.attempts) for each in again} == {("moving", 2)}


async def test_a_claim_may_be_of_one_resource_or_tenant(store: Store) -> None:
    await queue(store, 1, job="A", tenant="acme", resource="receipts")
    await queue(store, 1, job="B", tenant="beta", resource="images")
    of_acme = await store.write(lambda tx: deletions.claim(tx, 10, tenant="acme"))
    of_images = await store.write(lambda tx: deletions.claim(tx, 10, resource="images"))
    assert len(of_acme) == len(of_images) == 1
    assert await states(store, "A") == await states(store, "B") == ["moving"]


async def test_outcomes_are_recorded_with_reason_identity_and_next_try(
    store: Store, clock: HandClock
) -> None:
    await queue(store, 4)
    ids = await claim(store)
    await store.write(
        lambda tx: deletions.record(
            tx,
            [
                Settled(ids[0], "trashed"),
                Settled(ids[1], "trashed", identity=(2, 77, 100, 5)),
                Settled(ids[2], "queued", "EBUSY: busy", not_before_ms=clock.at_ms + 4000),
                Settled(ids[3], "queued", untried=True),
            ],
        )
    )
    found = await rows(store)
    assert [(row.state, row.attempts, row.error, row.identity) for row in found] == [
        ("trashed", 1, None, (1, 0, 100, 5)),
        ("trashed", 1, None, (2, 77, 100, 5)),
        ("queued", 1, "EBUSY: busy", (1, 2, 100, 5)),
        ("queued", 0, None, (1, 3, 100, 5)),
    ]


async def test_an_outcome_for_an_entry_nobody_claimed_changes_nothing(store: Store) -> None:
    await queue(store, 1)
    ids = [row.id for row in await rows(store)]
    await record(store, ids, "purged")
    await record(store, ids, "dead", error="EIO")
    assert await states(store) == ["queued"]


async def test_the_next_due_instant_is_that_of_the_first_entry_nobody_holds(
    store: Store, clock: HandClock
) -> None:
    now = clock.at_ms
    assert await store.read(lambda c: deletions.next_due_ms(c, now)) is None
    await queue(store, 2)
    assert await store.read(lambda c: deletions.next_due_ms(c, now)) == 0
    ids = await claim(store)
    await record(store, ids[:1], "queued", error="EBUSY", not_before_ms=now + 500)
    assert await store.read(lambda c: deletions.next_due_ms(c, now, held=ids[1:])) == now + 500
    assert await store.read(lambda c: deletions.next_due_ms(c, now, held=ids)) is None


async def test_a_clock_set_back_does_not_stall_the_queue(store: Store, clock: HandClock) -> None:
    await queue(store, 1)
    ids = await claim(store)
    await record(store, ids, "queued", error="EBUSY", not_before_ms=clock.at_ms + 60_000)
    assert await claim(store) == []
    clock.advance(-2 * 86_400)
    assert await store.read(lambda c: deletions.next_due_ms(c, clock.at_ms)) == clock.at_ms
    assert await claim(store) == ids


async def test_what_lay_in_the_trash_long_enough_is_retired_and_nothing_else(
    store: Store, clock: HandClock
) -> None:
    await queue(store, 2)
    await record(store, await claim(store), "trashed")
    clock.advance(3600)
    await queue(store, 1, job="K")
    await record(store, await claim(store), "trashed")
    before = clock.at_ms - HOUR_MS + 1
    assert await store.write(lambda tx: deletions.retire(tx, before, 1)) == 1
    assert await store.write(lambda tx: deletions.retire(tx, before, 10)) == 1
    assert await store.write(lambda tx: deletions.retire(tx, before, 10)) == 0
    assert await states(store) == ["purging", "purging"]
    assert await states(store, "K") == ["trashed"]
    claimed = await store.write(lambda tx: deletions.claim(tx, 10))
    assert {(each.state, each.final, each.attempts) for each in claimed} == {("purging", False, 1)}


async def test_what_an_undo_is_still_to_give_back_is_not_retired_under_its_hands(
    store: Store, clock: HandClock
) -> None:
    origin = await stored(store, a_job("completed", undo_until_ms=clock.at_ms + 1))
    await queue(store, 1, job=origin.id)
    await record(store, await claim(store), "trashed")
    await stored(store, a_job("paused", kind="undo", undo_of=origin.id))
    clock.advance(3600)
    assert await store.write(lambda tx: deletions.retire(tx, clock.at_ms, 10)) == 0
    assert await states(store, origin.id) == ["trashed"]


async def test_rows_of_files_long_done_with_are_forgotten_and_dead_ones_are_not(
    store: Store, clock: HandClock
) -> None:
    await queue(store, 4)
    ids = await claim(store)
    for each, state in zip(ids, ("purged", "missing", "dead", "trashed"), strict=True):
        await record(store, [each], state)
    assert await store.write(lambda tx: deletions.forget(tx, clock.at_ms, 10)) == 0
    clock.advance(1)
    assert await store.write(lambda tx: deletions.forget(tx, clock.at_ms, 10)) == 2
    assert await states(store) == ["dead", "trashed"]


TAKEN_BACK = {
    "queued": "restored",
    "trashed": "restoring",
    "dead": "restoring",
    "refused": "restoring",
    "moving": "moving",
    "purged": "purged",
    "missing": "missing",
    "superseded": "superseded",
    "shared": "shared",
}


@pytest.mark.parametrize(("state", "expected"), TAKEN_BACK.items())
async def test_an_undo_takes_back_what_can_be_and_says_so_again(
    store: Store, state: str, expected: str
) -> None:
    await queue(store, 1)
    if state != "queued":
        ids = await claim(store)
        await record(store, ids, state)
    for _ in range(2):
        found = await store.write(lambda tx: deletions.take_back(tx, "J", [0]))
        assert [row.state for row in found] == [expected]


async def test_an_undo_voids_files_that_are_only_announced_and_leaves_other_items(store: Store) -> None:
    await announce(store, [taken(0), taken(1)])
    found = await store.write(lambda tx: deletions.take_back(tx, "J", [0, 7]))
    assert [(row.position, row.state) for row in found] == [(0, "restored")]
    assert await states(store) == ["restored", "tentative"]


async def test_a_file_that_was_attempted_is_looked_for_in_the_trash(store: Store) -> None:
    """Its rename may have happened and only the sync have failed."""
    await queue(store, 1)
    await record(store, await claim(store), "queued", error="EIO: sync failed", not_before_ms=0)
    found = await store.write(lambda tx: deletions.take_back(tx, "J", [0]))
    assert [row.state for row in found] == ["restoring"]


async def test_a_purge_under_way_is_not_taken_back(store: Store, clock: HandClock) -> None:
    await queue(store, 1)
    await record(store, await claim(store), "trashed")
    await store.write(lambda tx: deletions.retire(tx, clock.at_ms + 1, 10))
    found = await store.write(lambda tx: deletions.take_back(tx, "J", [0]))
    assert [row.state for row in found] == ["purging"]


async def test_what_was_moved_back_is_recorded_and_a_failed_row_sends_it_again(store: Store) -> None:
    await queue(store, 3)
    await record(store, await claim(store), "trashed")
    await store.write(lambda tx: deletions.take_back(tx, "J", [0, 1, 2]))
    ids = [row.id for row in await rows(store)]
    settled = [Settled(ids[0], "restored", identity=(3, 3, 3, 3)), Settled(ids[1], "trashed", "occupied")]
    await store.write(lambda tx: deletions.give_back_done(tx, settled))
    assert await states(store) == ["restored", "trashed", "restoring"]
    assert (await rows(store))[0].identity == (3, 3, 3, 3)
    await store.write(lambda tx: deletions.back_again(tx, [*ids, 999]))
    assert await states(store) == ["queued", "trashed", "queued"]
    assert sorted(await claim(store)) == [ids[0], ids[2]]


async def test_what_an_ended_undo_began_to_give_back_goes_in_line_again(
    store: Store, clock: HandClock
) -> None:
    for job, status in (("J", "cancelled"), ("K", "paused")):
        await stored(store, a_job(id=job))
        await stored(store, a_job(status, id=f"undo of {job}", kind="undo", undo_of=job))
        await queue(store, 2, job=job)
    ids = await claim(store)
    await record(store, ids, "trashed")
    for job in ("J", "K"):
        await store.write(partial(deletions.take_back, job_id=job, positions=[0]))
    assert await store.write(lambda tx: deletions.take_stranded(tx, tx.now_ms, 10)) == 0, "not at once"
    clock.advance(1)
    assert await store.write(lambda tx: deletions.take_stranded(tx, tx.now_ms, 10)) == 1
    assert await states(store, "J") == ["queued", "trashed"]
    assert await states(store, "K") == ["restoring", "trashed"], "its undo may still go on"


async def test_a_finished_restore_is_not_overwritten_by_a_late_word(store: Store) -> None:
    await queue(store, 1)
    ids = [row.id for row in await rows(store)]
    await store.write(lambda tx: deletions.give_back_done(tx, [Settled(ids[0], "restored")]))
    assert await states(store) == ["queued"]


async def test_stats_of_an_empty_queue_are_zero(store: Store) -> None:
    assert await store.read(deletions.stats) == DeletionStats(0, 0, 0, 0, None)


async def test_stats_count_what_is_to_do_by_tenant(store: Store, clock: HandClock) -> None:
    born = clock.at_ms
    await queue(store, 4, tenant="acme")
    clock.advance(5)
    await queue(store, 1, job="K", tenant="beta")
    ids = await claim(store, 3)
    await record(store, ids[:1], "queued", error="EBUSY", not_before_ms=clock.at_ms + 9)
    await record(store, ids[1:2], "dead", error="EBUSY")
    await record(store, ids[2:3], "trashed")
    assert await store.read(deletions.stats) == DeletionStats(3, 1, 1, 300, born)
    assert await store.read(lambda c: deletions.stats(c, tenant="beta")) == DeletionStats(
        1, 0, 0, 100, born + 5000
    )


async def test_pages_list_one_state_or_all_that_are_open(store: Store) -> None:
    await queue(store, 6)
    ids = await claim(store, 4)
    await record(store, ids[:1], "dead", error="EIO")
    await record(store, ids[1:2], "trashed")
    await record(store, ids[2:3], "purged")

    async def page(state: str | None, after: int, limit: int, tenant: str | None = None) -> list[str]:
        found = await store.read(
            lambda c: deletions.page(c, state=state, tenant=tenant, after=after, limit=limit)
        )
        return [row.state for row in found]

    assert await page(None, 0, 10) == ["dead", "moving", "queued", "queued"]
    assert await page(None, 0, 2) == ["dead", "moving"]
    assert await page(None, ids[3], 2) == ["queued", "queued"]
    assert await page("trashed", 0, 10) == ["trashed"]
    assert await page("trashed", 0, 10, "acme") == []


@pytest.mark.parametrize("state", ["dead", "refused", "superseded", "shared", "missing"])
async def test_what_ended_badly_may_be_put_in_line_again_or_dropped(store: Store, state: str) -> None:
    await queue(store, 2, tenant="acme")
    ids = await claim(store)
    await record(store, ids, state)
    assert not await store.write(lambda tx: deletions.requeue(tx, ids[0], tenant="beta"))
    assert not await store.write(lambda tx: deletions.drop(tx, ids[1], tenant="beta"))
    assert await store.write(lambda tx: deletions.requeue(tx, ids[0], tenant="acme"))
    assert await store.write(lambda tx: deletions.drop(tx, ids[1]))
    assert [(row.state, row.attempts) for row in await rows(store)] == [("queued", 0)]


async def test_what_waits_for_its_next_try_may_be_tried_now(store: Store, clock: HandClock) -> None:
    await queue(store, 1)
    ids = await claim(store)
    await record(store, ids, "queued", error="EPERM", not_before_ms=clock.now_ms() + 60_000)
    assert await claim(store) == []
    assert await store.write(lambda tx: deletions.requeue(tx, ids[0]))
    assert await claim(store) == ids


@pytest.mark.parametrize("state", ["trashed", "purged", "moving"])
async def test_what_is_under_way_or_done_is_neither_requeued_nor_dropped(store: Store, state: str) -> None:
    await queue(store, 1)
    ids = await claim(store)
    await record(store, ids, state)
    assert not await store.write(lambda tx: deletions.requeue(tx, ids[0]))
    assert not await store.write(lambda tx: deletions.drop(tx, ids[0]))
    assert not await store.write(lambda tx: deletions.requeue(tx, 999))
