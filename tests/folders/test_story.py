"""The story of the dossiers, told over HTTP to the whole application."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

from tests.engine_house import settings_for
from tests.folders.house import DOSSIERS, make_dossier, tree_of
from tests.test_stories import Person, town_of


async def lines(person: Person, job: str) -> list[str]:
    answer = await person.get(f"/api/jobs/{job}/log")
    assert answer.status_code == 200
    return [json.loads(line)["msg"] for line in answer.text.splitlines()]


async def test_dossiers_go_one_by_one_and_in_bulk_on_the_same_path(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    for number in range(30):
        make_dossier(root, f"D-{number:03}", {f"page{each}.jpg": b"\xff\xd8" * 500 for each in range(4)})
    before = tree_of(root)
    settings = settings_for(tmp_path, {"dossiers": DOSSIERS})
    async with town_of(settings) as town:
        person = await town.person("admin", tenant="acme")

        answer = await person.get("/api/bulk/dossiers/items", q="D-00", sort="-name", limit=5)
        listed = answer.json()
        assert (listed["total"], [each["id"] for each in listed["items"]][:2]) == (10, ["D-009", "D-008"])
        assert listed["items"][0]["row"]["files"] == 4

        single = await person.send("DELETE", "/api/bulk/dossiers/items/D-007", headers={"Prefer": "wait=5"})
        assert single.status_code in (200, 202), single.text
        single_job = await person.rested(single.json()["id"])
        assert (single_job["total"], single_job["succeeded"]) == (1, 1)
        assert (await person.undo(single_job["id"]))["succeeded"] == 1
        assert tree_of(root) == before

        ids = [f"D-{number:03}" for number in range(24)] + ["D-missing"]
        preview = (await person.post("/api/bulk/dossiers/validate", {"action": "purge", "ids": ids})).json()
        assert (preview["matched"], preview["eligible_count"]) == (25, 24)
        assert preview["impact"] == {"rows": {}, "files": 96, "bytes": 96_000}
        job = await person.run("dossiers/purge", ids=ids)
        assert (job["status"], job["outcome"]) == ("completed", "ok")
        assert (job["succeeded"], job["failed"], job["skipped"]) == (24, 0, 1)
        assert sorted(os.listdir(root)) == [f"D-{number:03}" for number in range(24, 30)]
        assert job["undo_until"] is None

        told = await lines(person, job["id"])
        shown = ", ".join(ids[:20])
        assert told[0] == f"BULK_JOB_START job={job['id']} total=25 ids=[{shown}, …]"
        purges = [line.split() for line in told if line.startswith("BULK_PURGE_")]
        assert sorted(each[1] for each in purges if each[0] == "BULK_PURGE_START") == [
            f"dossier={item}" for item in ids[:-1]
        ]
        done = [each for each in purges if each[0] == "BULK_PURGE_DONE"]
        assert len(done) == 24
        assert all(each[2].startswith("ms=") for each in done)
        assert told[-3].startswith(
            f"PURGE_SUMMARY job={job['id']} total=25 deleted=24 missing=1 failed=0 ms="
        )
        assert told[-2] == f"BULK_JOB_DONE job={job['id']} status=completed outcome=ok"
        assert told[-1].startswith(f"BULK_JOB_SUMMARY job={job['id']} total=25 deleted=24 failed=0 ms=")

        history = (await person.get("/api/bulk/dossiers/items/D-007/history")).json()["items"]
        assert [each["action"] for each in history][:2] == ["purge", "delete"]

        deleted = await person.run("dossiers/delete", all=True)
        assert os.listdir(root) == []
        words = [line.split() for line in await lines(person, deleted["id"])]
        gone = {f"dossier=D-{number:03}" for number in range(24, 30)}
        for event in ("BULK_PURGE_START", "BULK_PURGE_DONE"):
            assert {each[1] for each in words if each[0] == event} == gone
        trash = (await person.get("/api/trash", q="D-02")).json()["items"]
        assert sorted(each["id"] for each in trash) == [f"D-{number:03}" for number in range(24, 30)]
        back = await person.undo(deleted["id"], ids=["D-025"])
        assert back["succeeded"] == 1
        assert {path: look for path, look in before.items() if path.startswith("D-025")} == tree_of(root)


async def test_an_archive_is_downloaded_and_holds_the_dossiers(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    for name in ("ana", "ben"):
        make_dossier(root, name)
    async with town_of(settings_for(tmp_path, {"dossiers": DOSSIERS})) as town:
        person = await town.person("operator")
        job = await person.run("dossiers/archive", all=True)
        assert [each["status"] for each in job["artifacts"]] == ["ready"]
        answer = await person.get(job["artifacts"][0]["download_url"])
        assert answer.status_code == 200
        with zipfile.ZipFile(io.BytesIO(answer.content)) as made:
            assert made.testzip() is None
            assert made.read("ana/sub/b.txt") == b"text"
