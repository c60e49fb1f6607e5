"""Lists of jobs and trash: only what the caller may see, in order, and never by walking a whole table."""

from __future__ import annotations

import sqlite3
from functools import partial
from itertools import product
from typing import Any

import pytest

from bulkops.models import Caller
from bulkops.operations import has_role, may_see
from bulkops.states import Status
from bulkops.store import listings, tasks
from bulkops.store.jobs import JobRow
from bulkops.store.listings import JobFilter, TrashPlace, TrashRow, sight_of
from bulkops.store.store import Store
from tests.conftest import HandClock
from tests.store_house import OWNER, START_MS, a_caller, a_job, put, stored, take

TENANTS = [None, "acme", "rival"]


async def _listed(
    store: Store,
    caller: Caller = OWNER,
    *,
    tenant: str | None = None,
    before: str | None = None,
    limit: int = 1000,
    **wanted: Any,
) -> list[JobRow]:
    sight = sight_of(caller, tenant)
    if sight is None:
        return []
    return await store.read(
        lambda connection: listings.newest_jobs(
            connection, sight, JobFilter(**wanted), before=before, limit=limit
        )
    )


async def test_what_is_listed_is_what_the_rule_lets_see(store: Store) -> None:
    jobs = [
        await stored(store, a_job(user=user, tenant=tenant, source=source))
        for user, tenant, source in product(["ana", "bob"], TENANTS, ["user", "maintenance"])
    ]
    for user, role, tenant in product(["ana", "zoe"], ["viewer", "operator", "admin", "owner"], TENANTS):
        caller = a_caller(user, role, tenant)
        listed = {job.id for job in await _listed(store, caller, maintenance=True)}
        seen = {
            job.id
            for job in jobs
            if may_see(caller, tenant=job.tenant, requested_by=job.requested_by, source=job.source)
        }
        assert listed == seen, (user, role, tenant)


async def test_a_caller_without_a_reading_role_sees_nothing(store: Store) -> None:
    await stored(store, a_job(user="svc"))
    assert sight_of(a_caller("svc", "service")) is None
    assert not has_role(a_caller("svc", "service"), "viewer")


async def test_naming_a_tenant_narrows_and_never_widens(store: Store) -> None:
    for tenant in TENANTS:
        await stored(store, a_job(tenant=tenant))
    assert [job.tenant for job in await _listed(store, tenant="acme")] == ["acme"]
    assert sight_of(a_caller("ana", "owner", "rival"), "acme") is None
    assert [job.tenant for job in await _listed(store, a_caller("a", "admin", "rival"), tenant="rival")] == [
        "rival"
    ]


FILTERS: dict[str, list[Any]] = {
    "statuses": [(), ("running",), ("completed",), ("running", "completed", "failed")],
    "resource": [None, "receipts"],
    "action": [None, "delete"],
    "task_id": [None, "T"],
    "project": [None, "summer"],
}


async def test_any_filters_together_list_what_fits_them_all_newest_first(store: Store) -> None:
    await store.write(lambda tx: tasks.ensure(tx, "T", "change_commit", requested_by="ana"))
    kinds = product(["running", "completed", "failed"], ["receipts", "photos"], ["delete", "close"])
    jobs = []
    for (status, resource, action), (task, project) in product(kinds, [("T", None), (None, "summer")]):
        fields: dict[str, Any] = {"resource": resource, "action": action, "task_id": task, "project": project}
        for user, tenant in (("ana", "acme"), ("bob", "rival")):
            jobs.append(await stored(store, a_job(status, user=user, tenant=tenant, **fields)))
    callers = [OWNER, a_caller("x", "admin", "acme"), a_caller("ana", "viewer")]
    for caller, values in product(callers, product(*FILTERS.values())):
        wanted = dict(zip(FILTERS, values, strict=True))
        listed = await _listed(store, caller, **wanted)
        assert [job.id for job in listed] == [
            job.id
            for job in sorted(jobs, key=lambda job: job.id, reverse=True)
            if _fits(job, wanted) and (caller is OWNER or job.tenant == "acme")
        ], wanted


def _fits(job: JobRow, wanted: dict[str, Any]) -> bool:
    statuses = wanted["statuses"]
    others = all(
        value is None or getattr(job, name) == value for name, value in wanted.items() if name != "statuses"
    )
    return others and (not statuses or job.status in statuses)


async def test_pages_go_on_below_the_last_id(store: Store) -> None:
    jobs = [await stored(store, a_job(status)) for status in ["completed", "running"] * 4]
    newest = [job.id for job in reversed(jobs)]
    both: dict[str, Any] = {"statuses": ("running", "completed")}
    for wanted in ({}, both):
        assert [job.id for job in await _listed(store, limit=3, **wanted)] == newest[:3]
        assert [job.id for job in await _listed(store, limit=3, before=newest[2], **wanted)] == newest[3:6]


