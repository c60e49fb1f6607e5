"""What `bulkops check` finds: each finding is provoked once, on real databases and folders."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bulkops.configuration import from_dict, load
from bulkops.resources import inspection
from bulkops.resources.inspection import Finding, Mounts, inspect, read_mounts
from bulkops.resources.row_inspection import create_index

SCHEMA = """
CREATE TABLE receipts (
  id INTEGER PRIMARY KEY, business_id INT NOT NULL, number TEXT, status TEXT, is_deleted INT NOT NULL DEFAULT 0,
  created_at TEXT, pinned INT
);
CREATE INDEX by_business ON receipts (business_id);
CREATE INDEX by_number ON receipts (number);
INSERT INTO receipts (business_id, status) VALUES (1, 'closed'), (2, 'processing'), (2, 'archived');
CREATE TABLE attachments (id INTEGER PRIMARY KEY, receipt_id INT NOT NULL REFERENCES receipts, path TEXT);
CREATE INDEX by_receipt ON attachments (receipt_id);
PRAGMA journal_mode = WAL;
"""
RECEIPTS: dict[str, Any] = {
    "kind": "table",
    "database": "app.db",
    "table": "receipts",
    "id": "id",
    "tenant": "business_id",
    "label": "number",
    "soft_delete": "is_deleted",
    "status": {"column": "status", "closed": "closed", "archived": "archived", "busy": ["processing"]},
    "search": ["number"],
    "set": ["status"],
    "protect": {"pinned": 1},
    "children": [{"table": "attachments", "key": "receipt_id", "file": "path", "root": "storage"}],
}
AT = "resources.receipts"
Inspect = Callable[..., list[Finding]]


@pytest.fixture
def look(tmp_path: Path) -> Inspect:
    """Make the database, the folder, and return a function that inspects changed settings."""
    (tmp_path / "storage").mkdir()
    run(tmp_path / "app.db", SCHEMA)

    def look(*statements: str, **changes: Any) -> list[Finding]:
        run(tmp_path / "app.db", ";".join(statements))
        resource = {key: value for key, value in {**RECEIPTS, **changes}.items() if value is not None}
        return inspect(from_dict({"resources": {"receipts": resource}}, tmp_path, {}))

    return look


def run(file: Path, script: str) -> None:
    connection = sqlite3.connect(file)
    connection.create_function("app_only", 1, str, deterministic=True)
    connection.create_collation("app_order", lambda a, b: (a > b) - (a < b))
    connection.executescript(script)
    connection.close()


def said(findings: list[Finding], *, quiet: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    """Leave out what is true of every test machine."""
    return [
        (finding.severity, finding.where, finding.message)
        for finding in findings
        if finding.where != "server" and finding.severity not in quiet
    ]


def has(findings: list[Finding], severity: str, where: str, part: str) -> bool:
    return any((f.severity, f.where) == (severity, where) and part in f.message for f in findings)


def test_a_sound_configuration_has_no_findings(look: Inspect) -> None:
    assert said(look()) == []


def test_findings_carry_the_line_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bulkops.toml"
    file.write_text(
        '[server]\n\n[resources.receipts]\nkind = "table"\ndatabase = "missing.db"\ntable = "t"\nid = "id"\n'
    )
    findings = inspect(load(file, {}))
    assert [(f.where, f.line) for f in findings if f.severity == "error"] == [(f"{AT}.database", 5)]
    assert all(f.line == 1 for f in findings if f.where == "server")


# --- names -----------------------------------------------------------------------------------------------

WRONG_NAMES = [
    ({"table": "receipt"}, "table", 'there is no table "receipt"; did you mean "receipts"?'),
    ({"table": "sqlite_master"}, "table", "there is no table"),
    ({"id": "ID"}, "id", 'has no column "ID"; did you mean "id"?'),
    ({"id": "rowid"}, "id", 'has no column "rowid"'),
    ({"id": 'id" ; DROP TABLE x; --'}, "id", "has no column"),
    ({"tenant": "business"}, "tenant", 'did you mean "business_id"?'),
    ({"label": "nummer"}, "label", 'did you mean "number"?'),
    ({"soft_delete": "deleted"}, "soft_delete", 'did you mean "is_deleted"?'),
    ({"status": {"column": "state"}}, "status.column", "has no column"),
    ({"search": ["number", "vendor"]}, "search", 'has no column "vendor"'),
    ({"set": ["stats"]}, "set", 'did you mean "status"?'),
    ({"protect": {"pined": 1}}, "protect.pined", 'did you mean "pinned"?'),
    ({"file": "path", "root": "storage"}, "file", "has no column"),
    ({"children": [{"table": "attachment", "key": "x"}]}, "children[0].table", 'did you mean "attachments"?'),
    ({"children": [{"table": "attachments", "key": "receipt"}]}, "children[0].key", '"receipt_id"?'),
    (
        {"children": [{"table": "attachments", "key": "receipt_id", "file": "pth", "root": "storage"}]},
        "children[0].file",
        '"path"?',
    ),
]


@pytest.mark.parametrize(("changes", "where", "part"), WRONG_NAMES)
def test_every_name_must_exist_exactly(look: Inspect, changes: dict[str, Any], where: str, part: str) -> None:
    findings = look(**changes)
    assert has(findings, "error", f"{AT}.{where}", part), findings


def test_views_are_read_only_and_virtual_tables_are_refused(look: Inspect) -> None:
    plain: dict[str, Any] = dict.fromkeys(("tenant", "soft_delete", "status", "set", "protect", "children"))
    plain["shared"] = True
    view = look("CREATE VIEW shown AS SELECT id, number FROM receipts", table="shown", **plain)
    assert [(severity, where) for severity, where, _ in said(view)] == [("note", f"{AT}.table")]
    broken = look("CREATE VIEW broken AS SELECT x FROM gone", table="broken", **plain)
    assert has(broken, "error", f"{AT}.table", "cannot be read")
    virtual = look("CREATE VIRTUAL TABLE words USING fts5(id, number)", table="words", **plain)
    assert has(virtual, "error", f"{AT}.table", "is a virtual table")
    child = look(children=[{"table": "shown", "key": "id"}])
    assert has(child, "error", f"{AT}.children[0].table", "is a view")


# --- keys and tenants ------------------------------------------------------------------------------------

BARE: dict[str, Any] = {"kind": "table", "database": "app.db", "table": "t", "shared": True}


@pytest.mark.parametrize(
    ("sql", "key", "severity", "part"),
    [
        ("CREATE TABLE t (a INT, b)", "a", "error", '"a" is no unique key'),
        (
            "CREATE TABLE t (a INT NOT NULL, b INT NOT NULL, PRIMARY KEY (a, b))",
            "a",
            "error",
            "no unique key",
        ),
        (
            "CREATE TABLE t (a NOT NULL); CREATE UNIQUE INDEX i ON t (a) WHERE a > 1",
            "a",
            "error",
            "no unique",
        ),
        (
            "CREATE TABLE t (a TEXT PRIMARY KEY); INSERT INTO t VALUES (NULL)",
            "a",
            "error",
            "NULL in some rows",
        ),
        (
            "CREATE TABLE t (a PRIMARY KEY); INSERT INTO t VALUES (1), ('x')",
            "a",
            "warning",
            "numbers and texts",
        ),
        ("CREATE TABLE t (a PRIMARY KEY); INSERT INTO t VALUES (x'00')", "a", "error", "holds blob"),
        ("CREATE TABLE t (a REAL PRIMARY KEY)", "a", "error", "is REAL"),
        ("CREATE TABLE t (a BLOB PRIMARY KEY)", "a", "error", "holds blobs"),
        ("CREATE TABLE t (a TEXT PRIMARY KEY COLLATE NOCASE)", "a", "warning", "compares by NOCASE"),
        ("CREATE TABLE t (a TEXT PRIMARY KEY COLLATE RTRIM)", "a", "warning", "blanks at their end"),
        ("CREATE TABLE t (a TEXT PRIMARY KEY COLLATE app_order)", "a", "error", "app_order"),
    ],
)
def test_a_key_must_name_one_row_each(tmp_path: Path, sql: str, key: str, severity: str, part: str) -> None:
    run(tmp_path / "app.db", sql)
    findings = inspect(from_dict({"resources": {"t": {**BARE, "id": key}}}, tmp_path, {}))
    assert any(f.severity == severity and part in f.message for f in findings), findings


@pytest.mark.parametrize(
    ("sql", "key"),
    [
        ("CREATE TABLE t (a INTEGER PRIMARY KEY)", "a"),
        ("CREATE TABLE t (a TEXT PRIMARY KEY); INSERT INTO t VALUES ('1'), ('x')", "a"),
        ("CREATE TABLE t (a TEXT NOT NULL UNIQUE)", "a"),
        ("CREATE TABLE t (a TEXT, b INT, PRIMARY KEY (b, a)) WITHOUT ROWID", ["a", "b"]),
    ],
)
def test_a_key_that_does_is_left_in_peace(tmp_path: Path, sql: str, key: str | list[str]) -> None:
    run(tmp_path / "app.db", sql)
    findings = inspect(from_dict({"resources": {"t": {**BARE, "id": key}}}, tmp_path, {}))
    assert said(findings, quiet=("note",)) == []


def test_tenants_that_do_not_tell_rows_apart_are_found(look: Inspect) -> None:
    findings = look("ALTER TABLE receipts ADD COLUMN org TEXT COLLATE NOCASE", tenant="org")
    assert has(findings, "warning", f"{AT}.tenant", "told apart by case")
    assert has(findings, "note", f"{AT}.tenant", "they belong to nobody")
    assert has(findings, "note", f"{AT}.tenant", 'CREATE INDEX "receipts_org" ON "receipts" ("org")')
    assert has(look(tenant=None), "note", AT, "no tenant: callers with a tenant do not see it")
    assert said(look(tenant=None, shared=True)) == []


# --- what actions change ---------------------------------------------------------------------------------


def test_soft_delete_columns_must_be_able_to_say_it(look: Inspect) -> None:
    look(
        "ALTER TABLE receipts ADD COLUMN deleted_at TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE receipts ADD COLUMN is_gone AS (pinned)",
        "ALTER TABLE receipts ADD COLUMN flag INT DEFAULT 'yes'",
        "ALTER TABLE receipts ADD COLUMN removed_at INT DEFAULT 17",
    )
    assert has(look(soft_delete="deleted_at"), "error", f"{AT}.soft_delete", "every row would be deleted")
    assert has(look(soft_delete="is_gone"), "error", f"{AT}.soft_delete", "is generated")
    assert has(look(soft_delete="flag"), "error", f"{AT}.soft_delete", "holds texts")
    assert has(look(soft_delete="removed_at"), "note", f"{AT}.soft_delete", "holds numbers")


def test_status_words_are_looked_for_in_the_data(look: Inspect) -> None:
    findings = look(status={"column": "status", "closed": "Closed", "archived": "put away", "busy": ["xyz"]})
    assert has(findings, "warning", f"{AT}.status.closed", 'did you mean "closed"?')
    assert has(findings, "note", f"{AT}.status.archived", "was not found in the data")
    assert has(findings, "note", f"{AT}.status.busy", "was not found")


def test_filters_without_an_index_come_with_the_statement_that_makes_one(look: Inspect) -> None:
    made = 'CREATE INDEX "receipts_created_at" ON "receipts" ("created_at")'
    findings = look(search=["number", "created_at", "id", "business_id"])
    assert said(findings) == [
        (
            "note",
            f"{AT}.search",
            '"created_at" has no index: a filter by it reads the whole table; ' + made,
        )
    ]


def test_the_statement_that_makes_an_index_is_sql_for_any_name() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute('CREATE TABLE "a ""b" ("c d", "select")')
    connection.execute(create_index('a "b', ("c d", "select")))
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'index'").fetchone() == (1,)
    connection.close()


def test_columns_that_cannot_be_set_are_found(look: Inspect) -> None:
    look("ALTER TABLE receipts ADD COLUMN made AS (pinned)", "CREATE UNIQUE INDEX one ON receipts (number)")
    findings = look(set=["made", "number"])
    assert has(findings, "error", f"{AT}.set", "is generated")
    assert has(findings, "warning", f"{AT}.set", "part of a unique index")
    assert has(findings, "note", AT, '"made": generated')


def test_settings_of_actions_that_cannot_be_are_found(look: Inspect) -> None:
    findings = look(
        status=None,
        set=None,
        soft_delete=None,
        actions={name: {} for name in ("delete", "export", "close", "set", "purge", "exprot", "summarise")},
    )
    assert [where.removeprefix(f"{AT}.actions.") for _, where, _ in said(findings, quiet=("note",))] == [
        "close",
        "set",
        "purge",
        "exprot",
    ]


# --- children, foreign keys, triggers --------------------------------------------------------------------


def test_children_without_index_or_foreign_key_are_found(look: Inspect) -> None:
    findings = look("CREATE TABLE loose (receipt INT)", children=[{"table": "loose", "key": "receipt"}])
    assert has(
        findings, "warning", f"{AT}.children[0].key", 'CREATE INDEX "loose_receipt" ON "loose" ("receipt")'
    )
    assert has(findings, "note", f"{AT}.children[0].key", "no foreign key says")


def test_foreign_keys_that_are_off_broken_slow_or_in_the_way_are_found(look: Inspect) -> None:
    at = f"{AT}.foreign_keys"
    assert has(look(foreign_keys=False), "warning", at, "off while the tables have foreign keys")
    assert has(look(children=None), "note", at, 'rows that "attachments" points at are not purged')
    assert has(look(children=None, soft_delete=None), "note", at, "points at are not deleted")
    slow = look("DROP INDEX by_receipt", children=None)
    assert has(slow, "warning", at, 'each delete reads all of "attachments"')
    broken = look("INSERT INTO attachments (receipt_id) VALUES (99)")
    assert has(broken, "warning", at, '"attachments" breaks its foreign keys already')
    unfit = look("CREATE TABLE odd (n REFERENCES receipts (number))")
    assert has(unfit, "error", at, 'the foreign keys of "odd" do not fit')
    assert has(unfit, "error", f"{AT}.table", "cannot be deleted by bulkops: foreign key mismatch")


def test_triggers_are_noted_and_those_we_cannot_run_are_errors(look: Inspect) -> None:
    harmless = look("CREATE TRIGGER seen AFTER DELETE ON receipts BEGIN SELECT 1; END")
    assert [(severity, where) for severity, where, _ in said(harmless)] == [("note", f"{AT}.table")]
    deleting = look("CREATE TRIGGER d AFTER DELETE ON receipts BEGIN SELECT app_only(1); END")
    assert has(deleting, "error", f"{AT}.table", "cannot be deleted by bulkops: no such function: app_only")
    assert not has(deleting, "error", f"{AT}.table", "cannot be changed")
    changing = look("CREATE TRIGGER u AFTER UPDATE OF status ON receipts BEGIN SELECT app_only(1); END")
    assert has(changing, "error", f"{AT}.table", "cannot be changed by bulkops: no such function")
    undoing = look("CREATE TRIGGER i AFTER INSERT ON receipts BEGIN SELECT app_only(1); END")
    assert has(undoing, "error", f"{AT}.table", "cannot be put back by an undo by bulkops: no such function")
    child = look("CREATE TRIGGER c AFTER DELETE ON attachments BEGIN SELECT app_only(1); END")
    assert has(child, "error", f"{AT}.children[0].table", "no such function")


def test_an_index_on_a_function_we_lack_is_an_error(look: Inspect) -> None:
    findings = look("CREATE INDEX odd ON receipts (app_only(number))")
    assert has(findings, "error", f"{AT}.table", "app_only")


def test_nothing_is_changed_by_looking(look: Inspect, tmp_path: Path) -> None:
    look("CREATE TRIGGER seen AFTER DELETE ON receipts BEGIN SELECT 1; END")
    before = (tmp_path / "app.db").stat()
    look()
    after = (tmp_path / "app.db").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    # An empty -wal and -shm may stay: a reader of a WAL database makes them, and may not take them away.
    assert {name for name in os.listdir(tmp_path) if "-" not in name} == {"app.db", "storage"}
    assert not (tmp_path / "app.db-wal").stat().st_size


# --- files and folders -----------------------------------------------------------------------------------


def test_databases_that_cannot_be_worked_on_are_found(look: Inspect, tmp_path: Path) -> None:
    at = f"{AT}.database"
    assert has(look(database="missing.db"), "error", at, "cannot be found")
    (tmp_path / "empty.db").write_bytes(b"")
    assert has(look(database="empty.db"), "error", at, "is empty")
    (tmp_path / "text.db").write_text("hello " * 1000)
    assert has(look(database="text.db"), "error", at, "is no SQLite database")
    os.link(tmp_path / "app.db", tmp_path / "bulkops.db")
    assert has(look(), "error", at, "is bulkops' own database")


def test_a_rollback_journal_and_a_file_anybody_may_write_are_mentioned(look: Inspect, tmp_path: Path) -> None:
    (tmp_path / "app.db").chmod(0o666)
    findings = look("PRAGMA journal_mode = DELETE")
    assert has(findings, "note", f"{AT}.database", "its journal mode is delete")
    assert has(findings, "warning", f"{AT}.database", "can be written by every user")


def test_what_this_user_may_not_write_is_an_error(
    look: Inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests may run as root, whom no permission stops: the answer of access(2) is what counts here.
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    findings = look()
    for where in (f"{AT}.database", f"{AT}.children[0].root", "server.database", "server.data_dir"):
        assert has(findings, "error", where, "cannot be written by this user")
    monkeypatch.setattr(os, "access", lambda _path, mode: mode == os.W_OK)
    assert has(look(), "error", f"{AT}.children[0].root", "cannot be read")


def test_roots_that_are_missing_or_no_folder_are_errors(look: Inspect, tmp_path: Path) -> None:
    (tmp_path / "storage").rmdir()
    assert has(look(), "error", f"{AT}.children[0].root", "there is no folder")
    (tmp_path / "storage").write_text("")
    assert has(look(), "error", f"{AT}.children[0].root", "is no folder")


def test_a_root_beside_a_storage_of_ones_own_is_not_looked_at(look: Inspect) -> None:
    files = {"file": "number", "root": "nowhere", "storage": "tests.test_storage:Shelf"}
    at, findings = f"{AT}.root", look(**files)
    assert [f.severity for f in findings if f.where == at] == ["note"]
    assert has(findings, "note", at, "not used")
    child = {**RECEIPTS["children"][0], "root": "nowhere", "storage": "tests.test_storage:Shelf"}
    assert has(look(children=[child]), "note", f"{AT}.children[0].root", "not used")


def test_databases_inside_a_root_are_pointed_out(look: Inspect, tmp_path: Path) -> None:
    findings = look(children=[{"table": "attachments", "key": "receipt_id", "file": "path", "root": "."}])
    at = f"{AT}.children[0].root"
    for what in ("bulkops' own database", "data_dir", "a database (app.db)"):
        assert has(findings, "warning", at, what)


def test_other_file_systems_are_pointed_out(
    look: Inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"/": "ext4", str(tmp_path): "nfs4", str(tmp_path / "storage" / "big"): "xfs"}
    monkeypatch.setattr(inspection, "read_mounts", lambda: Mounts(kinds))
    findings = look()
    at = f"{AT}.children[0].root"
    assert has(findings, "warning", at, "storage/big is another file system")
    assert has(findings, "warning", at, "on a network file system (nfs4)")
    assert has(findings, "warning", f"{AT}.database", "network file system (nfs4)")
    assert has(findings, "error", "server.database", "SQLite's locks do not hold")


def test_a_trash_on_another_file_system_is_pointed_out(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or os.stat(other).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("this machine has no second file system at /dev/shm")
    data = {"resources": {"d": {"kind": "folder", "root": str(other), "shared": True}}}
    assert has(
        inspect(from_dict(data, tmp_path, {})), "warning", "resources.d.root", ".bulkops-trash inside it"
    )


def test_mounts_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(
        "/dev/sda / ext4 rw 0 0\nhost:/x /mnt/my\\040files nfs4 rw 0 0\nnone /mnt/my\\040files/t tmpfs\n"
    )
    mounts = read_mounts(table)
    assert mounts.find_network(Path("/mnt/my files/a/b")) == "nfs4"
    assert mounts.find_network(Path("/mnt/my files/t/a")) is None
    assert mounts.find_network(Path("/nowhere")) is None
    assert mounts.below(Path("/mnt")) == ["/mnt/my files", "/mnt/my files/t"]
    assert read_mounts(tmp_path / "missing") == Mounts({})
    assert Mounts({}).find_network(tmp_path) is None


def test_our_own_place_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "bulkops-data").mkdir(mode=0o755)
    server = {"host": "0.0.0.0", "trash_days": 0}
    findings = inspect(from_dict({"server": server}, tmp_path, {}))
    assert has(findings, "warning", "server.host", "plain HTTP")
    assert has(findings, "warning", "server.trash_days", "hardly be undone")
    assert has(findings, "warning", "server.data_dir", "other users")
    assert has(findings, "warning", "resources", "nothing to act on")


# --- other kinds -----------------------------------------------------------------------------------------


def test_photos_need_the_columns_that_mirror_the_files(tmp_path: Path) -> None:
    (tmp_path / "projects").mkdir()
    run(
        tmp_path / "app.db",
        "CREATE TABLE photos (id INTEGER PRIMARY KEY, project, keep_jpg, jpg_availble, keep_raw)",
    )
    resource = {"kind": "photos", "database": "app.db", "table": "photos", "root": "projects"}
    data = {"resources": {"photos": resource}}
    findings = inspect(from_dict(data, tmp_path, {}))
    assert [f.message for f in findings if f.severity == "error"] == [
        'it needs a column "jpg_available"; did you mean "jpg_availble"?',
        'it needs a column "raw_available"; did you mean "jpg_availble"?',
        'it needs a column "base" or "name": a photo without its ending',
    ]
    resource["table"] = "fotos"
    assert has(inspect(from_dict(data, tmp_path, {})), "error", "resources.photos.table", '"photos"?')


@pytest.mark.parametrize(
    ("sql", "key", "good"),
    [
        ("PRIMARY KEY (project, base)", None, True),
        ("PRIMARY KEY (base)", None, True),
        ("UNIQUE (project, base)", ["project", "base"], True),
        ("UNIQUE (project, base)", None, False),
        ("PRIMARY KEY (project, keep_jpg)", None, False),
    ],
)
def test_photos_need_a_key_that_new_ones_can_be_given(
    tmp_path: Path, sql: str, key: list[str] | None, *, good: bool
) -> None:
    (tmp_path / "projects").mkdir()
    columns = "project, base, keep_jpg, jpg_available, keep_raw, raw_available"
    run(tmp_path / "app.db", f"CREATE TABLE photos ({columns}, {sql})")
    resource = {"kind": "photos", "database": "app.db", "table": "photos", "root": "projects"}
    data = {"resources": {"photos": resource | ({} if key is None else {"id": key})}}
    findings = inspect(from_dict(data, tmp_path, {}))
    found = has(findings, "error", "resources.photos.id", 'by one id column, or by "project" and "base"')
    assert found is not good


def test_where_nothing_has_a_tenant_that_is_said_once(tmp_path: Path) -> None:
    run(tmp_path / "app.db", "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, who TEXT)")
    one: dict[str, Any] = {"kind": "table", "database": "app.db", "table": "t", "id": "id"}

    def told(**resources: dict[str, Any]) -> list[str]:
        found = inspect(from_dict({"resources": resources}, tmp_path, {}))
        return [each.where for each in found if "callers with a tenant do not see" in each.message]

    assert told(a=one, b=one, c=one) == ["resources"]
    assert told(a=one, b=one, c={**one, "tenant": "who"}) == ["resources.a", "resources.b"]
    assert told(a=one, b={**one, "shared": True}) == ["resources.a"]
    assert told(a=one) == ["resources.a"]


def test_folders_and_classes_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "dossiers").mkdir()
    data = {
        "resources": {
            "dossiers": {"kind": "folder", "root": "dossiers"},
            "here": {"kind": "json.decoder:JSONDecoder"},
            "fine": {"kind": "tests.custom.shelf:Shelf", "actions": {"delte": {"confirm": "DELETE"}}},
            "away": {"kind": "no_such_package.module:Name"},
        }
    }
    findings = said(inspect(from_dict(data, tmp_path, {})))
    assert [(severity, where) for severity, where, _ in findings] == [
        ("note", "resources.dossiers"),
        ("error", "resources.here.kind"),
        ("note", "resources.fine"),
        ("warning", "resources.fine.actions.delte"),
        ("error", "resources.away.kind"),
    ]
