"""The outbox: what is told of jobs stands in it with the event, in order, and waits as the schedule says."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.store import deliveries, events, jobs, webhooks
from bulkops.store.deliveries import DeliveryRow, Letter, Reply
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from bulkops.store.transaction import Commit, Tx
from tests.conftest import HandClock
from tests.store_house import START_MS, a_job

ALL = webhooks.EVENTS


async def hook(store: Store, tenant: str | None = "acme", wanted: tuple[str, ...] = ALL) -> str:
    row, _ = await store.write(
        lambda tx: webhooks.create(
            tx, tenant=tenant, url="https://app.example/", events=wanted, description=None, user="ana"
        )
    )
    return row.id


async def tell(store: Store, job: JobRow, *kinds: str, **data: Any) -> None:
    def work(tx: Tx) -> None:
        for kind in kinds:
            events.append(tx, job, kind, {"status": kind, **data})

    await store.write(work)


async def letters(store: Store, webhook: str) -> list[DeliveryRow]:
    """List a webhook's deliveries, oldest first."""
    rows = await store.read(lambda c: deliveries.page(c, webhook, state=None, before=None, limit=1000))
    return rows[::-1]


async def kinds(store: Store, webhook: str, state: str = "pending") -> list[str]:
    return [row.kind for row in await letters(store, webhook) if row.state == state]


async def claim(store: Store, limit: int = 64, *, held: tuple[str, ...] = ()) -> list[Letter]:
    return await store.write(lambda tx: deliveries.claim(tx, limit, held=held))


async def record(store: Store, letter: Letter, result: Any, **more: Any) -> None:
    await store.write(lambda tx: deliveries.record(tx, letter, Reply(result, 12, **more)))


async def due_s(store: Store, *held: str) -> float | None:
    now_ms = store.clock.now_ms()
    due_ms = await store.read(lambda c: deliveries.next_due_ms(c, now_ms, held=held))
    return None if due_ms is None else (due_ms - now_ms) / 1000


# --- told with the event ---------------------------------------------------------------------------------


async def test_an_event_and_its_letter_are_one_transaction(store: Store) -> None:
    webhook = await hook(store)

    class Broken(Exception):
        pass

    def work(tx: Tx) -> None:
        jobs.announce(tx, a_job("running", tenant="acme"), "started")
        raise Broken

    with pytest.raises(Broken):
        await store.write(work)
    assert await letters(store, webhook) == []
    rung: list[Commit] = []
    store.on_commit.append(rung.append)
    await store.write(lambda tx: jobs.announce(tx, a_job("running", tenant="acme"), "started"))
    assert await kinds(store, webhook) == ["started"]
    assert rung[-1].letters


async def test_only_events_that_were_asked_for_are_told(store: Store) -> None:
    some, everything = await hook(store, wanted=("completed", "failed")), await hook(store)
    job = a_job("running", tenant="acme")
    await tell(store, job, "queued", "started", "updated", "paused", "resumed", "changed", "completed")
    assert await kinds(store, some) == ["completed"]
    assert await kinds(store, everything) == ["started", "paused", "completed"]


async def test_a_tenants_jobs_are_told_to_the_tenant_and_to_the_installation(store: Store) -> None:
    acme, other, all_of_them = await hook(store), await hook(store, "other"), await hook(store, None)
    await tell(store, a_job("running", tenant="acme"), "started")
    await tell(store, a_job("running", tenant=None), "paused")
    await tell(store, a_job("running", tenant=None, source="maintenance"), "failed")
    await tell(store, a_job("running", tenant="acme", source="maintenance"), "cancelled")
    assert await kinds(store, acme) == ["started", "cancelled"]
    assert await kinds(store, other) == []
    assert await kinds(store, all_of_them) == ["started", "paused", "cancelled"]


async def test_without_a_webhook_nothing_is_written_or_rung(store: Store) -> None:
    rung: list[Commit] = []
    store.on_commit.append(rung.append)
    await tell(store, a_job("running", tenant="acme"), *ALL)
    assert not rung[-1].letters
    assert await claim(store) == []
    assert await due_s(store) is None


async def test_the_payload_is_the_event_as_on_every_other_face(store: Store) -> None:
    await hook(store)
    job = a_job("running", tenant="acme", task_id=None)
    await tell(store, job, "started", total=3)
    (letter,) = await claim(store)
    told = msgspec.json.decode(letter.payload)
    at = "2026-01-01T00:00:00.000Z"
    assert told == {
        "type": "started",
        "timestamp": at,
        "data": {
            "seq": 1,
            "kind": "started",
            "at": at,
            "job": job.id,
            "task_id": None,
            "task_type": None,
            "project": None,
            "source": "user",
            "resource": "receipts",
            "action": "delete",
            "tenant": "acme",
            "data": {"status": "started", "total": 3},
        },
    }


