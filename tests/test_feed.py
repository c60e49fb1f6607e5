from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec
import pytest

from bulkops.errors import Refusal
from bulkops.feed import Feed, Follower, Frame, Topic, scope_of
from bulkops.models import Caller
from bulkops.operations import may_see
from bulkops.store import events, meta
from bulkops.store.events import Cursor, Scope
from tests.conftest import HandClock
from tests.live_house import House, a_job, open_house, until

T = TypeVar("T")
ANA = Caller(user="ana", tenant="acme", roles=frozenset({"operator"}))
ADMIN = Caller(user="ada", tenant="acme", roles=frozenset({"admin"}))
OWNER = Caller(user="own", roles=frozenset({"owner"}))
ALL = Topic("all")


async def follow(house: House, caller: Caller = ADMIN, topic: Topic = ALL, since: str = "now") -> Follower:
    return await house.feed.follow(caller, topic, since, asyncio.Event())


async def heard(follower: Follower) -> Frame:
    """Wait for the next frame."""
    async with asyncio.timeout(5):
        while True:
            follower.news.clear()
            frame = await follower.next()
            if frame is not None:
                return frame
            await follower.news.wait()


def kinds(frame: Frame) -> list[str]:
    return [row.kind for row in frame.rows]


async def test_replay_and_live_are_one_sequence(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job = await house.new_job()
        with await follow(house, since="earliest") as follower:
            first = await heard(follower)
            assert (kinds(first), first.prev.seq, first.cursor.seq) == (["queued"], 0, 1)
            await house.tell(job, "started")
            second = await heard(follower)
            assert (kinds(second), second.prev, second.cursor.seq) == (["started"], first.cursor, 2)
            assert await follower.next() is None


async def test_a_thousand_followers_cost_one_read_a_ring_and_share_the_bytes(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job = await house.new_job()
        followers = [await follow(house) for _ in range(1000)]
        reads = house.feed.statistics().reads
        await house.tell(job, "started")
        frames = [await heard(follower) for follower in followers]
        assert house.feed.statistics().reads - reads <= 2
        assert len({id(frame.body) for frame in frames}) == 1
        assert house.feed.statistics().bytes == 0
        assert house.feed.statistics().followers == 1000
        for follower in followers:
            follower.close()
        assert house.feed.statistics().scopes == 0


async def test_more_than_two_batches_behind_only_the_newest_progress_is_told(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job, other = await house.new_job(), await house.new_job()
        with await follow(house) as slow, await follow(house) as quick:
            for kind in ("started", "progress", "progress"):
                await house.tell(job, kind)
                await heard(quick)
            await house.tell(other, "progress")
            await heard(quick)
            frame = await heard(slow)
            assert kinds(frame) == ["started", "progress", "progress"]
            assert [row.job for row in frame.rows] == [job.id, job.id, other.id]
            assert '"coalesced":true' in frame.body
            assert await slow.next() is None


async def test_two_batches_behind_is_not_slow(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job = await house.new_job()
        with await follow(house) as slow, await follow(house) as quick:
            for _ in range(2):
                await house.tell(job, "progress")
                await heard(quick)
            frame = await heard(slow)
            assert kinds(frame) == ["progress", "progress"]
            assert "coalesced" not in frame.body


async def test_a_follower_slower_than_the_tail_remembers_reads_the_log_itself(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job = await house.new_job()
        with await follow(house) as slow, await follow(house) as quick:
            for _ in range(12):
                await house.tell(job, "updated", text="x" * 30_000)
                await heard(quick)
            assert house.feed.statistics().bytes <= 2 * events.MAX_BYTES
            seqs: list[int] = []
            previous = slow.sent
            while (frame := await slow.next()) is not None:
                assert frame.prev == previous
                assert len(frame.body) < 65_000
                previous = frame.cursor
                seqs += [row.seq for row in frame.rows]
            assert seqs == list(range(2, 14))
            assert house.feed.statistics().bytes == 0


async def test_a_page_may_be_shorter_than_a_batch(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job = a_job()
        with await follow(house) as follower:
            follower.news.clear()
            await house.store.write(lambda tx: [events.append(tx, job, "updated", {}) for _ in range(5)])
            await until(follower.news.is_set)
            sizes = []
            while (frame := await follower.next(max_rows=2)) is not None:
                sizes.append(len(frame.rows))
            assert sizes == [2, 2, 1]


async def test_a_quiet_topic_advances(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        with await follow(house, ANA) as follower:
            await house.new_job(tenant="other")
            await until(lambda: follower.head.seq == 1)
            assert await follower.next() is None
            advance = follower.advance()
            assert advance is not None
            assert (advance.kind, advance.prev.seq, advance.cursor.seq) == ("advance", 0, 1)
            assert advance.body == f'"cursor":"{house.store.epoch}:1","items":[]'
            assert follower.advance() is None


async def test_who_is_told_of_the_trim_only_when_something_was_lost(tmp_path: Path, clock: HandClock) -> None:
    async with open_house(tmp_path, clock) as house:
        job = await house.new_job()
        at_head, behind = await follow(house), await follow(house, since="earliest")
        assert [row.seq for row in (await heard(behind)).rows] == [1]
        stale = Cursor(house.store.epoch, 0)
        for _ in range(3):
            await house.tell(job, "updated")
        clock.advance(86_400)
        await house.store.write(lambda tx: events.trim(tx, before_ms=tx.now_ms))
        late = await follow(house, since=str(stale))
        assert (late.start.recovered, late.start.reason) == (False, "trimmed")
        assert late.start.cursor == late.start.head
        good = await follow(house, since=f"{house.store.epoch}:4")
        assert good.start.recovered
        # What the tail still remembers is whole, whatever became of the log.
        await until(at_head.news.is_set)
        assert [row.seq for row in (await heard(at_head)).rows] == [2, 3, 4]
        for follower in (at_head, behind, late, good):
            follower.close()


async def test_a_follower_that_lost_events_is_reset_to_the_head(tmp_path: Path, clock: HandClock) -> None:
    async with open_house(tmp_path, clock) as house:
        job = await house.new_job()
        with await follow(house) as slow, await follow(house) as quick:
            for _ in range(12):
                await house.tell(job, "updated", text="x" * 30_000)
                await heard(quick)
            clock.advance(86_400)
            await house.store.write(lambda tx: events.trim(tx, before_ms=tx.now_ms))
            frame = await slow.next()
            assert frame is not None
            assert (frame.kind, frame.reason, frame.cursor.seq) == ("reset", "trimmed", 13)
            await house.tell(job, "started")
            after = await heard(slow)
            assert (kinds(after), after.prev) == (["started"], frame.cursor)


async def test_another_epoch_resets_everybody(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job = await house.new_job()
        with await follow(house) as follower:
            await house.store.write(lambda tx: meta.write(tx, "epoch", "another"))
            frame = await heard(follower)
            assert (frame.kind, frame.reason, frame.cursor) == ("reset", "epoch", Cursor("another", 1))
            await house.tell(job, "started")
            assert (await heard(follower)).prev == frame.cursor


async def test_events_between_the_first_read_and_the_first_look_are_heard(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job = await house.new_job()
        for _ in range(20):
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(house.tell(job, "updated"))
                following = group.create_task(follow(house))
            with following.result() as follower:
                if follower.start.head.seq < telling.result():
                    assert [row.seq for row in (await heard(follower)).rows] == [telling.result()]
                else:
                    assert await follower.next() is None


class Moody:
    """A log over a real store that cannot be read now and then."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.bad = 0

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.bad:
            self.bad -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return await self.house.store.read(work)


async def test_a_log_that_cannot_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulkops.feed._RETRY_S", 0.01)
    async with open_house(tmp_path) as house, anyio.create_task_group() as group:
        log = Moody(house)
        feed = Feed(log, house.hub)
        group.start_soon(feed.run)
        job = await house.new_job()
        with await feed.follow(ADMIN, ALL, "now", asyncio.Event()) as follower:
            log.bad = 2
            await house.tell(job, "started")
            assert kinds(await heard(follower)) == ["started"]
        group.cancel_scope.cancel()


# -- who may follow what


@pytest.mark.parametrize("topic", [Topic("job", "none"), Topic("task", "none"), Topic("job", "theirs")])
async def test_what_is_not_there_or_not_theirs_is_not_found_alike(tmp_path: Path, topic: Topic) -> None:
    async with open_house(tmp_path) as house:
        foreign = await house.new_job(tenant="other")
        if topic.id == "theirs":
            topic = Topic("job", foreign.id)
        with pytest.raises(Refusal, match=f"there is no such {topic.kind}") as refused:
            await follow(house, topic=topic)
        assert refused.value.code == "NOT_FOUND"
        assert house.feed.statistics().followers == 0


async def test_a_colleagues_job_is_followed_by_admins_only(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job = await house.new_job(user="bob")
        (await follow(house, ADMIN, Topic("job", job.id))).close()
        with pytest.raises(Refusal):
            await follow(house, ANA, Topic("job", job.id))


async def test_following_says_whether_the_job_has_ended(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job = await house.new_job()
        with await follow(house, ANA, Topic("job", job.id)) as running:
            assert not running.start.ended
        await house.end(job)
        with await follow(house, ANA, Topic("job", job.id)) as over:
            assert over.start.ended


def test_roles_decide_how_far_a_scope_reaches() -> None:
    assert scope_of(ANA, ALL) == Scope(kind="all", tenant="acme", user="ana")
    assert scope_of(ADMIN, Topic("tenant")) == scope_of(ADMIN, ALL) == Scope(kind="all", tenant="acme")
    assert scope_of(OWNER, ALL) == Scope(kind="all", any_tenant=True, installation=True)
    for caller, topic in [
        (ANA, Topic("tenant")),
        (Caller(user="s", roles=frozenset({"service"})), ALL),
        (Caller(user="n"), ALL),
    ]:
        with pytest.raises(Refusal) as refused:
            scope_of(caller, topic)
        assert refused.value.code == "FORBIDDEN"


async def test_sql_and_the_rule_agree_on_who_sees_which_job(tmp_path: Path) -> None:
    callers = [
        Caller(user=user, tenant=tenant, roles=frozenset({role}))
        for user in ("ana", "-")
        for tenant in (None, "acme", "other")
        for role in ("viewer", "operator", "admin", "owner")
    ]
    async with open_house(tmp_path) as house:
        jobs = [
            await house.new_job(user=user, tenant=tenant, source=source)
            for user in ("ana", "bob", "-")
            for tenant in (None, "acme", "other")
            for source in ("user", "maintenance")
        ]
        for caller in callers:
            with await follow(house, caller, since="earliest") as follower:
                frame = await follower.next()
            seen = set() if frame is None else {row.job for row in frame.rows}
            assert seen == {
                job.id
                for job in jobs
                if may_see(caller, tenant=job.tenant, requested_by=job.requested_by, source=job.source)
            }, caller


async def test_a_body_is_the_json_it_says(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        job = await house.new_job()
        with await follow(house, since="earliest") as follower:
            frame = await heard(follower)
        body = msgspec.json.decode(f"{{{frame.body}}}")
        assert body["cursor"] == str(frame.cursor)
        assert [item["job"] for item in body["items"]] == [job.id]
