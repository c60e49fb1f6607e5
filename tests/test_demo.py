"""The demo's folder: quick, the same every time, and never somebody else's."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bulkops import demo
from bulkops.configuration import load
from bulkops.demo import BUSINESSES, Business, DemoRefused
from bulkops.demo_data import dossiers, tables
from bulkops.demo_data.dossiers import DOSSIERS, MISSING, PURGED
from bulkops.demo_data.photos import DAMAGED, PROJECTS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "bulkops-demo"
    assert demo.prepare(folder)
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Business:
    """Make demos small where their size does not matter; returns the business of the demo's job."""
    businesses = tuple(msgspec.structs.replace(each, receipts=20) for each in BUSINESSES)
    monkeypatch.setattr(tables, "BUSINESSES", businesses)
    monkeypatch.setattr(tables, "CLIENTS", (("aurora", 5), ("borealis", 3)))
    monkeypatch.setattr(dossiers, "_LARGE_PAGES", 20)
    return businesses[0]


def ask(folder: Path, statement: str, *, of: str = "app.db") -> list[Any]:
    with closing(sqlite3.connect(folder / of)) as database:
        return database.execute(statement).fetchall()


def change(folder: Path, statement: str, *, of: str = "app.db") -> None:
    with closing(sqlite3.connect(folder / of)) as database, database:
        database.execute(statement)


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


def test_sessions_and_images_are_as_many_as_ever(made: Path) -> None:
    assert ask(made, "SELECT count(*) FROM sessions") == [(240,)]
    assert ask(made, "SELECT count(*) FROM exports")[0][0] > 100
    assert ask(made, "SELECT count(*), max(id) FROM images") == [(1500, 1500)]
    assert ask(made, "SELECT count(*) FROM images WHERE client_id = 'aurora'") == [(1000,)]


def test_dossiers_are_dozens_one_is_large_and_some_lead_out_by_a_link(made: Path) -> None:
    root = made / "dossiers_data"
    assert sorted(os.listdir(root)) == list(DOSSIERS)
    assert (len(DOSSIERS), len(PURGED), MISSING in DOSSIERS) == (36, 18, False)
    files = {name: [path for path in (root / name).rglob("*") if path.is_file()] for name in DOSSIERS}
    assert [name for name in DOSSIERS if len(files[name]) > 100] == ["D-013-abel"]
    for name in DOSSIERS:
        assert {path.suffix for path in files[name]} == {".json", ".jpg", ".pdf"}
    linked = [name for name in DOSSIERS if (root / name / "photos").is_symlink()]
    assert len(linked) == 6
    assert {(root / name / "photos").resolve() for name in linked} == {
        (made / "projects" / PROJECTS[0]).resolve()
    }
    assert set(linked) & set(PURGED)
    assert "D-013-abel" in PURGED


def test_photos_have_the_rows_that_say_so_and_a_commit_has_something_to_do(made: Path) -> None:
    rows = ask(made, "SELECT project, base, jpg_available, raw_available FROM photos", of="photos.db")
    assert {row[0] for row in rows} == set(PROJECTS)
    assert len(rows) == 72
    for project in PROJECTS:
        names = os.listdir(made / "projects" / project)
        jpg = {Path(name).stem for name in names if name.lower().endswith((".jpg", ".jpeg"))}
        raw = {Path(name).stem for name in names if name.lower().endswith((".cr2", ".nef", ".raw"))}
        assert len(jpg) + len(raw) == len(names)
        assert jpg == {row[1] for row in rows if row[0] == project and row[2]}
        wrong = {row[1] for row in rows if row[0] == project and row[3]} - raw
        assert wrong == {"IMG_0024"}, "the check has one row to put right"
        assert {Path(name).suffix for name in names} == {".JPG", ".jpg", ".JPEG", ".CR2", ".nef", ".RAW"}
    given_up = "SELECT count(*), sum(keep_jpg) FROM photos WHERE project = '{}' AND keep_{} < {}_available"
    for kind in ("jpg", "raw"):
        assert ask(made, given_up.format(PROJECTS[0], kind, kind), of="photos.db")[0][0] > 3


