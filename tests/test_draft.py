"""The first configuration for a database never seen before: it loads, it works, and it takes nothing along."""

from __future__ import annotations

import sqlite3
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkops.configuration import from_dict
from bulkops.errors import ConfigError
from bulkops.resources.draft import draft, plain
from bulkops.resources.inspection import inspect
from bulkops.resources.schema import fold, quote
from bulkops.settings import ResourceSettings, StatusSettings

Maker = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    def make(*statements: str) -> Path:
        file = tmp_path / "app.db"
        connection = sqlite3.connect(file, isolation_level=None)
        connection.create_function("app_only", 1, str, deterministic=True)
        connection.create_collation("app_order", lambda a, b: (a > b) - (a < b))
        for statement in statements:
            connection.execute(statement)
        connection.close()
        return file

    return make


def resources(file: Path) -> dict[str, ResourceSettings]:
    return from_dict(tomllib.loads(draft(file, file.parent)), file.parent, {}).resources


def uncomment(text: str, *beginnings: str) -> str:
    """Do what a reader does who takes a suggestion."""
    lines = text.split("\n")
    return "\n".join(
        line.removeprefix("# ") if line.startswith(tuple(f"# {b}" for b in beginnings)) else line
        for line in lines
    )


# --- what becomes a resource -----------------------------------------------------------------------------


def test_the_sample_database_works_unedited(chinook: Path) -> None:
    settings = from_dict(tomllib.loads(draft(chinook, chinook.parent)), chinook.parent, {})
    found = settings.resources
    assert len(found) == 11
    assert found["PlaylistTrack"].id == ["PlaylistId", "TrackId"]
    assert found["Track"].id == "TrackId"
    assert found["Customer"].label == "Email"
    assert all(not resource.children and resource.foreign_keys for resource in found.values())
    assert {finding.severity for finding in inspect(settings)} == {"note"}


def test_a_suggestion_can_be_taken_by_removing_the_comment_sign(chinook: Path) -> None:
    text = uncomment(draft(chinook, chinook.parent), "[[", "table =", "key =", "confirm =")
    settings = from_dict(tomllib.loads(text), chinook.parent, {})
    assert [child.table for child in settings.resources["Track"].children] == ["InvoiceLine", "PlaylistTrack"]
    assert settings.resources["Track"].actions["delete"].confirm == "DELETE"
    assert not [finding for finding in inspect(settings) if finding.severity == "error"]


def test_tables_without_a_usable_key_are_left_out_with_the_reason(make: Maker) -> None:
    file = make(
        "CREATE TABLE nokey (a, b)",
        "CREATE TABLE nullkey (a TEXT PRIMARY KEY)",
        "INSERT INTO nullkey VALUES (NULL), ('x')",
        "CREATE TABLE mixed (a PRIMARY KEY NOT NULL)",
        "INSERT INTO mixed VALUES (1), ('x')",
        "CREATE TABLE floats (a REAL PRIMARY KEY NOT NULL)",
        "CREATE TABLE blobs (a BLOB PRIMARY KEY NOT NULL)",
        "CREATE TABLE partial (a NOT NULL)",
        "CREATE UNIQUE INDEX p ON partial (a) WHERE a > 1",
        "CREATE TABLE fine (a TEXT PRIMARY KEY, b)",
        "CREATE VIEW v AS SELECT a FROM fine",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "CREATE TABLE _bulkops_ledger (job TEXT PRIMARY KEY)",
        'CREATE TABLE "" (a INTEGER PRIMARY KEY)',
    )
    text = draft(file, file.parent)
    assert list(resources(file)) == ["fine"]
    left_out = text[text.index("# Left out:") :]
    for line in (
        '# - table "nokey": it has no primary key',
        '# - table "nullkey": its key column "a" holds NULL',
        '# - table "mixed": its key column "a" holds integer and text',
        '# - table "floats": its key column "a" is REAL',
        '# - table "blobs": its key column "a" is BLOB',
        '# - table "partial": it has no primary key',
        '# - view "v": a view is read-only',
        '# - virtual "f": its rows belong to a module',
        '# - table "": it has an empty name',
    ):
        assert line in left_out
    assert "_bulkops_" not in left_out


