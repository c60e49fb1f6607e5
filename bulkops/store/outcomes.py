"""What became of a job's items, derived: its manifest, its exceptions and its cursor are the whole truth.

A position the cursor has passed succeeded unless an exception says otherwise; one ahead of it is
unprocessed, whatever is known of it already. All reads are bounded; a caller who wants more asks again
from the place an answer names. Pass the same `JobRow` every time and all pages tell of the same moment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import product
from typing import Final
from urllib.parse import unquote

import msgspec

from bulkops.effects import Id, ItemException
from bulkops.ids import wire_id
from bulkops.models import ErrorGroup, ItemResult
from bulkops.states import ItemOutcome
from bulkops.store import exceptions
from bulkops.store.jobs import JobRow

UNPROCESSED: Final = "unprocessed"
#: What a list or report may be limited to.
OUTCOMES: Final = (*map(str, ItemOutcome), UNPROCESSED)

#: Chunks of a manifest that one call looks at when it searches for rare outcomes (some 20 ms).
_MAX_CHUNKS: Final = 50
_MAX_GROUPS: Final = 100
_MAX_PARTS: Final = 4
_NUMBERS: Final = range(-(2**63), 2**63)


class Results(msgspec.Struct, frozen=True):
    """Items in the order of the manifest, and the position to go on from; ``None`` when that was all.

    A search for rare outcomes may return few items, or none, and still name a place to go on from.
    """

    items: list[ItemResult]
    following: int | None


def page(
    connection: sqlite3.Connection, job: JobRow, *, outcome: str | None, position: int, limit: int
) -> Results:
    """List up to ``limit`` items from ``position`` on; ``outcome`` limits to one of `OUTCOMES`.

    Raises:
        LookupError: the manifest is being removed: the job's retention is over.
    """
    if not job.frozen or job.total is None:
        return Results([], None)
    if outcome in (ItemOutcome.FAILED, ItemOutcome.SKIPPED):
        return _exceptions_page(connection, job, str(outcome), position, limit)
    if outcome == UNPROCESSED:
        return _walk(connection, job, None, range(max(position, job.cursor), job.total), limit)
    end = job.cursor if outcome == ItemOutcome.SUCCEEDED else job.total
    return _walk(connection, job, outcome, range(position, end), limit)


_EXCEPTIONS: Final = """
SELECT position, item, code, message FROM exceptions INDEXED BY exceptions_outcome
 WHERE job = :job AND outcome = :outcome AND position >= :position AND position < :cursor
 ORDER BY position LIMIT :limit