def test_photos_lie_every_way_and_one_of_them_is_damaged(made: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    found = set()
    for project in PROJECTS:
        for path in (made / "projects" / project).iterdir():
            if path.suffix.lower() not in {".jpg", ".jpeg"}:
                continue
            with image.open(path) as picture:
                found.add(picture.getexif()[0x0112])
                if (project, path.stem) == (PROJECTS[0], DAMAGED):
                    with pytest.raises(OSError, match="truncated"):
                        picture.load()
                else:
                    picture.load()
    assert found == set(range(1, 9))


def test_foreign_keys_hold(made: Path) -> None:
    assert ask(made, "PRAGMA foreign_key_check") == []


def test_its_config_is_one(made: Path) -> None:
    settings = load(made / "bulkops.toml", {})
    kinds = {name: resource.kind for name, resource in settings.resources.items()}
    tables_of_it = dict.fromkeys(("receipts", "sessions", "images"), "table")
    assert kinds == {**tables_of_it, "dossiers": "folder", "photos": "photos"}
    assert set(settings.schedules) == {"forget-sessions", "empty-photo-trash"}
    assert settings.resources["receipts"].actions["delete"].confirm == "DELETE"


def test_sessions_have_their_limits(made: Path) -> None:
    actions = load(made / "bulkops.toml", {}).resources["sessions"].actions
    assert {name: (action.rate, action.max_runtime_s) for name, action in actions.items()} == {
        "delete": ("10/minute", 300),
        "export": ("30/minute", 300),
        "close": ("20/minute", 300),
        "archive": ("15/minute", 300),
    }


def test_it_is_the_same_every_time(made: Path, tmp_path: Path) -> None:
    demo.prepare(tmp_path / "again")
    databases = ("app.db", "photos.db")
    one, other = listing(made), listing(tmp_path / "again")
    assert {n: h for n, h in one.items() if not n.startswith(databases)} == {
        n: h for n, h in other.items() if not n.startswith(databases)
    }
    for table in ("receipts", "attachments", "sessions", "exports", "images"):
        assert ask(made, f"SELECT * FROM {table}") == ask(tmp_path / "again", f"SELECT * FROM {table}")
    assert ask(made, "SELECT * FROM photos", of="photos.db") == ask(
        tmp_path / "again", "SELECT * FROM photos", of="photos.db"
    )


def test_a_second_time_it_is_used_as_it_is(tmp_path: Path, few: Business) -> None:
    demo.prepare(tmp_path)
    (tmp_path / "mine.txt").write_text("do not touch")
    change(tmp_path, "DELETE FROM sessions")
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
        assert tables.count_receipts(app, few) == few.receipts
    after = listing(tmp_path)
    assert {name: after[name] for name in before if name != "app.db"} == {
        name: found for name, found in before.items() if name != "app.db"
    }
    assert ask(tmp_path, "SELECT count(*) FROM receipts WHERE is_deleted = 1") == [(few.receipts,)]


def test_new_sessions_come_when_few_are_left_open(tmp_path: Path, few: Business) -> None:
    demo.prepare(tmp_path)
    assert demo.refill_sessions(tmp_path) == 0
    change(tmp_path, "UPDATE sessions SET status = 'closed' WHERE status = 'open'")
    assert demo.refill_sessions(tmp_path) == 120
    assert ask(tmp_path, "SELECT count(*) FROM sessions") == [(360,)]
    assert ask(tmp_path, "SELECT count(*) FROM sessions WHERE status = 'open'")[0][0] > 40
    assert demo.refill_sessions(tmp_path) == 0


def test_a_client_gets_new_images_whose_numbers_and_files_were_nobodys_before(
    tmp_path: Path, few: Business
) -> None:
    demo.prepare(tmp_path)
    assert demo.refill_images(tmp_path) == 0
    before = listing(tmp_path / "images")
    for last in (8, 13):
        change(tmp_path, "DELETE FROM images WHERE client_id = 'aurora'")
        assert demo.refill_images(tmp_path) == 5
        rows = ask(tmp_path, "SELECT id, path FROM images WHERE client_id = 'aurora'")
        assert rows == [(number, f"aurora/{number:05}.jpg") for number in range(last + 1, last + 6)]
    after = listing(tmp_path / "images")
    assert len(after) == len(before) + 10
    assert {name: after[name] for name in before} == before


def test_dossiers_that_went_are_made_again_and_others_stay_as_they_are(tmp_path: Path, few: Business) -> None:
    demo.prepare(tmp_path)
    root = tmp_path / "dossiers_data"
    before = listing(root)
    assert demo.refill_dossiers(tmp_path) == 0
    shutil.rmtree(root / PURGED[0])
    (root / PURGED[1] / "dossier.json").write_text("changed by hand")
    assert demo.refill_dossiers(tmp_path) == 1
    changed = f"{PURGED[1]}/dossier.json"
    assert {name for name, found in listing(root).items() if before[name] != found} == {changed}


def test_somebody_goes_on_sorting_photos_and_uploads_new_ones(tmp_path: Path, few: Business) -> None:
    demo.prepare(tmp_path)
    assert demo.decide_on_photos(tmp_path) == 0, "at first there is enough to do"
    wanting = (
        f"SELECT count(*) FROM photos WHERE project = '{PROJECTS[0]}'"
        " AND (keep_jpg < jpg_available OR keep_raw < raw_available)"
    )
    others = f"SELECT * FROM photos WHERE project <> '{PROJECTS[0]}' OR base = '{DAMAGED}'"
    change(tmp_path, "UPDATE photos SET jpg_available = 0 WHERE keep_jpg = 0", of="photos.db")
    change(tmp_path, "UPDATE photos SET raw_available = 0 WHERE keep_raw = 0", of="photos.db")
    assert ask(tmp_path, wanting, of="photos.db") == [(0,)]
    before = ask(tmp_path, others, of="photos.db")
    assert demo.decide_on_photos(tmp_path) == 12
    assert ask(tmp_path, wanting, of="photos.db") == [(12,)]
    assert ask(tmp_path, others, of="photos.db") == before
    assert demo.decide_on_photos(tmp_path) == 0

    project = tmp_path / "projects" / PROJECTS[0]
    there = listing(project)
    first, second = demo.upload_photos(tmp_path), demo.upload_photos(tmp_path)
    assert len(first) == len(second) == 18
    assert set(listing(project)) == {*there, *first, *second}
    assert len(listing(project)) == len(there) + 36, "none had its name before"
    assert {name: listing(project)[name] for name in there} == there


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


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        (b'{"layout":2,"ready":false}', "left half made"),
        (b'{"layout":1,"ready":true}', "is of layout 1, made by another version"),
        (b'{"layout":99,"ready":true}', "is of layout 99, made by another version"),
        (b"???", "cannot be read"),
    ],
)
def test_a_demo_that_cannot_be_trusted_is_refused_and_left_as_it_is(
    tmp_path: Path, marker: bytes, said: str
) -> None:
    (tmp_path / ".bulkops-demo").write_bytes(marker)
    with pytest.raises(DemoRefused, match=said):
        demo.prepare(tmp_path)
    assert os.listdir(tmp_path) == [".bulkops-demo"]


def test_a_demo_that_fails_half_way_leaves_nothing_where_nothing_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        (folder / "app.db").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "make_tables", fail)
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