def test_without_a_primary_key_a_unique_index_over_not_null_columns_names_the_rows(make: Maker) -> None:
    file = make("CREATE TABLE t (a UNIQUE, b TEXT NOT NULL, c INT NOT NULL, UNIQUE (c, b), UNIQUE (a, b, c))")
    assert resources(file)["t"].id == ["c", "b"]


def test_a_null_in_the_primary_key_makes_the_unique_index_the_key(make: Maker) -> None:
    file = make(
        "CREATE TABLE t (a TEXT PRIMARY KEY, b INT NOT NULL UNIQUE)",
        "INSERT INTO t VALUES (NULL, 1), ('x', 2)",
    )
    assert resources(file)["t"].id == "b"


def test_what_needs_functions_or_collations_of_the_application_is_left_out(make: Maker) -> None:
    file = make(
        "CREATE TABLE fine (a INTEGER PRIMARY KEY)",
        "CREATE TABLE triggered (a INTEGER PRIMARY KEY)",
        "CREATE TRIGGER r AFTER DELETE ON triggered BEGIN SELECT app_only(1); END",
        "CREATE TABLE indexed (a INTEGER PRIMARY KEY)",
        "CREATE INDEX i ON indexed (app_only(a))",
        "CREATE TABLE sorted (a TEXT PRIMARY KEY NOT NULL COLLATE app_order)",
        "CREATE TABLE named (a INTEGER PRIMARY KEY, status TEXT COLLATE app_order)",
    )
    assert list(resources(file)) == ["fine"]
    text = draft(file, file.parent)
    assert 'cannot work with it: "no such function: app_only"' in text
    assert 'cannot work with it: "no such collation sequence: app_order"' in text


# --- what is written about it ----------------------------------------------------------------------------


def test_columns_are_recognised_however_their_words_are_joined() -> None:
    assert [
        plain(name) for name in ("BusinessId", "business-id", "business_id", "Business ID", "businessID")
    ] == ["business_id"] * 5


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("business_id INT NOT NULL", "business_id"),
        ("TenantId TEXT REFERENCES own", None),
        ("tenant TEXT NOT NULL", "tenant"),
        ("org_id INT, account_id INT NOT NULL", None),
        ("org_id REAL NOT NULL", None),
        ("user_id INT NOT NULL", None),
    ],
)
def test_a_tenant_is_named_where_it_is_plain_and_suggested_elsewhere(
    make: Maker, column: str, expected: str | None
) -> None:
    file = make(
        "CREATE TABLE own (id TEXT PRIMARY KEY)", f"CREATE TABLE t (id INTEGER PRIMARY KEY, {column})"
    )
    assert resources(file)["t"].tenant == expected
    if expected is None and "user" not in column:
        assert "# tenant = " in draft(file, file.parent)


def test_an_index_settles_a_tenant_but_its_own_table_has_none(make: Maker) -> None:
    file = make(
        "CREATE TABLE tenants (tenant_id TEXT PRIMARY KEY NOT NULL, name TEXT)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, tenant_id TEXT)",
        "CREATE INDEX i ON t (tenant_id)",
        "CREATE TABLE pair (tenant_id TEXT, n INT, PRIMARY KEY (tenant_id, n))",
    )
    found = resources(file)
    assert found["t"].tenant == found["pair"].tenant == "tenant_id"
    assert found["tenants"].tenant is None


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("deleted_at TEXT", "deleted_at"),
        ("deletedAt INTEGER", "deletedAt"),
        ("is_deleted BOOLEAN NOT NULL DEFAULT 0", "is_deleted"),
        ("deleted INT", "deleted"),
        ("deleted DATETIME", "deleted"),
        ("deleted_at TEXT NOT NULL DEFAULT ''", None),
        ("is_deleted TEXT", None),
        ("archived_at TEXT", None),
        ("deleted_at AS (b)", None),
    ],
)
def test_soft_delete_is_named_where_name_and_type_leave_no_doubt(
    make: Maker, column: str, expected: str | None
) -> None:
    file = make(f"CREATE TABLE t (id INTEGER PRIMARY KEY, b, {column})")
    assert resources(file)["t"].soft_delete == expected
    assert ("# soft_delete" in draft(file, file.parent)) == (expected is None)


