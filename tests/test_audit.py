"""The audit: append-only, of one tenant or of all, and safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import sqlite3
from typing import Any

import msgspec
import pytest

from bulkops.store import audit
from bulkops.store.store import Store
from tests.conftest import HandClock
from tests.doors import Doors


async def _note(store: Store, **fields: Any) -> None:
    told = {"user": "ana", "tenant": "acme", "verb": "start", **fields}
    await store.write(lambda tx: audit.append(tx, **told))


async def _page(store: Store, **query: Any) -> list[audit.AuditRow]:
    return await store.read(lambda connection: audit.page(connection, **query))


async def test_a_note_is_read_as_it_was_written(store: Store, clock: HandClock) -> None:
    await _note(store, job="J", resource="receipts", detail={"count": 3})
    assert await _page(store, tenant="acme") == [
        audit.AuditRow(1, clock.now_ms(), "ana", "acme", "start", "J", "receipts", {"count": 3})
    ]


async def test_pages_go_backwards_and_stay_within_a_tenant(store: Store) -> None:
    for number in range(5):
        await _note(store, detail={"n": number}, job="J" if number % 2 else None)
        await _note(store, tenant="other", job="J")
    await _note(store, tenant=None, verb="backup")
    assert [row.detail["n"] for row in await _page(store, tenant="acme")] == [4, 3, 2, 1, 0]
    assert [row.detail["n"] for row in await _page(store, tenant="acme", job="J")] == [3, 1]
    assert len(await _page(store, tenant=None)) == 11
    assert len(await _page(store, tenant=None, job="J")) == 7
    first = await _page(store, tenant="acme", limit=2)
    assert [row.detail["n"] for row in await _page(store, tenant="acme", before=first[-1].seq)] == [2, 1, 0]
    assert await _page(store, tenant="nobody") == []


@pytest.mark.parametrize("statement", ["UPDATE audit SET user = 'eve'", "DELETE FROM audit"])
async def test_nothing_can_be_changed_or_removed(store: Store, statement: str) -> None:
    await _note(store)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        await store.write(lambda tx: tx.connection.execute(statement).fetchall())
    assert len(await _page(store, tenant=None)) == 1


FORMULAS = [
    "=1+1",
    "+1",
    "-1+2",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff20x",
    "=cmd|' /C calc'!A0",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    line = audit.csv_lines([_view(user=text)]).decode()
    assert next(csv.reader(io.StringIO(line, newline="")))[2] == "'" + text


@pytest.mark.parametrize("text", ['a"b', "a,b", "a\r\nb", "a\nb", "'a", "ünïcode", "</script>", "\u2028"])
def test_every_other_cell_survives_csv(text: str) -> None:
    line = audit.csv_lines([_view(user=text)]).decode()
    assert next(csv.reader(io.StringIO(line, newline="")))[2] == text


def _view(**fields: Any) -> dict[str, Any]:
    return {
        "seq": 1,
        "at": "2026-01-01T00:00:00.000Z",
        "user": "ana",
        "tenant": None,
        "verb": "start",
        "job": None,
        "resource": None,
        "detail": {},
        **fields,
    }


def test_empty_exports_are_empty() -> None:
    assert audit.ndjson([]) == b""
    assert audit.csv_lines([]) == b""
    assert audit.csv_header() == b"seq,at,user,tenant,verb,job,resource,detail\r\n"


async def test_an_admin_reads_their_tenants_audit_and_an_owner_all_of_it(doors: Doors) -> None:
    await _note(doors.store)
    await _note(doors.store, tenant="other")
    admin = await doors.key(role="admin")
    owner = await doors.key(role="owner", tenant=None)
    mine = await doors.ask("GET", "/api/audit", key=admin)
    assert [each["tenant"] for each in mine.json["items"]] == ["acme"]
    everything = await doors.ask("GET", "/api/audit", key=owner)
    assert [each["tenant"] for each in everything.json["items"]] == ["other", "acme"]
    operator = await doors.key(role="operator")
    assert (await doors.ask("GET", "/api/audit", key=operator)).status == 403


async def test_exports_hold_every_row_in_both_formats(doors: Doors) -> None:
    admin = await doors.key(role="admin")

    def fill(tx: Any) -> None:
        for number in range(2500):
            audit.append(tx, user="ana", tenant="acme", verb="start", detail={"n": number})

    await doors.store.write(fill)
    lines = await doors.ask("GET", "/api/audit?format=ndjson", key=admin)
    assert lines.header("content-disposition") == 'attachment; filename="audit.ndjson"'
    numbers = [msgspec.json.decode(line)["detail"]["n"] for line in lines.body.splitlines()]
    assert numbers == list(range(2499, -1, -1))
    table = await doors.ask("GET", "/api/audit?format=csv", key=admin)
    assert table.header("content-type") == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(table.body.decode(), newline="")))
    assert [msgspec.json.decode(row["detail"])["n"] for row in rows] == numbers
    assert (await doors.ask("GET", "/api/audit?format=xml", key=admin)).status == 422
