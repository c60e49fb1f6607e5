from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.database import open_connection
from bulkops.store import events, meta, migrations
from bulkops.store.events import Cursor, LogState, Scope
from bulkops.store.transaction import Tx
from tests.conftest import HandClock
from tests.live_house import a_job

DAY_MS = 86_400_000


class Database:
    """Our database in a file, written by plain transactions."""

    def __init__(self, path: Path, clock: HandClock) -> None:
        self.clock = clock
        self.connection = open_connection(path / "bulkops.db", create=True)
        migrations.create(self.connection, meta.first_values(clock.now_ms()))

    def write(self, work: Callable[[Tx], Any]) -> Any:
        tx = Tx(self.connection, self.clock.now_ms())
        self.connection.execute("BEGIN IMMEDIATE")
        result = work(tx)
        self.connection.execute("COMMIT")
        return result

    def append(self, job: Any, kind: str, **data: Any) -> int:
        seq: int = self.write(lambda tx: events.append(tx, job, kind, data))
        return seq

    def state(self) -> LogState:
        return events.state(self.connection)

    def read(self, scope: Scope, after: int = 0, **bounds: int) -> events.Slice:
        return events.read_after(self.connection, scope, after, head=self.state().head, **bounds)

    def seqs(self, scope: Scope, after: int = 0) -> list[int]:
        return [row.seq for row in self.read(scope, after).rows]


@pytest.fixture
def database(tmp_path: Path, clock: HandClock) -> Iterator[Database]:
    made = Database(tmp_path, clock)
    yield made
    made.connection.close()


EVERYTHING = Scope(kind="all", any_tenant=True, installation=True)


def test_an_event_has_the_one_shape(database: Database) -> None:
    job = a_job(project="p", task_id="t", task_type="change_commit")
    seq = database.append(job, "paused", status="paused")
    (row,) = database.read(EVERYTHING).rows
    assert msgspec.json.decode(f'{{"seq":{row.seq}{row.rest}') == {
        "seq": seq,
        "kind": "paused",
        "at": "2026-01-01T00:00:00.000Z",
        "job": job.id,
        "task_id": "t",
        "task_type": "change_commit",
        "project": "p",
        "source": "user",
        "resource": "receipts",
        "action": "delete",
        "data": {"status": "paused"},
    }


def test_a_transaction_knows_the_head_and_the_job_to_ring(database: Database) -> None:
    job = a_job()

    def work(tx: Tx) -> Tx:
        events.append(tx, job, "started", {})
        events.append(tx, job, "paused", {})
        return tx

    commit = database.write(work).commit()
    assert commit.head == 2
    assert commit.jobs == {job.id}


def test_progress_takes_the_place_of_older_progress_of_that_job_only(database: Database) -> None:
    one, two = a_job(), a_job()
    for job, kind in [(one, "started"), (one, "progress"), (two, "progress"), (one, "progress")]:
        database.append(job, kind)
    assert [(row.seq, row.kind) for row in database.read(EVERYTHING).rows] == [
        (1, "started"),
        (3, "progress"),
        (4, "progress"),
    ]


def test_a_seq_is_never_used_twice_even_when_everything_is_trimmed(database: Database) -> None:
    last = database.append(a_job(), "completed")
    database.clock.advance(30 * 86400)
    assert database.write(lambda tx: events.trim(tx, before_ms=tx.now_ms)) == 1
    assert database.state().head == last
    assert database.append(a_job(), "queued") == last + 1


def test_few_changed_ids_are_named_and_many_are_counted(database: Database) -> None:
    job = a_job()
    cases: list[tuple[list[str] | None, int | None]] = [
        (["1"] * 100, None),
        (["1"] * 101, None),
        (None, 5000),
        (["x" * 9000], 1),
    ]
    for ids, count in cases:
        database.write(partial(events.changed, job=job, ids=ids, count=count))
    data = [msgspec.json.decode("{" + row.rest[1:])["data"] for row in database.read(EVERYTHING).rows]
    assert data == [{"ids": ["1"] * 100}, {"count": 101}, {"count": 5000}, {"count": 1}]


def test_items_that_would_burst_a_frame_are_left_to_rest(database: Database) -> None:
    items = [{"id": "x" * 500, "outcome": "succeeded", "code": None, "ms": None}] * 100
    database.append(a_job(), "progress", processed=100, items=items)
    (row,) = database.read(EVERYTHING).rows
    assert row.size < 1000
    assert msgspec.json.decode("{" + row.rest[1:])["data"] == {"processed": 100, "items": []}


def test_a_finished_task_is_told_without_a_job(database: Database) -> None:
    class Task:
        id, type, tenant, requested_by, source, project = "T1", "change_commit", "acme", "ana", "user", "p"

    database.write(lambda tx: events.task_completed(tx, Task(), {"processed": 3}))
    (row,) = database.read(Scope(kind="task", id="T1", tenant="acme", user="ana")).rows
    assert (row.kind, row.job) == ("task_completed", None)


# -- who sees what

TENANT_ADMIN = Scope(kind="all", tenant="acme")
ANA = Scope(kind="all", tenant="acme", user="ana")


def fill(database: Database) -> dict[str, int]:
    return {
        "ana": database.append(a_job(), "started"),
        "bob": database.append(a_job(user="bob"), "started"),
        "bob changed": database.append(a_job(user="bob"), "changed"),
        "other": database.append(a_job(tenant="other"), "started"),
        "other changed": database.append(a_job(tenant="other"), "changed"),
        "nobody's": database.append(a_job(tenant=None, user="root"), "started"),
        "maintenance": database.append(a_job(tenant=None, user="-", source="maintenance"), "started"),
        "acme's maintenance": database.append(a_job(user="-", source="maintenance"), "started"),
    }


