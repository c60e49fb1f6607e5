"""The demo's folder: quick, the same every time, and never somebody else's."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bulkops import demo, demo_data
from bulkops.demo import BUSINESSES, Business, DemoRefused
from bulkops.settings import load


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "bulkops-demo"
    started = time.monotonic()
    assert demo.prepare(folder)
    assert time.monotonic() - started < 10
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Business:
    """Make demos small where their size does not matter; returns the business of the demo's job."""
    businesses = tuple(msgspec.structs.replace(each, receipts=20) for each in BUSINESSES)
    monkeypatch.setattr(demo_data, "BUSINESSES", businesses)
    monkeypatch.setattr(demo_data, "_CLIENTS", (("aurora", 5),))
    return businesses[0]


def ask(folder: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "app.db")) as app:
        return app.execute(statement).fetchall()


def listing(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_it_holds_five_thousand_receipts_of_three_businesses(made: Path) -> None:
    counts = dict(ask(made, "SELECT business_id, count(*) FROM receipts GROUP BY 1"))
    assert counts == {business.id: business.receipts for business in BUSINESSES}
    assert sum(counts.values()) == 5000
    assert len(ask(made, "SELECT DISTINCT vendor FROM receipts")) >= 10
    assert ask(made, "PRAGMA journal_mode") == [("wal",)]


def test_every_file_that_a_row_names_is_there(made: Path) -> None:
    named = {f"storage/{path}" for (path,) in ask(made, "SELECT path FROM attachments")}
    named |= {f"images/{path}" for (path,) in ask(made, "SELECT path FROM images")}
    found = {name for name in listing(made) if name.startswith(("storage/", "images/"))}
    assert named == found
    assert len(ask(made, "SELECT DISTINCT receipt_id FROM attachments")) == 5000


def test_nothing_of_the_demos_business_stands_in_the_way_and_something_of_the_others_does(made: Path) -> None:
    statement = (
        "SELECT count(*) FROM receipts WHERE business_id {} 'oak' AND (pinned = 1 OR status = 'processing')"
    )
    assert ask(made, statement.format("=")) == [(0,)]
    assert ask(made, statement.format("<>"))[0][0] > 10


def test_what_the_other_resources_need_is_there(made: Path) -> None:
    dossiers = [path for path in (made / "dossiers_data").iterdir() if path.is_dir()]
    assert len(dossiers) == 12
    assert all(any(dossier.rglob("*.jpg")) for dossier in dossiers)
    assert any(path.suffix == ".RAW" for path in (made / "projects").rglob("*"))
    assert any(path.suffix == ".JPG" for path in (made / "projects").rglob("*"))
    assert ask(made, "SELECT count(*) FROM exports")[0][0] > 100
    assert ask(made, "SELECT count(*) FROM images WHERE client_id = 'aurora'") == [(1000,)]
    with closing(sqlite3.connect(made / "photos.db")) as photos:
        assert photos.execute("SELECT count(*) FROM photos").fetchone()[0] > 30


def test_foreign_keys_hold(made: Path) -> None:
    assert ask(made, "PRAGMA foreign_key_check") == []


def test_its_config_is_one(made: Path) -> None:
    settings = load(made / "bulkops.toml", {})
    assert set(settings.resources) == {"receipts", "sessions", "images"}
    assert settings.resources["receipts"].actions["delete"].confirm == "DELETE"


def test_it_is_the_same_every_time(made: Path, tmp_path: Path) -> None:
    demo.prepare(tmp_path / "again")
    databases = ("app.db", "photos.db")
    one, other = listing(made), listing(tmp_path / "again")
    assert {n: h for n, h in one.items() if not n.startswith(databases)} == {
        n: h for n, h in other.items() if not n.startswith(databases)
    }
    for table in ("receipts", "attachments", "sessions", "exports", "images"):
        assert ask(made, f"SELECT * FROM {table}") == ask(tmp_path / "again", f"SELECT * FROM {table}")


def test_a_second_time_it_is_used_as_it_is(tmp_path: Path, few: Business) -> None:
    demo.prepare(tmp_path)
    (tmp_path / "mine.txt").write_text("do not touch")
    with closing(sqlite3.connect(tmp_path / "app.db")) as app, app:
        app.execute("DELETE FROM sessions")
    before = listing(tmp_path)
    assert not demo.prepare(tmp_path)
    assert listing(tmp_path) == before


def test_a_business_gets_new_receipts_for_those_that_went(tmp_path: Path, few: Business) -> None:
    demo.prepare(tmp_path)
    assert demo.refill(tmp_path, few) == 0
    with closing(sqlite3.connect(tmp_path / "app.db")) as app, app:
        app.execute("UPDATE receipts SET is_deleted = 1 WHERE business_id = 'oak'")
        app.execute("DELETE FROM attachments WHERE receipt_id < 10")
    before = listing(tmp_path)
    assert demo.refill(tmp_path, few) == few.receipts
    with closing(sqlite3.connect(tmp_path / "app.db")) as app:
        assert demo_data.count_receipts(app, few) == few.receipts
    after = listing(tmp_path)
    assert {name: after[name] for name in before if name != "app.db"} == {
        name: found for name, found in before.items() if name != "app.db"
    }
    assert ask(tmp_path, "SELECT count(*) FROM receipts WHERE is_deleted = 1") == [(few.receipts,)]


def test_an_empty_folder_may_be_used(tmp_path: Path, few: Business) -> None:
    assert demo.prepare(tmp_path)


def test_a_folder_of_somebody_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DemoRefused, match="did not make"):
        demo.prepare(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(DemoRefused):
        demo.prepare(tmp_path / "demo")
    assert (tmp_path / "demo").read_text() == "a file"


@pytest.mark.parametrize("marker", [b'{"layout":1,"ready":false}', b'{"layout":99,"ready":true}', b"???"])
def test_a_demo_that_cannot_be_trusted_is_refused_and_left_as_it_is(tmp_path: Path, marker: bytes) -> None:
    (tmp_path / ".bulkops-demo").write_bytes(marker)
    with pytest.raises(DemoRefused):
        demo.prepare(tmp_path)
    assert os.listdir(tmp_path) == [".bulkops-demo"]


def test_a_demo_that_fails_half_way_leaves_nothing_where_nothing_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        (folder / "app.db").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo_data, "make", fail)
    with pytest.raises(DemoRefused, match="No space left"):
        demo.prepare(tmp_path / "demo")
    assert os.listdir(tmp_path) == []


def test_a_database_that_is_not_the_demos_any_more_is_said(tmp_path: Path, few: Business) -> None:
    demo.prepare(tmp_path)
    (tmp_path / "app.db").unlink()
    with closing(sqlite3.connect(tmp_path / "app.db")) as app, app:
        app.execute("CREATE TABLE mine (x)")
    with pytest.raises(DemoRefused, match="not the demo's any more"):
        demo.refill(tmp_path, few)