_VALUES = st.recursive(
    st.none() | st.integers(0, 2**53) | st.text(max_size=400).map(lambda text: text * 20),
    lambda inner: st.dictionaries(st.sampled_from(["code", "message"]), inner, max_size=2),
    max_leaves=6,
)


@given(
    data=st.dictionaries(st.sampled_from(["status", "error", "status_reason", "undo_until"]), _VALUES),
    items=st.integers(0, 100),
    project=st.text(max_size=5000),
)
def test_a_payload_never_exceeds_20_kilobytes(data: dict[str, Any], items: int, project: str) -> None:
    about = dict.fromkeys(
        ["tenant", "task_id", "task_type", "project", "source", "resource", "action"], project
    )
    whole = {**data, "total": 7, "items": [{"id": "x" * 200, "outcome": "succeeded"}] * items}
    text = deliveries.compose({**about, "job": "J" * 26}, "progress", 5, whole, at_ms=START_MS)
    assert len(text.encode()) <= deliveries.MAX_PAYLOAD
    told = msgspec.json.decode(text)["data"]
    assert (told["job"], told["data"]["total"]) == ("J" * 26, 7)


async def test_of_progress_only_the_newest_waits_and_whatever_follows_takes_its_place(store: Store) -> None:
    webhook = await hook(store)
    job, other = a_job("running", tenant="acme"), a_job("running", tenant="acme")
    await tell(store, job, "started", "progress", "progress")
    await tell(store, other, "progress")
    await tell(store, job, "progress", processed=3)
    assert await kinds(store, webhook) == ["started", "progress", "progress"]
    await tell(store, job, "completed")
    assert await kinds(store, webhook) == ["started", "progress", "completed"]


# --- claimed and settled ---------------------------------------------------------------------------------


async def test_a_webhook_is_served_one_letter_at_a_time_in_order(store: Store, clock: HandClock) -> None:
    webhook, second = await hook(store), await hook(store)
    for kind in ("started", "paused", "completed"):
        await tell(store, a_job("running", tenant="acme"), kind)
        clock.advance(0.001)
    seen = []
    for _ in range(3):
        first, _ = sorted(await claim(store), key=lambda letter: letter.webhook)
        assert first.webhook == webhook
        assert await claim(store, held=(webhook, second)) == []
        assert await due_s(store, webhook, second) is None
        seen.append(first.kind)
        await record(store, first, "2xx")
    assert seen == ["started", "paused", "completed"]


async def test_whose_last_attempt_is_longest_ago_is_served_first(store: Store, clock: HandClock) -> None:
    hooks = [await hook(store) for _ in range(3)]
    for _ in range(3):
        await tell(store, a_job("running", tenant="acme"), "started")
    served = []
    for _ in range(6):
        (letter,) = await claim(store, 1)
        served.append(hooks.index(letter.webhook))
        clock.advance(1)
    assert served == [0, 1, 2, 0, 1, 2]


async def test_an_attempt_and_the_wait_after_it_are_written_before_it_is_made(
    store: Store, clock: HandClock
) -> None:
    webhook = await hook(store)
    await tell(store, a_job("running", tenant="acme"), "started")
    (letter,) = await claim(store)
    (row,) = await letters(store, webhook)
    assert (row.attempts, row.state, letter.attempt) == (1, "pending", 1)
    assert await claim(store) == []  # nobody recorded anything, as after a crash
    assert 5 <= (await due_s(store) or 0) <= 5.5
    clock.advance(6)
    (again,) = await claim(store)
    assert (again.id, again.attempt) == (letter.id, 2)


async def test_the_schedule_is_kept_and_then_the_letter_is_dead(store: Store, clock: HandClock) -> None:
    webhook = await hook(store)
    await tell(store, a_job("running", tenant="acme"), "started")
    waited: list[float] = []
    while (wait_s := await due_s(store)) is not None:
        waited.append(wait_s)
        clock.advance(wait_s + 0.001)
        (letter,) = await claim(store)
        await record(store, letter, "5xx")
    assert len(waited) == deliveries.MAX_ATTEMPTS == 10
    for wait_s, planned_s in zip(waited, deliveries.SCHEDULE_S, strict=True):
        assert planned_s <= wait_s <= planned_s * 1.1
    (row,) = await letters(store, webhook)
    assert (row.state, row.result, row.attempts, row.took_ms) == ("dead", "5xx", 10, 12)


