"""Databases of all kinds that applications have, and what a delete of everything does to each."""

from __future__ import annotations

from typing import Any

import msgspec


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """One application's database and its resource.

    ``odd`` are the items that do not succeed when all are deleted, with their outcome and code; ``cure``
    is SQL that lets the failed ones succeed in a retry. ``chosen`` is an item that goes alone, by default
    the first good one.
    """

    name: str
    script: str
    settings: dict[str, Any]
    items: list[str]
    odd: dict[str, str] = {}
    cure: str | None = None
    chosen: str | None = None
    soft: bool = False


def _numbers(count: int) -> str:
    return f"WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count})"


def _ids(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


_PLAIN = f"CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t {_numbers(7)} SELECT i, 'v' || i FROM n;"

SCHEMAS = [
    Schema(
        name="an integer key",
        script=_PLAIN + "CREATE TABLE bystander (a); INSERT INTO bystander VALUES (1);",
        settings={"table": "t", "id": "id"},
        items=_ids(7),
    ),
    Schema(
        name="an integer key with autoincrement and extreme numbers",
        script="CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v REAL);"
        "INSERT INTO t VALUES (-9223372036854775808, 1e999), (-1, -1e999), (0, 0.1), (9223372036854775807, 1e308);",
        settings={"table": "t", "id": "id"},
        items=["-9223372036854775808", "-1", "0", "9223372036854775807"],
    ),
    Schema(
        name="a text key with commas, quotes, percents and umlauts",
        script="CREATE TABLE t (id TEXT PRIMARY KEY, v);"
        "INSERT INTO t VALUES ('a,b', 1), ('it''s', 2), ('100%', 3), ('ä/ö', 4), ('\"', 5), ('1', 6), (' ', 7);",
        settings={"table": "t", "id": "id"},
        items=["a,b", "it's", "100%", "ä/ö", '"', "1", " "],
    ),
    Schema(
        name="a composite key",
        script="CREATE TABLE t (a INTEGER, b TEXT, v, PRIMARY KEY (a, b));"
        "INSERT INTO t VALUES (1, 'x', 1), (1, 'y,z', 2), (2, 'x', 3), (2, '%2C', 4), (3, 'é', 5);",
        settings={"table": "t", "id": ["a", "b"]},
        items=["1,x", "1,y%2Cz", "2,x", "2,%252C", "3,%C3%A9"],
    ),
    Schema(
        name="a composite key without rowid",
        script="CREATE TABLE t (a INTEGER NOT NULL, b INTEGER NOT NULL, v BLOB, PRIMARY KEY (b, a)) WITHOUT ROWID;"
        "INSERT INTO t VALUES (1, 1, x'00ff'), (1, 2, NULL), (2, 1, x''), (2, 2, zeroblob(300));",
        settings={"table": "t", "id": ["b", "a"]},
        items=["1,1", "2,1", "1,2", "2,2"],
    ),
    Schema(
        name="a text key without rowid",
        script="CREATE TABLE t (id TEXT PRIMARY KEY, v) WITHOUT ROWID;"
        "INSERT INTO t VALUES ('b', 1), ('a', 2), ('c', 3);",
        settings={"table": "t", "id": "id"},
        items=["a", "b", "c"],
    ),
    Schema(
        name="a strict table with a column of any type",
        script="CREATE TABLE t (id INTEGER PRIMARY KEY, v ANY, w INT) STRICT;"
        "INSERT INTO t VALUES (1, '1', 1), (2, 1, 2), (3, 1.0, 3), (4, x'31', 4), (5, NULL, NULL);",
        settings={"table": "t", "id": "id"},
        items=_ids(5),
    ),
    Schema(
        name="names with spaces, quotes and keywords",
        script='CREATE TABLE "order ""x"" select" ("group by" TEXT, "q""q" INTEGER, "value" INTEGER, "t" INTEGER,'
        ' PRIMARY KEY ("group by", "value"));'
        "INSERT INTO \"order \"\"x\"\" select\" VALUES ('a b', 1, 1, 1), ('''', 2, 2, 2), ('x', 3, 3, 3);"
        'CREATE TABLE "to drop; --" ("a b" TEXT, "v" INTEGER,'
        ' FOREIGN KEY ("a b", "v") REFERENCES "order ""x"" select" ON DELETE CASCADE);'
        "INSERT INTO \"to drop; --\" VALUES ('a b', 1), ('a b', 1), ('x', 3);",
        settings={
            "table": 'order "x" select',
            "id": ["group by", "value"],
            "label": 'q"q',
            "search": ['q"q'],
        },
        items=["a%20b,1", "%27,2", "x,3"],
    ),
    Schema(
        name="a unique text beside a bare rowid",
        script="CREATE TABLE t (code TEXT UNIQUE NOT NULL, v);"
        "INSERT INTO t (rowid, code, v) VALUES (50, 'c', 1), (7, 'a', 2), (1000, 'b', 3);",
        settings={"table": "t", "id": "code"},
        items=["a", "b", "c"],
    ),
    Schema(
        name="columns that hide every name of the rowid",
        script="CREATE TABLE t (rowid TEXT, _rowid_ TEXT, oid TEXT PRIMARY KEY);"
        "INSERT INTO t VALUES ('x', 'y', 'a'), ('x', 'y', 'b');",
        settings={"table": "t", "id": "oid"},
        items=["a", "b"],
    ),
    Schema(
        name="a text key that ignores case",
        script="CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, v);"
        "INSERT INTO t VALUES ('Ann', 1), ('bob', 2), ('CAT', 3);",
        settings={"table": "t", "id": "id"},
        items=["Ann", "bob", "CAT"],
    ),
    Schema(
        name="a key without any type and one that holds both kinds",
        script="CREATE TABLE t (id PRIMARY KEY, v); INSERT INTO t VALUES ('one', 1), ('two', 2), ('3a', 3);",
        settings={"table": "t", "id": "id"},
        items=["one", "two", "3a"],
    ),
    Schema(
        name="children first in a tree without an action",
        script="CREATE TABLE t (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES t (id));"
        f"INSERT INTO t {_numbers(9)} SELECT i, CASE WHEN i < 9 THEN i + 1 END FROM n ORDER BY i DESC;",
        settings={"table": "t", "id": "id"},
        items=_ids(9),
    ),
    Schema(
        name="a tree that goes along",
        script="CREATE TABLE t (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES t (id) ON DELETE CASCADE, v);"
        f"INSERT INTO t {_numbers(6)} SELECT i, nullif(i / 2, 0), 'v' || i FROM n;",
        settings={"table": "t", "id": "id", "actions": {"delete": {"batch_size": 100}}},
        items=_ids(6),
    ),
    Schema(
        name="a tree whose leaves are let go",
        script="CREATE TABLE t (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES t (id) ON DELETE SET NULL);"
        f"INSERT INTO t {_numbers(9)} SELECT i, nullif(i / 2, 0) FROM n;",
        settings={"table": "t", "id": "id"},
        items=_ids(9),
    ),
    Schema(
        name="a cascade of three levels over a composite key",
        script="CREATE TABLE t (a INTEGER, b TEXT, PRIMARY KEY (a, b));"
        "CREATE TABLE c (id TEXT PRIMARY KEY, a INTEGER, b TEXT,"
        " FOREIGN KEY (a, b) REFERENCES t (a, b) ON DELETE CASCADE);"
        "CREATE TABLE g (c TEXT REFERENCES c ON DELETE CASCADE, v);"
        "INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, 'z');"
        "INSERT INTO c VALUES ('p', 1, 'x'), ('q', 1, 'x'), ('r', 3, 'z'), ('s', NULL, 'z');"
        "INSERT INTO g (rowid, c, v) VALUES (9, 'p', 1), (3, 'p', 2), (5, 'r', 3), (1, 's', 4);",
        settings={"table": "t", "id": ["a", "b"]},
        items=["1,x", "2,y", "3,z"],
    ),
    Schema(
        name="references set to null and to a default",
        script="CREATE TABLE t (id INTEGER PRIMARY KEY);"
        "CREATE TABLE n (id INTEGER PRIMARY KEY, t INTEGER REFERENCES t ON DELETE SET NULL);"
        "CREATE TABLE d (id INTEGER PRIMARY KEY, t INTEGER DEFAULT 4 REFERENCES t ON DELETE SET DEFAULT);"
        "INSERT INTO t VALUES (1), (2), (3), (4); INSERT INTO n VALUES (1, 1), (2, 2), (3, NULL);"
        "INSERT INTO d VALUES (1, 1), (2, 3);",
        settings={"table": "t", "id": "id", "protect": {"id": 4}},
        items=_ids(4),
        odd={"4": "skipped PROTECTED"},
    ),
    Schema(
        name="references that forbid",
        script=_PLAIN
        + "CREATE TABLE r (t INTEGER REFERENCES t ON DELETE RESTRICT); INSERT INTO r VALUES (2), (5);",
        settings={"table": "t", "id": "id"},
        items=_ids(7),
        odd={"2": "failed CONSTRAINT", "5": "failed CONSTRAINT"},
        cure="DELETE FROM r",
    ),
    Schema(
        name="references checked at commit",
        script=_PLAIN
        + "CREATE TABLE r (t INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED); INSERT INTO r VALUES (2), (5);",
        settings={"table": "t", "id": "id"},
        items=_ids(7),
        odd={"2": "failed CONSTRAINT", "5": "failed CONSTRAINT"},
        cure="DELETE FROM r",
    ),
    Schema(
        name="a tree checked at commit with a stranger holding on",
        script="CREATE TABLE t (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO t VALUES (1, NULL), (2, 1), (3, 2), (4, NULL), (5, 4);"
        "CREATE TABLE r (t INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED); INSERT INTO r VALUES (3);",
        settings={"table": "t", "id": "id", "actions": {"delete": {"batch_size": 100}}},
        items=_ids(5),
        odd={"1": "failed CONSTRAINT", "2": "failed CONSTRAINT", "3": "failed CONSTRAINT"},
        cure="DELETE FROM r",
        chosen="5",
    ),
    Schema(
        name="declared children checked at commit beside a row that will not go",
        script=_PLAIN
        + "CREATE TABLE k (id INTEGER PRIMARY KEY, t INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO k SELECT id, id FROM t;"
        "CREATE TRIGGER no BEFORE DELETE ON t WHEN old.id = 4 BEGIN SELECT RAISE(ABORT, 'four stays'); END;",
        settings={"table": "t", "id": "id", "children": [{"table": "k", "key": "t"}]},
        items=_ids(7),
        odd={"4": "failed CONSTRAINT"},
        cure="DROP TRIGGER no",
    ),
    Schema(
        name="a tree with a row that will not go",
        script="CREATE TABLE t (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES t (id));"
        f"INSERT INTO t {_numbers(20)} SELECT i, CASE WHEN i > 1 AND i < 18 THEN i - 1 END FROM n;"
        "CREATE TRIGGER no BEFORE DELETE ON t WHEN old.id = 19 BEGIN SELECT RAISE(ABORT, 'stays'); END;",
        settings={"table": "t", "id": "id", "actions": {"delete": {"batch_size": 100}}},
        items=_ids(20),
        odd={"19": "failed CONSTRAINT"},
        chosen="18",
        cure="DROP TRIGGER no",
    ),
    Schema(
        name="a trigger that aborts",
        script=_PLAIN
        + "CREATE TRIGGER no BEFORE DELETE ON t WHEN old.id IN (3, 6) BEGIN SELECT RAISE(ABORT, 'stays'); END;",
        settings={"table": "t", "id": "id"},
        items=_ids(7),
        odd={"3": "failed CONSTRAINT", "6": "failed CONSTRAINT"},
        cure="DROP TRIGGER no",
    ),
    Schema(
        name="a trigger that ignores",
        script=_PLAIN
        + "CREATE TRIGGER no BEFORE DELETE ON t WHEN old.id IN (3, 6) BEGIN SELECT RAISE(IGNORE); END;",
        settings={"table": "t", "id": "id"},
        items=_ids(7),
        odd={"3": "skipped CONFLICT", "6": "skipped CONFLICT"},
    ),
    Schema(
        name="a trigger that rolls everything back",
        script=_PLAIN
        + "CREATE TRIGGER no BEFORE DELETE ON t WHEN old.id IN (3, 6) BEGIN SELECT RAISE(ROLLBACK, 'all'); END;",
        settings={"table": "t", "id": "id"},
        items=_ids(7),
        odd={"3": "failed CONSTRAINT", "6": "failed CONSTRAINT"},
        cure="DROP TRIGGER no",
    ),
    Schema(
        name="generated columns",
        script="CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b AS (a * 2) VIRTUAL, c AS (a + 1) STORED);"
        "INSERT INTO t (id, a) VALUES (1, 1), (2, 2), (3, 3);",
        settings={"table": "t", "id": "id", "search": ["b", "c"]},
        items=_ids(3),
    ),
    Schema(
        name="texts that are no UTF-8, blobs and infinities",
        script="CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, w);"
        "INSERT INTO t VALUES (1, CAST(x'ff41' AS TEXT), x'00'), (2, 'a' || char(0) || 'b', 9e999), (3, '', -0.0),"
        " (4, char(128512), CAST(x'c3' AS TEXT)), (5, NULL, zeroblob(100000));"
        "CREATE TABLE c (t INTEGER REFERENCES t ON DELETE CASCADE, v TEXT);"
        "INSERT INTO c VALUES (1, CAST(x'fe' AS TEXT));",
        settings={"table": "t", "id": "id", "label": "v", "search": ["v"]},
        items=_ids(5),
    ),
    Schema(
        name="keys that are no ids beside those that are",
        script="CREATE TABLE t (id TEXT PRIMARY KEY, v); "
        "INSERT INTO t VALUES ('a', 1), (NULL, 2), (x'62', 3), ('c', 4), (NULL, 5);",
        settings={"table": "t", "id": "id"},
        items=["a", "c"],
    ),
    Schema(
        name="an INT key that is no rowid and holds texts",
        script="CREATE TABLE t (id INT PRIMARY KEY, v); INSERT INTO t VALUES (1, 1), ('x', 2), (2.5, 3), (4, 4);",
        settings={"table": "t", "id": "id"},
        items=["1", "4", "x"],
    ),
    Schema(
        name="without foreign keys, orphans stay",
        script=_PLAIN + "CREATE TABLE r (t INTEGER REFERENCES t); INSERT INTO r VALUES (2), (5);",
        settings={"table": "t", "id": "id", "foreign_keys": False},
        items=_ids(7),
    ),
    Schema(
        name="declared children with grandchildren",
        script=_PLAIN + "CREATE TABLE k (id INTEGER PRIMARY KEY, t INTEGER);"
        "CREATE TABLE g (k INTEGER REFERENCES k ON DELETE CASCADE);"
        "INSERT INTO k SELECT id * 10, id FROM t; INSERT INTO g SELECT id FROM k;",
        settings={"table": "t", "id": "id", "children": [{"table": "k", "key": "t"}]},
        items=_ids(7),
    ),
    Schema(
        name="a flag that is never null",
        script=_PLAIN
        + "ALTER TABLE t ADD COLUMN gone INTEGER NOT NULL DEFAULT 0; UPDATE t SET gone = 1 WHERE id = 7;",
        settings={"table": "t", "id": "id", "soft_delete": "gone"},
        items=_ids(6),
        soft=True,
    ),
    Schema(
        name="a flag that may be null",
        script=_PLAIN + "ALTER TABLE t ADD COLUMN gone INTEGER; UPDATE t SET gone = 0 WHERE id % 2;"
        "UPDATE t SET gone = 1 WHERE id = 7;",
        settings={"table": "t", "id": "id", "soft_delete": "gone"},
        items=_ids(6),
        soft=True,
    ),
    Schema(
        name="a flag in words",
        script=_PLAIN + "ALTER TABLE t ADD COLUMN gone TEXT;"
        "UPDATE t SET gone = CASE id WHEN 1 THEN 'false' WHEN 2 THEN '0' WHEN 3 THEN 'no'"
        " WHEN 4 THEN '' WHEN 7 THEN 'true' END;",
        settings={"table": "t", "id": "id", "soft_delete": "gone"},
        items=_ids(6),
        soft=True,
    ),
    Schema(
        name="a time of deletion as text",
        script=_PLAIN
        + "ALTER TABLE t ADD COLUMN deleted_at TEXT; UPDATE t SET deleted_at = '2026-01-01T00:00:00Z' WHERE id = 7;",
        settings={"table": "t", "id": "id", "soft_delete": "deleted_at"},
        items=_ids(6),
        soft=True,
    ),
    Schema(
        name="a time of deletion as a number",
        script=_PLAIN
        + "ALTER TABLE t ADD COLUMN deleted_at INTEGER; UPDATE t SET deleted_at = 1767225600 WHERE id = 7;",
        settings={"table": "t", "id": "id", "soft_delete": "deleted_at"},
        items=_ids(6),
        soft=True,
    ),
    Schema(
        name="a soft delete that a trigger forbids for one",
        script=_PLAIN + "ALTER TABLE t ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;"
        "CREATE TRIGGER no BEFORE UPDATE OF gone ON t WHEN new.id = 3 AND new.gone"
        " BEGIN SELECT RAISE(ABORT, 'stays'); END;",
        settings={"table": "t", "id": "id", "soft_delete": "gone"},
        items=_ids(7),
        odd={"3": "failed CONSTRAINT"},
        cure="DROP TRIGGER no",
        soft=True,
    ),
]