"""


def _exceptions_page(
    connection: sqlite3.Connection, job: JobRow, outcome: str, position: int, limit: int
) -> Results:
    rows = connection.execute(
        _EXCEPTIONS,
        {"job": job.id, "outcome": outcome, "position": position, "cursor": job.cursor, "limit": limit + 1},
    ).fetchall()
    items = [ItemResult(item, outcome, code, message) for _, item, code, message in rows[:limit]]
    return Results(items, rows[limit][0] if len(rows) > limit else None)


def _walk(
    connection: sqlite3.Connection, job: JobRow, outcome: str | None, place: range, limit: int
) -> Results:
    found: list[ItemResult] = []
    position, end = place.start, place.stop
    for _ in range(_MAX_CHUNKS):
        if position >= end or len(found) >= limit:
            break
        ids = _ids_from(connection, job.id, position)[: end - position]
        for item in _judge(connection, job, position, ids):
            position += 1
            if outcome is None or item.outcome == outcome:
                found.append(item)
            if len(found) >= limit:
                break
    return Results(found, position if position < end else None)


_CHUNK: Final = """
SELECT first, ids FROM manifest WHERE job = :job AND first <= :position ORDER BY first DESC LIMIT 1
"""


def _ids_from(connection: sqlite3.Connection, job_id: str, position: int) -> list[Id]:
    row = connection.execute(_CHUNK, {"job": job_id, "position": position}).fetchone()
    ids = [] if row is None else msgspec.json.decode(row[1], type=list[Id])[position - row[0] :]
    if not ids:
        raise LookupError(f"job {job_id} has no manifest at {position} any more")
    return ids


def _judge(connection: sqlite3.Connection, job: JobRow, first: int, ids: list[Id]) -> Iterator[ItemResult]:
    passed = max(0, min(len(ids), job.cursor - first))
    known = {each.position: each for each in exceptions.within(connection, job.id, first, passed)}
    for place, native in enumerate(ids, start=first):
        yield _result(wire_id(native), known.get(place), passed=place < job.cursor)


def _result(item: str, exception: ItemException | None, *, passed: bool) -> ItemResult:
    if not passed:
        return ItemResult(item, UNPROCESSED, None, None)
    if exception is None:
        return ItemResult(item, ItemOutcome.SUCCEEDED, None, None)
    return ItemResult(item, exception.outcome, exception.code, exception.message)


_GROUPS: Final = """
SELECT grouped.code, grouped.count, exceptions.item, exceptions.message
  FROM (SELECT code, count(*) AS count, min(position) AS first FROM exceptions INDEXED BY exceptions_outcome
         WHERE job = :job AND outcome = 'failed' AND position < :cursor
         GROUP BY code ORDER BY count(*) DESC, code LIMIT :limit) AS grouped
  JOIN exceptions ON exceptions.job = :job AND exceptions.position = grouped.first
 ORDER BY grouped.count DESC, grouped.code
"""


def error_groups(connection: sqlite3.Connection, job: JobRow) -> list[ErrorGroup]:
    """List the codes that items failed with, the most frequent first, at most a hundred."""
    rows = connection.execute(_GROUPS, {"job": job.id, "cursor": job.cursor, "limit": _MAX_GROUPS})
    return [ErrorGroup(*row) for row in rows.fetchall()]


# A chunk of plain integers knows its bounds; the JSON of any other is searched for the id as it is written.
_TOUCHING: Final = """
SELECT first, ids FROM manifest
 WHERE job = :job AND first < :cursor
   AND CASE WHEN low IS NULL
            THEN EXISTS (SELECT 1 FROM json_each(:written) WHERE instr(manifest.ids, json_each.value) > 0)
            ELSE low <= :number AND high >= :number END
 ORDER BY first
"""


def of_item(connection: sqlite3.Connection, job: JobRow, item: str) -> ItemResult | None:
    """Say what a job did with one item; ``None`` when it has not, or the item is not the job's."""
    natives = _natives(item)
    numbers = [native for native in natives if isinstance(native, int)]
    rows = connection.execute(
        _TOUCHING,
        {
            "job": job.id,
            "cursor": job.cursor,
            "number": numbers[0] if numbers else None,
            "written": msgspec.json.encode(
                [text for native in natives for text in _written(native)]
            ).decode(),
        },
    )
    for first, encoded in rows.fetchall():
        ids = msgspec.json.decode(encoded, type=list[Id])
        place = next((ids.index(native) for native in natives if native in ids), None)
        if place is not None and first + place < job.cursor:
            return next(_judge(connection, job, first + place, [ids[place]]))
    return None


def _natives(item: str) -> list[Id]:
    """List every native id that is written like this on the wire: the key's types are the resource's affair."""
    whole: list[Id] = [*_readings(item)]
    parts = item.split(",")
    if len(parts) == 1 or len(parts) > _MAX_PARTS:
        return whole
    return whole + [list(reading) for reading in product(*(_readings(unquote(part)) for part in parts))]


def _readings(text: str) -> list[int | str]:
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 20:
        number = int(text)
        if number in _NUMBERS and str(number) == text:
            return [number, text]
    return [text]


def _written(native: Id) -> list[str]:
    """List what a chunk's JSON may hold when the id is in it; a number is told from longer ones by its neighbours."""
    text = msgspec.json.encode(native).decode()
    return [before + text + after for before in "[," for after in ",]"] if isinstance(native, int) else [text]