async def test_a_process_that_dies_in_the_last_attempt_leaves_a_dead_letter(
    store: Store, clock: HandClock
) -> None:
    webhook = await hook(store)
    await tell(store, a_job("running", tenant="acme"), "started")
    for _ in range(deliveries.MAX_ATTEMPTS):
        assert len(await claim(store)) == 1
        clock.advance(30 * 3600)
    assert await claim(store) == []
    assert await kinds(store, webhook, "dead") == ["started"]


async def test_the_letters_of_one_job_wait_for_the_first_of_them_and_others_do_not(
    store: Store, clock: HandClock
) -> None:
    await hook(store)
    job, other = a_job("running", tenant="acme"), a_job("running", tenant="acme")
    await tell(store, job, "started", "paused")
    (letter,) = await claim(store)
    await record(store, letter, "5xx")
    await tell(store, job, "completed")
    await tell(store, other, "failed")
    (different,) = await claim(store)
    assert different.job == other.id
    await record(store, different, "2xx")
    assert await claim(store) == []
    clock.advance(6)
    seen = []
    for _ in range(3):
        (letter,) = await claim(store)
        seen.append(letter.kind)
        await record(store, letter, "2xx")
    assert seen == ["started", "paused", "completed"]


async def test_newer_progress_waits_where_older_waited_and_is_free_once_the_endpoint_answers(
    store: Store, clock: HandClock
) -> None:
    webhook = await hook(store)
    job = a_job("running", tenant="acme")
    await tell(store, job, "progress")
    (first,) = await claim(store)
    await tell(store, job, "progress")
    assert await claim(store) == []  # the older one is under way: no second knock beside it
    (row,) = await letters(store, webhook)
    assert (row.id != first.id, row.attempts) == (True, 1)
    await record(store, first, "2xx")
    (second,) = await claim(store)
    assert (second.id, second.attempt) == (row.id, 1)
    await record(store, second, "5xx")
    await tell(store, job, "progress")
    assert (await due_s(store) or 0) >= 5
    clock.advance(6)
    (third,) = await claim(store)
    assert third.attempt == 2


async def test_delivered_progress_does_not_pile_up(store: Store) -> None:
    webhook = await hook(store)
    job = a_job("running", tenant="acme")
    await tell(store, job, "started")
    for _ in range(5):
        (letter,) = await claim(store)
        await record(store, letter, "2xx")
        await tell(store, job, "progress")
    (letter,) = await claim(store)
    await record(store, letter, "2xx")
    assert await kinds(store, webhook, "delivered") == ["started", "progress"]


async def test_retry_after_only_ever_makes_the_wait_longer(store: Store) -> None:
    await hook(store)
    for retry_after_ms, least_s, most_s in (
        (90_000, 90, 90),
        (1_000, 5, 5.5),
        (10**12, 86_400, 86_400),
    ):
        await tell(store, a_job("running", tenant="acme"), "started")
        (letter,) = await claim(store)
        await record(store, letter, "4xx", retry_after_ms=retry_after_ms)
        rows = await letters(store, letter.webhook)
        wait_s = (rows[-1].not_before_ms - store.clock.now_ms()) / 1000
        assert least_s <= wait_s <= most_s


async def test_gone_ends_the_webhook_and_all_that_waits_for_it(store: Store) -> None:
    webhook, other = await hook(store), await hook(store)
    await tell(store, a_job("running", tenant="acme"), "started")
    await tell(store, a_job("running", tenant="acme"), "paused")
    first = next(letter for letter in await claim(store) if letter.webhook == webhook)
    await record(store, first, "4xx", gone=True)
    assert await kinds(store, webhook, "dead") == ["started", "paused"]
    row = await store.read(lambda c: webhooks.get(c, webhook))
    assert row is not None
    assert row.status == "disabled"
    assert row.last is not None
    assert (row.last.id, row.last.result, row.last.took_ms) == (first.id, "4xx", 12)
    await tell(store, a_job("running", tenant="acme"), "failed")
    assert await kinds(store, webhook) == []
    assert await kinds(store, other) == ["started", "paused", "failed"]
    assert not await store.write(lambda tx: deliveries.resend(tx, webhook, first.id))