async def test_maintenance_is_hidden_unless_asked_for(store: Store) -> None:
    await stored(store, a_job(tenant="acme", source="maintenance"))
    assert await _listed(store) == []
    assert len(await _listed(store, maintenance=True)) == 1


# The trash


async def _trash(
    store: Store, caller: Caller = OWNER, *, limit: int = 1000, **values: Any
) -> tuple[list[TrashRow], TrashPlace | None]:
    found = await store.read(
        lambda connection: listings.newest_trash(connection, caller, limit=limit, **values)
    )
    return found.rows, found.following


async def _taken(store: Store, job: JobRow, *batches: list[str], listed: bool = True) -> JobRow:
    await stored(store, job)
    first = 0
    for labels in batches:
        await store.write(partial(take, job=job, labels=labels, first=first, listed=listed))
        first += len(labels)
        assert isinstance(store.clock, HandClock)
        store.clock.advance(1)
    return job


async def test_the_trash_lists_what_is_gone_newest_first(store: Store) -> None:
    job = await _taken(store, a_job(tenant="acme", undo_until_ms=START_MS + 9), ["a", "b"], ["c"])
    await _taken(store, a_job(), ["changed"], listed=False)
    rows, following = await _trash(store)
    assert following is None
    assert [(row.label, row.item, row.position) for row in rows] == [
        ("c", "id-c", 2),
        ("b", "id-b", 1),
        ("a", "id-a", 0),
    ]
    assert (rows[0].job, rows[0].tenant, rows[0].resource) == (job.id, "acme", "receipts")
    assert (rows[0].created_ms, rows[0].undo_until_ms) == (START_MS + 1000, START_MS + 9)


async def test_what_is_not_accounted_for_yet_is_not_in_the_trash(store: Store) -> None:
    def tentative(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE trash SET kept = 0")

    await _taken(store, a_job(), ["a"])
    await store.write(lambda tx: tentative(tx.connection))
    assert await _trash(store) == ([], None)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_of_trash_add_up_whatever_their_size(
    store: Store, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "_PIECE", 2)
    monkeypatch.setattr(listings, "_MAX_STEPS", 3)
    await _taken(store, a_job(tenant="acme"), ["a1", "a2", "a3", "a4", "a5"], ["a6"])
    await _taken(store, a_job(tenant="rival"), *[[f"r{number}"] for number in range(7)])
    await _taken(store, a_job(tenant="acme"), ["b1", "b2"])
    found: list[str] = []
    place: TrashPlace | None = None
    for _ in range(50):
        rows, place = await _trash(store, a_caller("x", "admin", "acme"), limit=limit, place=place)
        assert len(rows) <= limit
        found += [row.label for row in rows]
        if place is None:
            break
    assert found == ["b2", "b1", "a6", "a5", "a4", "a3", "a2", "a1"]


async def test_trash_of_jobs_in_the_same_instant_is_told_apart(store: Store) -> None:
    mine, theirs = a_job(tenant="acme"), a_job(tenant="rival")

    def both(tx: Any) -> None:
        for job in (mine, theirs):
            put(tx, job)
            take(tx, job, [f"{job.tenant}-{number}" for number in range(3)])

    await store.write(both)
    rows, _ = await _trash(store, a_caller("x", "admin", "acme"))
    assert [row.label for row in rows] == ["acme-2", "acme-1", "acme-0"]
    rows, _ = await _trash(store, tenant="rival")
    assert [row.label for row in rows] == ["rival-2", "rival-1", "rival-0"]


@pytest.mark.parametrize(
    ("q", "labels"), [("ÄPF", ["Äpfel"]), ("id-b", ["birnen"]), ("%", []), ("", [None] * 2)]
)
async def test_a_search_looks_into_labels_and_ids(store: Store, q: str, labels: list[str | None]) -> None:
    await _taken(store, a_job(), ["Äpfel", "birnen"])
    rows, _ = await _trash(store, q=q)
    assert len(rows) == len(labels)
    assert [row.label for row in rows] == labels or not q


async def test_a_user_finds_only_what_their_own_jobs_took(store: Store) -> None:
    await _taken(store, a_job(user="ana", tenant="acme"), ["hers"])
    await _taken(store, a_job(user="bob", tenant="acme"), ["his"])
    rows, _ = await _trash(store, a_caller("bob", "operator", "acme"))
    assert [row.label for row in rows] == ["his"]


def test_every_status_has_a_list() -> None:
    assert {listings._lead(_sight(), JobFilter(), status) for status in map(str, Status)} == {"status"}


def _sight() -> listings.Sight:
    sight = sight_of(OWNER)
    assert sight is not None
    return sight