def test_status_words_are_those_of_the_data(make: Maker) -> None:
    file = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, Status TEXT)",
        "INSERT INTO t (Status) VALUES ('Open'), ('Closed'), ('In Progress'), ('ARCHIVED')",
        "CREATE TABLE fresh (id INTEGER PRIMARY KEY, status TEXT)",
        "CREATE TABLE addresses (id INTEGER PRIMARY KEY, state TEXT)",
        "INSERT INTO addresses (state) VALUES ('CA'), ('NY')",
        "CREATE TABLE numbered (id INTEGER PRIMARY KEY, status INT)",
    )
    found = resources(file)
    assert found["t"].status == StatusSettings(
        column="Status", closed="Closed", archived="ARCHIVED", busy=["In Progress"]
    )
    assert found["t"].set == []
    assert found["fresh"].status == StatusSettings(column="status")
    assert found["addresses"].status is found["numbered"].status is None


def test_filters_get_what_is_indexed_and_what_people_ask_for_but_no_secrets(make: Maker) -> None:
    file = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, api_token TEXT UNIQUE, name TEXT, status TEXT,"
        " created_at TEXT, vendor TEXT, picture BLOB UNIQUE, deleted_at TEXT, note TEXT)",
        "CREATE INDEX i ON t (vendor, note)",
        "CREATE INDEX d ON t (deleted_at)",
        "CREATE INDEX e ON t (lower(note))",
    )
    assert resources(file)["t"].search == ["name", "status", "created_at", "vendor", "deleted_at"]


def test_where_no_filter_suggests_itself_the_columns_are_there_to_choose_from(make: Maker) -> None:
    file = make('CREATE TABLE t (id INTEGER PRIMARY KEY, "group" TEXT, size INT, thumb BLOB, password TEXT)')
    text = draft(file, file.parent)
    assert '# search = ["group", "size"]' in text
    assert resources(file)["t"].search == []
    taken = from_dict(tomllib.loads(uncomment(text, "search =")), file.parent, {}).resources["t"]
    assert taken.search == ["group", "size"]
    file.unlink()
    assert "search = " not in draft(make("CREATE TABLE u (id INTEGER PRIMARY KEY)"), file.parent)


def test_what_other_rows_keep_is_said_by_what_a_delete_does_here(make: Maker) -> None:
    file = make(
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE s (id INTEGER PRIMARY KEY, deleted_at TEXT)",
        "CREATE TABLE c (p INT REFERENCES p, s INT REFERENCES s)",
    )
    text = draft(file, file.parent)
    assert text.count("what is pointed at cannot be deleted: CONSTRAINT") == 1
    assert text.count("what is pointed at cannot be purged: CONSTRAINT") == 1


def test_children_and_files_are_suggested_and_never_taken(make: Maker) -> None:
    file = make(
        "CREATE TABLE p (id INTEGER PRIMARY KEY, file_path TEXT)",
        "CREATE TABLE held (p INT REFERENCES p)",
        "CREATE TABLE gone (p INT REFERENCES p ON DELETE CASCADE)",
        "CREATE TABLE loose (p INT REFERENCES p ON DELETE SET NULL)",
        "CREATE TABLE self (id INTEGER PRIMARY KEY, up INT REFERENCES self)",
    )
    text = draft(file, file.parent)
    resource = resources(file)["p"]
    assert (resource.children, resource.file, resource.root) == ([], None, None)
    assert '# Rows of "held" ("p") point at these.' in text
    assert '# Rows of "gone" ("p") go with these: ON DELETE CASCADE.' in text
    assert '# Rows of "loose" ("p") lose their hold on these: ON DELETE SET NULL.' in text
    assert text.count("# [[resources.") == 1
    taken = from_dict(
        tomllib.loads(uncomment(text, "[[", "table =", "key =", "file =", "root =")), file.parent, {}
    )
    assert [child.table for child in taken.resources["p"].children] == ["held"]
    assert taken.resources["p"].file == "file_path"


def test_foreign_keys_are_off_where_the_data_breaks_them(make: Maker) -> None:
    file = make(
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE broken (id INTEGER PRIMARY KEY, p INT REFERENCES p)",
        "INSERT INTO broken VALUES (1, 99)",
        "CREATE TABLE parent (id INTEGER PRIMARY KEY, x)",
        "CREATE TABLE clean (id INTEGER PRIMARY KEY, p INT REFERENCES parent)",
        "CREATE TABLE other (id INTEGER PRIMARY KEY, y)",
        "CREATE TABLE unfit (id INTEGER PRIMARY KEY, y REFERENCES other (y))",
        "CREATE TABLE orphan (id INTEGER PRIMARY KEY, z REFERENCES nowhere (z))",
    )
    found = resources(file)
    off = {name for name, resource in found.items() if not resource.foreign_keys}
    assert off == {"p", "broken", "other", "unfit", "orphan"}
    assert set(found) - off == {"parent", "clean"}


