"""Lists, previews and selections of a folder's entries."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bulkops.errors import Refusal
from bulkops.models import ItemsQuery, ValidateBody
from bulkops.resources.folder import browsing
from bulkops.runtime import Runtime
from tests.engine_house import OWNER, counts, outcomes, rested, run, undo
from tests.folders.house import dossiers, make_dossier
from tests.store_house import a_caller

ODD = [b"a,b", b"new\nline", b"50%", b"-rf", b"\xff\xfe", "später".encode(), b" blank ", "\u202edr".encode()]


async def listed(runtime: Runtime, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = None
    while True:
        answer = await runtime.service.items(OWNER, "dossiers", ItemsQuery(page=page, **query))
        found += answer["items"]
        page = answer["next"]
        if page is None:
            assert answer["total"] == len(found)
            return found


def furnish(root: Path) -> None:
    make_dossier(root, "ana", {"a": b"x" * 10, "sub/b": b"y" * 5})
    make_dossier(root, "ben", {"c": b""})
    (root / "big.pdf").write_bytes(b"z" * 1000)
    (root / "small.pdf").write_bytes(b"z")
    (root / "link").symlink_to("ana")
    (root / ".bulkops-leftover.part").mkdir()
    os.utime(root / "big.pdf", (1_500_000_000, 1_500_000_000))


async def test_a_list_shows_kinds_sizes_counts_and_what_cannot_be_touched(tmp_path: Path) -> None:
    (tmp_path / "dossiers_data").mkdir()
    furnish(tmp_path / "dossiers_data")
    async with dossiers(tmp_path) as runtime:
        found = {each["id"]: each for each in await listed(runtime)}
    assert list(found) == ["ana", "ben", "big.pdf", "link", "small.pdf"]
    rows = {
        item: (each["row"]["kind"], each["row"]["size"], each["row"]["files"]) for item, each in found.items()
    }
    assert rows == {
        "ana": ("folder", 15, 2),
        "ben": ("folder", 0, 1),
        "big.pdf": ("file", 1000, 1),
        "link": ("link", None, None),
        "small.pdf": ("file", 1, 1),
    }
    assert found["big.pdf"]["row"]["mtime"] == "2017-07-14T02:40:00.000Z"
    assert {item: each["code"] for item, each in found.items() if not each["eligible"]} == {
        "link": "INELIGIBLE"
    }


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"filter": {"name": "ana"}}, ["ana"]),
        ({"filter": {"name": ["ana", "ben"]}}, ["ana", "ben"]),
        ({"filter": {"name": {"like": "%.pdf"}}}, ["big.pdf", "small.pdf"]),
        ({"filter": {"kind": "folder"}}, ["ana", "ben"]),
        ({"filter": {"size": {"gt": 100}}}, ["big.pdf"]),
        ({"filter": {"mtime": {"lt": "2020-01-01"}}}, ["big.pdf"]),
        ({"filter": {"mtime": {"gte": "-1h"}, "kind": "file"}}, ["small.pdf"]),
        ({"q": "AN"}, ["ana"]),
        ({"q": "file"}, []),
        ({"sort": "-name"}, ["small.pdf", "link", "big.pdf", "ben", "ana"]),
        ({"sort": "size", "filter": {"kind": "file"}}, ["small.pdf", "big.pdf"]),
    ],
)
async def test_filters_searches_and_orders(tmp_path: Path, query: dict[str, Any], wanted: list[str]) -> None:
    (tmp_path / "dossiers_data").mkdir()
    furnish(tmp_path / "dossiers_data")
    async with dossiers(tmp_path) as runtime:
        assert [each["id"] for each in await listed(runtime, limit=2, **query)] == wanted


async def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    async with dossiers(tmp_path) as runtime:
        for query in ({"filter": {"odd": "link"}}, {"sort": "files"}, {"deleted": True}):
            with pytest.raises(Refusal) as caught:
                await listed(runtime, **query)
            assert caught.value.status == 422
        with pytest.raises(Refusal) as caught:
            await run(runtime, "dossiers", "delete", all=True, atomic=True)
        assert caught.value.extra["errors"][0]["pointer"] == "/atomic"
        with pytest.raises(Refusal) as caught:
            await run(runtime, "dossiers", "purge", all=True, options={"hard": True})
        assert caught.value.extra["errors"][0]["pointer"] == "/options/hard"
        with pytest.raises(Refusal):
            await run(runtime, "dossiers", "purge", ids=["../x"])


async def test_hostile_names_are_items_like_any_other(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    for name in ODD:
        make_dossier(root, name)
    async with dossiers(tmp_path) as runtime:
        ids = [each["id"] for each in await listed(runtime)]
        assert len(ids) == len(ODD)
        job = await run(runtime, "dossiers", "delete", ids=ids)
        assert counts(job) == (len(ODD), 0, 0)
        assert os.listdir(root) == []
        back = await undo(runtime, job.id)
        assert counts(back) == (len(ODD), 0, 0)
        assert sorted(os.listdir(os.fsencode(root))) == sorted(ODD)
        assert counts(await run(runtime, "dossiers", "purge", all=True)) == (len(ODD), 0, 0)
    assert os.listdir(root) == []


async def test_a_filter_is_held_against_each_item_again(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    for number in range(4):
        make_dossier(root, f"d{number}")
        os.utime(root / f"d{number}", (1_500_000_000, 1_500_000_000))
    async with dossiers(tmp_path) as runtime:
        job = await run(
            runtime, "dossiers", "purge", filter={"mtime": {"lt": "2020-01-01"}}, batch_size=2, canary=2
        )
        assert job.status == "paused"
        (root / "d3" / "new.txt").write_bytes(b"")  # it is not old any more
        await runtime.service.resume(OWNER, job.id)
        job = await rested(runtime, job.id)
        assert await outcomes(runtime, job.id) == {
            "d0": "succeeded",
            "d1": "succeeded",
            "d2": "succeeded",
            "d3": "skipped CONFLICT",
        }
    assert os.listdir(root) == ["d3"]


async def test_a_preview_adds_up_files_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "dossiers_data").mkdir()
    furnish(tmp_path / "dossiers_data")
    async with dossiers(tmp_path) as runtime:
        ask = ValidateBody(action="purge", ids=["ana", "big.pdf", "link", "nobody"])
        preview = await runtime.service.validate(OWNER, "dossiers", ask)
        assert (preview.matched, preview.eligible_count) == (4, 2)
        assert (preview.impact.files, preview.impact.bytes) == (3, 1015)
        assert {each.code for each in preview.warnings} == {"FINAL"}
        assert {each.id: each.code for each in preview.ineligible} == {
            "link": "INELIGIBLE",
            "nobody": "NOT_FOUND",
        }
        everything = await runtime.service.validate(
            OWNER, "dossiers", ValidateBody(action="delete", all=True)
        )
        assert (everything.impact.files, everything.impact.bytes) == (5, 1016)
        assert not everything.warnings


async def test_a_preview_that_takes_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dossiers_data").mkdir()
    furnish(tmp_path / "dossiers_data")
    monkeypatch.setattr(browsing, "measure_tree", lambda *_, **__: None)
    async with dossiers(tmp_path) as runtime:
        preview = await runtime.service.validate(OWNER, "dossiers", ValidateBody(action="delete", all=True))
        assert (preview.impact.files, preview.impact.bytes) == (None, None)
        assert [each.code for each in preview.warnings] == ["IMPACT_PARTIAL"]
        row = (await listed(runtime))[0]["row"]
        assert (row["size"], row["files"]) == (None, None)


async def test_the_resource_describes_itself(tmp_path: Path) -> None:
    (tmp_path / "dossiers_data").mkdir()
    furnish(tmp_path / "dossiers_data")
    async with dossiers(tmp_path) as runtime:
        info = await runtime.service.info(OWNER, "dossiers")
        assert (info["kind"], info["shared"], info["tenanted"]) == ("folder", True, False)
        assert [each["name"] for each in info["actions"]] == ["delete", "purge", "archive"]
        assert info["counts"] == {
            "total": 5,
            "by_status": {"file": 2, "folder": 2, "link": 1},
            "deleted": 0,
        }
        operator = await runtime.service.catalog(a_caller(role="operator", tenant="acme"))
        assert [each["name"] for each in operator[0]["actions"]] == ["delete", "archive"]


async def test_a_root_that_is_not_shared_is_hidden_from_tenants(tmp_path: Path) -> None:
    async with dossiers(tmp_path, shared=False) as runtime:
        assert await runtime.service.catalog(a_caller(tenant="acme")) == []
        with pytest.raises(Refusal) as caught:
            await runtime.service.info(a_caller(tenant="acme"), "dossiers")
        assert caught.value.code == "NOT_FOUND"
