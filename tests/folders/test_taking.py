"""Deleting, purging and undoing dossiers: through the whole house, with real folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine_house import OWNER, counts, make_database, outcomes, report, run, undo, until
from tests.folders.house import DOSSIERS, dossiers, make_dossier, trash_of, tree_of


async def test_deleted_dossiers_go_to_the_trash_and_come_back_as_they_were(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    for name in ("ana", "ben", "cleo"):
        make_dossier(root, name)
    (root / "loose.pdf").write_bytes(b"%PDF")
    before = tree_of(root)
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "delete", ids=["ana", "loose.pdf", "nobody"])
        assert counts(job) == (2, 0, 1)
        assert await outcomes(runtime, job.id) == {
            "ana": "succeeded",
            "loose.pdf": "succeeded",
            "nobody": "skipped NOT_FOUND",
        }
        assert sorted(os.listdir(root)) == ["ben", "cleo"]
        assert len(trash_of(tmp_path)) == 2
        listed = (await runtime.service.trash(OWNER, q=None, limit=50, page=None))["items"]
        assert sorted(each.label for each in listed) == ["ana", "loose.pdf"]
        back = await undo(runtime, job.id)
        assert counts(back) == (2, 0, 0)
        assert tree_of(root) == before
        assert trash_of(tmp_path) == []
        assert not (await runtime.service.trash(OWNER, q=None, limit=50, page=None))["items"]


async def test_an_undo_takes_single_items_and_never_replaces_what_stands_there(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    for name in ("ana", "ben", "cleo"):
        make_dossier(root, name)
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "delete", all=True)
        make_dossier(root, "ben", {"new.txt": b"another ben"})
        back = await undo(runtime, job.id, ids=["ana", "ben"])
        assert await outcomes(runtime, back.id) == {"ana": "succeeded", "ben": "skipped CONFLICT"}
        assert sorted(os.listdir(root)) == ["ana", "ben"]
        assert (root / "ben" / "new.txt").read_bytes() == b"another ben"
        assert len(trash_of(tmp_path)) == 2


@pytest.mark.parametrize("action", ["purge", "delete"])
async def test_purged_dossiers_are_gone_for_good(tmp_path: Path, action: str) -> None:
    root = tmp_path / "dossiers_data"
    for name in ("ana", "ben"):
        make_dossier(root, name)
    options = {"hard": True} if action == "delete" else {}
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", action, ids=["ana", "gone"], options=options)
        assert counts(job) == (1, 0, 1)
        assert job.undo_until is None
        assert os.listdir(root) == ["ben"]
        assert trash_of(tmp_path) == []
        assert {each["id"]: each["outcome"] for each in await report(runtime, job.id)} == {
            "ana": "succeeded",
            "gone": "skipped",
        }


async def test_links_and_special_files_are_left_alone_with_a_reason(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    outside = make_dossier(tmp_path, "outside")
    make_dossier(root, "ana")
    (root / "link").symlink_to(outside)
    os.mkfifo(root / "pipe")
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "purge", all=True)
        assert await outcomes(runtime, job.id) == {
            "ana": "succeeded",
            "link": "skipped INELIGIBLE",
            "pipe": "skipped INELIGIBLE",
        }
        assert (outside / "a.jpg").exists()


async def test_a_link_inside_a_dossier_goes_and_what_it_points_at_stays(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    outside = make_dossier(tmp_path, "outside")
    (make_dossier(root, "ana") / "to").symlink_to(outside, target_is_directory=True)
    before = tree_of(outside)
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "purge", ids=["ana"])
        assert counts(job) == (1, 0, 0)
        assert os.listdir(root) == []
        assert tree_of(outside) == before


async def test_what_the_server_lives_in_is_protected(tmp_path: Path) -> None:
    make_dossier(tmp_path, "ana")
    async with dossiers(tmp_path, root=".") as runtime:
        job = await run(runtime, "dossiers", "purge", all=True)
        found = await outcomes(runtime, job.id)
        assert found.pop("ana") == "succeeded"
        assert found.pop("dossiers_data") == "succeeded"
        assert {item for item, word in found.items() if word != "skipped PROTECTED"} == set()
        assert {"bulkops.db", "bulkops-data"} <= set(found)


async def test_a_folder_that_holds_the_servers_or_another_resources_place_is_protected(
    tmp_path: Path,
) -> None:
    root = tmp_path / "dossiers_data"
    for name in ("ana", "house", "pictures", "trees"):
        make_dossier(root, name)
    make_database(tmp_path / "app.db", "CREATE TABLE images (id INTEGER PRIMARY KEY, path TEXT)")
    (root / "pictures" / "deep").mkdir()
    (root / "trees" / "of").mkdir()
    images = {"table": "images", "id": "id", "file": "path", "root": "dossiers_data/pictures/deep"}
    trees = {**DOSSIERS, "root": "dossiers_data/trees/of"}
    server = {"data_dir": "dossiers_data/house/in/data"}
    (root / "house" / "in").mkdir()
    async with dossiers(tmp_path, more={"images": images, "trees": trees}, server=server) as runtime:
        job = await run(runtime, "dossiers", "delete", all=True)
        assert await outcomes(runtime, job.id) == {
            "ana": "succeeded",
            "house": "skipped PROTECTED",
            "pictures": "skipped PROTECTED",
            "trees": "skipped PROTECTED",
        }


async def test_rows_that_name_their_files_from_further_up_keep_a_folder_too(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    for name in ("ana", "ben"):
        make_dossier(root, name)
    (root / "loose.jpg").write_bytes(b"a row names it")
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE images (id INTEGER PRIMARY KEY, path TEXT);"
        "INSERT INTO images VALUES (1, 'ana/a.jpg'), (2, 'dossiers_data/loose.jpg'), (3, 'dossiers_data/ben/a.jpg')",
    )
    images = {"table": "images", "id": "id", "file": "path", "root": "."}
    async with dossiers(tmp_path, more={"images": images}) as runtime:
        job = await run(runtime, "dossiers", "purge", all=True)
        assert await outcomes(runtime, job.id) == {
            "ana": "succeeded",
            "ben": "failed SHARED",
            "loose.jpg": "failed SHARED",
        }


async def test_a_file_and_a_folder_that_rows_need_are_shared(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    make_dossier(root, "ana")
    make_dossier(root, "ben")
    (root / "both.jpg").write_bytes(b"two rows name it")
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE images (id INTEGER PRIMARY KEY, path TEXT);"
        "INSERT INTO images VALUES (1, 'both.jpg'), (2, 'both.jpg'), (3, 'ben/a.jpg')",
    )
    images = {"table": "images", "id": "id", "file": "path", "root": "dossiers_data"}
    async with dossiers(tmp_path, more={"images": images}) as runtime:
        job = await run(runtime, "dossiers", "purge", all=True)
        assert await outcomes(runtime, job.id) == {
            "ana": "succeeded",
            "ben": "failed SHARED",
            "both.jpg": "failed SHARED",
        }
        gone = await run(runtime, "images", "delete", ids=["1"], options={"hard": True})
        assert counts(gone) == (1, 0, 0)
        await until(lambda: not runtime.cleaner._held)
        assert (root / "both.jpg").exists()