def test_triggers_are_mentioned(make: Maker) -> None:
    file = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY)",
        "CREATE TRIGGER counting AFTER DELETE ON t BEGIN SELECT 1; END",
    )
    assert '# Its triggers run as ever; an undo does not undo what they did: "counting"' in draft(file)


# --- names and places ------------------------------------------------------------------------------------


def test_a_resource_is_called_like_its_table_where_a_url_takes_it(make: Maker) -> None:
    file = make(
        'CREATE TABLE "order items" (id INTEGER PRIMARY KEY)',
        'CREATE TABLE "order-items" (id INTEGER PRIMARY KEY)',
        'CREATE TABLE "order/items" (id INTEGER PRIMARY KEY)',
        'CREATE TABLE "Straße" (id INTEGER PRIMARY KEY)',
        'CREATE TABLE ".." (id INTEGER PRIMARY KEY)',
        "CREATE TABLE v1_0 (id INTEGER PRIMARY KEY)",
        "CREATE TABLE maintenance (id INTEGER PRIMARY KEY)",
    )
    assert {name: resource.table for name, resource in resources(file).items()} == {
        "maintenance-2": "maintenance",  # the house has one of that name
        "table": "..",
        "order-items": "order items",
        "order-items-2": "order-items",
        "order-items-3": "order/items",
        "Straße": "Straße",
        "v1_0": "v1_0",
    }


def test_the_database_is_named_relative_to_where_the_file_will_stand(make: Maker, tmp_path: Path) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    below = tmp_path / "etc" / "bulkops"
    settings = from_dict(tomllib.loads(draft(file, below)), below, {})
    assert settings.resources["t"].database == "../../app.db"
    assert settings.path("../../app.db").resolve() == file


def test_an_application_that_took_our_name_keeps_it(make: Maker) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    file = file.rename(file.with_name("bulkops.db"))
    settings = from_dict(tomllib.loads(draft(file, file.parent)), file.parent, {})
    assert settings.server.database == "bulkops-jobs.db"
    assert resources(file)["t"].database == "bulkops.db"


def test_what_is_no_database_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be found"):
        draft(tmp_path / "missing.db")
    for content, message in ((b"", "is empty"), (b"GIF89a" * 100, "is no SQLite database")):
        (tmp_path / "x.db").write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            draft(tmp_path / "x.db")
    connection = sqlite3.connect(tmp_path / "bare.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    with pytest.raises(ConfigError, match="has no tables"):
        draft(tmp_path / "bare.db")
    with pytest.raises(ConfigError, match="its path cannot be written"):
        draft(tmp_path / "a\nb.db")


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@settings(max_examples=30, deadline=None)
@given(NAMES, st.lists(NAMES, min_size=3, max_size=3, unique_by=fold), NAMES)
def test_whatever_the_names_are_the_draft_loads_and_fits(
    tmp_path_factory: pytest.TempPathFactory, table: str, columns: list[str], trigger: str
) -> None:
    if fold(table).startswith(("sqlite_", "_bulkops_")):
        return
    file = tmp_path_factory.mktemp("names") / "app.db"
    connection = sqlite3.connect(file, isolation_level=None)
    a, b, c = map(quote, columns)
    connection.execute(f"CREATE TABLE {quote(table)} ({a} INTEGER PRIMARY KEY, {b} TEXT UNIQUE, {c} TEXT)")
    connection.execute(f'CREATE TABLE "child of" (x INT REFERENCES {quote(table)})')
    connection.execute(f"CREATE TRIGGER {quote(trigger)} AFTER DELETE ON {quote(table)} BEGIN SELECT 1; END")
    connection.close()
    text = draft(file, file.parent)
    found = from_dict(tomllib.loads(text), file.parent, {})
    (resource,) = found.resources.values()
    assert (resource.table, resource.id) == (table, columns[0])
    assert not [finding for finding in inspect(found) if finding.severity == "error"]
    taken = from_dict(tomllib.loads(uncomment(text, "[[", "table =", "key =")), file.parent, {})
    assert [child.table for child in next(iter(taken.resources.values())).children] == ["child of"]