async def test_a_clock_that_was_set_back_lets_nothing_wait_for_ever(store: Store, clock: HandClock) -> None:
    await hook(store)
    clock.advance(30 * 86_400)
    await tell(store, a_job("running", tenant="acme"), "started")
    (letter,) = await claim(store)
    await record(store, letter, "5xx")
    clock.advance(-30 * 86_400)
    assert await due_s(store) == 0
    (again,) = await claim(store)
    assert again.id == letter.id


async def test_a_full_backlog_makes_dead_letters_and_no_progress(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "_MAX_PENDING", 2)
    webhook = await hook(store)
    for kind in ("started", "paused", "progress", "completed"):
        await tell(store, a_job("running", tenant="acme"), kind)
    assert await kinds(store, webhook) == ["started", "paused"]
    (dead,) = [row for row in await letters(store, webhook) if row.state == "dead"]
    assert (dead.kind, dead.result) == ("completed", "backlog")


async def test_a_dead_letter_is_sent_again_under_its_id(store: Store) -> None:
    webhook = await hook(store)
    await tell(store, a_job("running", tenant="acme"), "completed")
    (letter,) = await claim(store)
    assert not await store.write(lambda tx: deliveries.resend(tx, webhook, letter.id))
    last = msgspec.structs.replace(letter, attempt=deliveries.MAX_ATTEMPTS)
    await record(store, last, "timeout")
    assert await kinds(store, webhook, "dead") == ["completed"]
    assert not await store.write(lambda tx: deliveries.resend(tx, "another", letter.id))
    assert await store.write(lambda tx: deliveries.resend(tx, webhook, letter.id))
    (again,) = await claim(store)
    assert again == letter


async def test_a_webhook_goes_with_its_letters_even_while_one_is_under_way(store: Store) -> None:
    webhook = await hook(store)
    await tell(store, a_job("running", tenant="acme"), "started")
    (letter,) = await claim(store)
    assert not await store.write(lambda tx: webhooks.delete(tx, webhook, tenant="other"))
    assert await store.write(lambda tx: webhooks.delete(tx, webhook, tenant="acme"))
    await record(store, letter, "2xx")
    assert await letters(store, webhook) == []
    assert await store.read(lambda c: webhooks.get(c, webhook)) is None


async def test_secrets_are_long_random_and_each_webhooks_own(store: Store) -> None:
    def make(tx: Tx) -> str:
        return webhooks.create(
            tx, tenant=None, url="https://a.example/", events=ALL, description=None, user="ana"
        )[1]

    one, two = await store.write(make), await store.write(make)
    assert one != two
    assert one.startswith("whsec_")
    assert 24 <= len(base64.b64decode(one.removeprefix("whsec_"))) <= 64


async def test_lists_are_paged_newest_first_within_a_tenant(store: Store) -> None:
    made = [await hook(store, tenant) for tenant in ("acme", "other", "acme", None)]

    async def page(tenant: str | None, before: str | None, limit: int) -> list[str]:
        rows = await store.read(lambda c: webhooks.page(c, tenant=tenant, before=before, limit=limit))
        return [row.id for row in rows]

    assert await page(None, None, 10) == made[::-1]
    assert await page("acme", None, 10) == [made[2], made[0]]
    assert await page("acme", made[2], 1) == [made[0]]
    for kind in ("started", "paused"):
        await tell(store, a_job("running", tenant="acme"), kind)
    rows = await letters(store, made[0])
    older = await store.read(
        lambda c: deliveries.page(c, made[0], state="pending", before=rows[1].seq, limit=9)
    )
    assert older == rows[:1]


async def test_old_letters_go_and_waiting_ones_stay(store: Store, clock: HandClock) -> None:
    webhook = await hook(store)
    for result in ("2xx", "5xx", None):
        await tell(store, a_job("running", tenant="acme"), "started")
        (letter,) = await claim(store)
        if result:
            last = msgspec.structs.replace(letter, attempt=deliveries.MAX_ATTEMPTS)
            await record(store, last, result)
    assert await store.read(deliveries.stats) == {"pending": 1, "dead": 1}
    clock.advance(10)
    now_ms = clock.now_ms()

    def forget(tx: Tx) -> int:
        return deliveries.forget(tx, delivered_before_ms=now_ms, dead_before_ms=START_MS, limit=5)

    assert await store.write(forget) == 1
    assert [row.state for row in await letters(store, webhook)] == ["dead", "pending"]
    assert await store.write(forget) == 0