@pytest.mark.parametrize(
    ("scope", "visible"),
    [
        (EVERYTHING, None),
        (TENANT_ADMIN, {"ana", "bob", "bob changed", "acme's maintenance"}),
        (ANA, {"ana", "bob changed"}),
        (
            Scope(kind="all", any_tenant=True),
            {"ana", "bob", "bob changed", "other", "other changed", "nobody's", "acme's maintenance"},
        ),
        (Scope(kind="all", any_tenant=True, user="root"), {"nobody's", "bob changed", "other changed"}),
    ],
)
def test_a_scope_reads_what_its_caller_may_see(
    database: Database, scope: Scope, visible: set[str] | None
) -> None:
    told = fill(database)
    assert database.seqs(scope) == [seq for name, seq in told.items() if visible is None or name in visible]


def test_a_foreign_job_reads_as_nothing(database: Database) -> None:
    job = a_job(tenant="other", task_id="T")
    database.append(job, "started")
    assert database.seqs(Scope(kind="job", id=job.id, tenant="acme")) == []
    assert database.seqs(Scope(kind="job", id=job.id, tenant="other", user="bob")) == []
    assert database.seqs(Scope(kind="task", id="T", tenant="acme")) == []
    assert database.seqs(Scope(kind="job", id=job.id, tenant="other")) == [1]


# -- how much at once


def test_a_read_ends_at_its_rows_and_at_its_bytes(database: Database) -> None:
    job = a_job()
    for _ in range(10):
        database.append(job, "updated", text="x" * 1000)
    by_rows = database.read(EVERYTHING, max_rows=4)
    assert (len(by_rows.rows), by_rows.position) == (4, 4)
    by_bytes = database.read(EVERYTHING, max_bytes=3500)
    assert (len(by_bytes.rows), by_bytes.position) == (2, 2)
    one = database.read(EVERYTHING, max_bytes=1)
    assert (len(one.rows), one.position) == (1, 1)
    rest = database.read(EVERYTHING, after=4)
    assert (len(rest.rows), rest.position) == (6, 10)


def test_a_topic_without_events_moves_on_all_the_same(database: Database) -> None:
    for _ in range(5):
        database.append(a_job(tenant="other"), "started")
    assert database.read(ANA) == events.Slice([], 5)
    assert database.read(ANA, after=5) == events.Slice([], 5)


# -- trimming


def test_trimming_moves_the_floor_over_what_it_removed(database: Database, clock: HandClock) -> None:
    job = a_job()
    for kind in ("queued", "started", "completed"):
        database.append(job, kind)
    clock.advance(2 * 86400)
    database.append(job, "queued")
    assert database.state().floor == 1
    removed = database.write(lambda tx: events.trim(tx, before_ms=tx.now_ms - DAY_MS))
    assert removed == 2
    assert database.state() == LogState(database.state().epoch, 3, 4)
    assert database.seqs(EVERYTHING) == [3, 4]
    assert database.write(lambda tx: events.trim(tx, before_ms=tx.now_ms - DAY_MS)) == 0


def test_terminal_events_live_for_seven_days_whatever_is_asked(database: Database, clock: HandClock) -> None:
    database.append(a_job(), "completed")
    clock.advance(7 * 86400 - 1)
    assert database.write(lambda tx: events.trim(tx, before_ms=tx.now_ms, keep_terminal_ms=0)) == 0
    assert database.state().floor == 1
    clock.advance(2)
    assert database.write(lambda tx: events.trim(tx, before_ms=tx.now_ms, keep_terminal_ms=0)) == 1
    assert database.state().floor == 2


def test_a_cursor_is_good_from_just_below_the_floor_to_the_head(database: Database, clock: HandClock) -> None:
    for _ in range(4):
        database.append(a_job(), "queued")
        clock.advance(10)
    database.write(lambda tx: events.trim(tx, before_ms=tx.now_ms - 25_000))
    log = database.state()
    assert (log.floor, log.head) == (3, 4)
    losses = [log.loss(Cursor(log.epoch, seq)) for seq in range(6)]
    assert losses == ["trimmed", "trimmed", None, None, None, "ahead"]
    assert log.loss(Cursor("another", 3)) == "epoch"
    assert log.earliest == Cursor(log.epoch, 2)


def test_a_clock_set_back_keeps_more_and_loses_nothing(database: Database, clock: HandClock) -> None:
    database.append(a_job(), "queued")
    clock.advance(3600)
    database.append(a_job(), "queued")
    clock.advance(-7200)
    database.append(a_job(), "queued")
    now = clock.now_ms()
    assert database.write(lambda tx: events.trim(tx, before_ms=now + 3_600_001)) == 1
    assert database.seqs(EVERYTHING) == [2, 3]
    assert database.state().floor == 2


def test_audiences_are_whose_jobs_are(database: Database) -> None:
    assert events.audience(database.connection, "job", "none") is None
    assert events.audience(database.connection, "task", "none") is None


def test_a_kind_that_is_not_ours_is_refused_by_the_table(database: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        database.append(a_job(), "exploded")
    database.connection.execute("ROLLBACK")


# -- cursors


@given(st.text(alphabet="abcXYZ019_-", min_size=1, max_size=64), st.integers(0, 2**63 - 1))
def test_a_cursor_survives_its_text(epoch: str, seq: int) -> None:
    cursor = Cursor(epoch, seq)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.text(max_size=80))
def test_what_parses_as_a_cursor_is_written_the_same(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except ValueError:
        return
    assert str(cursor) == text


@pytest.mark.parametrize(
    "text",
    ["", ":", "e:", ":1", "e:-1", "e:01", "e:1.0", "e:\u0661", "e:1\n", "e:9223372036854775808", "e:1:2"],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a cursor is"):
        Cursor.parse(text)
