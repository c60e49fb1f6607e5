"""A resource made in Python in a whole house: judged like rows of a table, and never trusted to behave."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from bulkops import Batch, Bulkops, Item, Scope, action
from bulkops.errors import ConfigError, Refusal
from bulkops.models import Caller, ItemsQuery, Preview, UndoBody, ValidateBody
from bulkops.resources.contract import Query
from bulkops.service.service import Service
from tests.custom.shelf import Shelf
from tests.engine_house import OWNER, counts, outcomes, rested, run, undo
from tests.store_house import a_caller


@asynccontextmanager
async def shelved(folder: Path, shelf: Any, **settings: Any) -> AsyncIterator[Bulkops]:
    bulk = Bulkops({"server": {"workers": 2}}, base=folder)
    bulk.resource("boxes", shelf, **settings)
    async with bulk.lifespan():
        yield bulk


def service(bulk: Bulkops) -> Service:
    return bulk.runtime.service


async def listed(bulk: Bulkops, caller: Caller = OWNER, **query: Any) -> list[str]:
    found = await service(bulk).items(caller, "boxes", ItemsQuery(**query))
    return [each["id"] for each in found["items"]]


async def preview(bulk: Bulkops, caller: Caller = OWNER, **body: Any) -> Preview:
    wanted = {"action": "delete", **body}
    return await service(bulk).validate(caller, "boxes", msgspec.convert(wanted, ValidateBody))


async def test_filters_search_sorting_and_pages_are_those_of_tables(tmp_path: Path) -> None:
    shelf = Shelf(12)
    shelf.boxes["b3"]["owner"] = None
    shelf.boxes["b5"]["owner"] = "Zoë 100%"
    async with shelved(tmp_path, shelf) as bulk:
        assert await listed(bulk, filter={"size": {"lte": "3"}}) == ["b1", "b2", "b3"]
        assert await listed(bulk, filter={"size": [1, 12]}, sort="-size") == ["b12", "b1"]
        assert await listed(bulk, filter={"owner": None}) == ["b3"]
        assert await listed(bulk, filter={"owner": {"like": "zo%"}}) == ["b5"]
        assert await listed(bulk, q="100%") == ["b5"]
        page = await service(bulk).items(OWNER, "boxes", ItemsQuery(limit=5, sort="-size"))
        assert [each["id"] for each in page["items"]] == ["b12", "b11", "b10", "b9", "b8"]
        assert (page["total"], page["total_capped"]) == (12, False)
        shelf.boxes.pop("b8")
        more = ItemsQuery(limit=5, sort="-size", page=page["next"])
        page = await service(bulk).items(OWNER, "boxes", more)
        assert [each["id"] for each in page["items"]] == ["b7", "b6", "b5", "b4", "b3"]
        for wrong in ({"weight": 1}, {"size": {"above": 1}}, {"owner": {"like": 3}}):
            with pytest.raises(Refusal, match="/filter/"):
                await listed(bulk, filter=wrong)
        job = await run(bulk.runtime, "boxes", "delete", filter={"size": {"gte": 10}})
        assert counts(job) == (3, 0, 0)
        assert sorted(shelf.boxes) == sorted(f"b{n}" for n in (1, 2, 3, 4, 5, 6, 7, 9))


async def test_what_is_protected_busy_or_unfit_is_left_alone_with_its_reason(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.kept = {"b1"}
    settings = {"protect": {"size": 2}, "status": {"column": "owner", "busy": ["moving"]}}
    shelf.boxes["b3"]["owner"] = "moving"
    async with shelved(tmp_path, shelf, **settings) as bulk:
        seen = await preview(bulk, all=True)
        assert (seen.matched, seen.eligible_count) == (8, 5)
        assert [(each.id, each.code, each.reason) for each in seen.ineligible] == [
            ("b1", "INELIGIBLE", "it is kept from delete"),
            ("b2", "PROTECTED", "it is protected: size is 2"),
            ("b3", "INELIGIBLE", "its owner is moving"),
        ]
        rows = (await service(bulk).items(OWNER, "boxes", ItemsQuery()))["items"]
        codes = {each["id"]: each["code"] for each in rows}
        assert codes == {f"b{n}": None for n in range(1, 9)} | {
            "b1": "INELIGIBLE", "b2": "PROTECTED", "b3": "INELIGIBLE"
        }  # fmt: skip
        info = await service(bulk).info(OWNER, "boxes")
        assert info["counts"] == {"total": 8, "by_status": {"ana": 7, "moving": 1}, "deleted": None}
        job = await run(bulk.runtime, "boxes", "delete", all=True)
        assert counts(job) == (5, 0, 3)
        assert sorted(shelf.boxes) == ["b1", "b2", "b3"]


async def test_a_tenant_sees_and_deletes_his_own_only(tmp_path: Path) -> None:
    shelf = Shelf()
    for box in ("b2", "b4"):
        shelf.boxes[box]["owner"] = "zoe"
    shelf.boxes["b6"]["owner"] = None
    async with shelved(tmp_path, shelf, tenant="owner") as bulk:
        zoe = a_caller("zoe", "admin", "zoe")
        assert await listed(bulk, zoe) == ["b2", "b4"]
        assert (await service(bulk).info(zoe, "boxes"))["counts"]["total"] == 2
        seen = await preview(bulk, zoe, ids=["b1", "b2", "b6"])
        assert [(each.id, each.code) for each in seen.ineligible] == [
            ("b1", "NOT_FOUND"),
            ("b6", "NOT_FOUND"),
        ]
        assert counts(await run(bulk.runtime, "boxes", "delete", caller=zoe, ids=["b1", "b2", "b6"])) == (
            1,
            0,
            2,
        )
        # Between selection and its turn a box becomes somebody else's.
        job = await run(
            bulk.runtime, "boxes", "delete", caller=a_caller("ana", "admin", "ana"), all=True, canary=1
        )
        shelf.boxes["b3"]["owner"] = "zoe"
        await service(bulk).resume(OWNER, job.id)
        assert counts(await rested(bulk.runtime, job.id)) == (4, 0, 1)
        assert sorted(shelf.boxes) == ["b3", "b4", "b6"]


async def test_options_roles_and_finality_are_those_of_the_decorator(tmp_path: Path) -> None:
    shelf = Shelf()
    over = {"weigh": {"roles": ["operator"], "confirm": "WEIGH"}}
    async with shelved(tmp_path, shelf, actions=over) as bulk:
        (described,) = await service(bulk).catalog(OWNER)
        actions = {each["name"]: each for each in described["actions"]}
        assert {name: each["reversible"] for name, each in actions.items()} == {
            "delete": True, "resize": True, "weigh": False
        }  # fmt: skip
        assert actions["resize"]["options"]["properties"]["to"]["minimum"] == 0
        assert (actions["weigh"]["roles"], actions["weigh"]["confirm"]) == (["operator"], "WEIGH")
        assert (actions["delete"]["batch_size"], actions["resize"]["batch_size"]) == (3, 20)
        with pytest.raises(Refusal, match="/options/to"):
            await run(bulk.runtime, "boxes", "resize", all=True, options={"to": -1})
        with pytest.raises(Refusal, match="/atomic"):
            await run(bulk.runtime, "boxes", "resize", all=True, atomic=True)
        job = await run(bulk.runtime, "boxes", "resize", all=True, options={"to": 77})
        assert {box["size"] for box in shelf.boxes.values()} == {77}
        assert (await undo(bulk.runtime, job.id)).outcome == "ok"
        assert [box["size"] for box in shelf.boxes.values()] == list(range(1, 9))


async def test_the_trash_lists_what_was_deleted_and_an_undo_yields_to_what_stands_there(
    tmp_path: Path,
) -> None:
    shelf = Shelf()
    async with shelved(tmp_path, shelf) as bulk:
        job = await run(bulk.runtime, "boxes", "delete", ids=["b1", "b2", "b3"])
        trash = await service(bulk).trash(OWNER, q=None, limit=10, page=None)
        assert sorted((each.id, each.label) for each in trash["items"]) == [
            ("b1", "ana"),
            ("b2", "ana"),
            ("b3", "ana"),
        ]
        shelf.boxes["b2"] = {"owner": "new", "size": 0}
        undone = await undo(bulk.runtime, job.id)
        assert counts(undone) == (2, 0, 1)
        assert await outcomes(bulk.runtime, undone.id) == {
            "b1": "succeeded", "b2": "skipped CONFLICT", "b3": "succeeded"
        }  # fmt: skip
        assert shelf.boxes["b2"] == {"owner": "new", "size": 0}
        assert shelf.boxes["b3"] == {"owner": "ana", "size": 3}


async def test_rows_of_any_kind_come_back_with_the_undo(tmp_path: Path) -> None:
    shelf = Shelf(1)
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    odd = {"at": at, "blob": b"\0\xff", "nested": {"a": [1, None, 2.5]}, "text": "é\n", "none": None}
    huge = {"number": 2**70, "lone": "\ud800", "decimal": Decimal("1.50")}
    shelf.boxes = {"odd": dict(odd), "huge": dict(huge)}
    async with shelved(tmp_path, shelf) as bulk:
        assert len(await listed(bulk)) == 2
        job = await run(bulk.runtime, "boxes", "delete", all=True)
        assert counts(job) == (2, 0, 0)
        assert (await undo(bulk.runtime, job.id)).outcome == "ok"
    assert shelf.boxes["odd"] == odd
    assert shelf.boxes["huge"] == {"number": str(2**70), "lone": "?", "decimal": "1.50"}


class Plain:
    """The least there is, in plain functions: rows in a database that is open for the length of a walk."""

    columns: ClassVar = {"at": datetime}

    def __init__(self, path: str) -> None:
        self._path = path
        self.threads: set[int] = set()
        self.main = threading.get_ident()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t (id TEXT, at TEXT)")
        connection.close()

    def select(self, scope: Scope) -> Iterator[Item]:
        connection = sqlite3.connect(self._path)
        try:
            for box, at in connection.execute("SELECT id, at FROM t"):
                self.threads.add(threading.get_ident())
                yield Item(box, {"at": datetime.fromisoformat(at)})
        finally:
            connection.close()

    def read(self, ids: Sequence[str]) -> Iterator[Item]:
        return (item for item in self.select(Scope()) if item.id in ids)

    @action
    def look(self, batch: Batch) -> None:
        """Look, and touch nothing."""


async def test_a_plain_walk_stays_in_a_thread_of_its_own_with_all_it_opens(tmp_path: Path) -> None:
    thing = Plain(str(tmp_path / "t.db"))
    with sqlite3.connect(tmp_path / "t.db") as connection:
        rows = [(f"r{n}", f"2026-01-{n % 28 + 1:02d}T00:00:00+00:00") for n in range(3_500)]
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
    connection.close()
    async with shelved(tmp_path, thing) as bulk:
        job = await run(bulk.runtime, "boxes", "look", all=True, batch_size=1_000)
        assert counts(job) == (3_500, 0, 0)
        assert thing.main not in thing.threads
        seen = await preview(bulk, action="look", filter={"at": {"lt": "2026-01-02T00:00:00Z"}})
        assert seen.matched == sum(at.startswith("2026-01-01") for _, at in rows)
        assert (await preview(bulk, action="look", filter={"at": {"lt": "-1d"}})).matched == 3_500


class Troubled(Shelf):
    """Does what a host's class may do wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: Any = None
        self.told: list[str] = []

    def select(self, scope: Scope) -> Iterator[Any]:
        for item in super().select(scope):
            if self.trouble is not None:
                if isinstance(self.trouble, BaseException):
                    raise self.trouble
                yield self.trouble
            yield item

    async def open(self) -> None:
        self.told.append("open")

    def close(self) -> None:
        self.told.append("close")


@pytest.mark.parametrize(
    "trouble",
    [
        RuntimeError("secret"),
        StopIteration(),
        SystemExit("secret"),
        {"id": "b1"},
        Item("", {}),
        Item("x\0", {}),
        Item("b", None),  # type: ignore[arg-type]  # wrong on purpose
    ],
    ids=repr,
)
async def test_a_walk_that_goes_wrong_refuses_the_request_and_the_house_goes_on(
    trouble: Any, tmp_path: Path
) -> None:
    thing = Troubled()
    async with shelved(tmp_path, thing) as bulk:
        thing.trouble = trouble
        for ask in (listed(bulk), preview(bulk, all=True), run(bulk.runtime, "boxes", "delete", all=True)):
            with pytest.raises(Refusal) as refused:
                await ask
            assert refused.value.code == "QUEUE_FULL"
            assert "secret" not in str(refused.value)
        thing.trouble = None
        assert counts(await run(bulk.runtime, "boxes", "delete", all=True)) == (8, 0, 0)
    assert thing.told == ["open", "close"]


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_an_action_that_would_end_the_process_costs_its_batch(kind: str, tmp_path: Path) -> None:
    class Fatal(Shelf):
        @action(retries=0)
        async def burn(self, batch: Batch) -> None:
            sys.exit("enough")

        @action(retries=0)
        def burn_plainly(self, batch: Batch) -> None:
            sys.exit("enough")

        async def read(self, ids: Sequence[str]) -> Iterable[Item]:  # type: ignore[override]  # the shelf's need not wait
            if self.stuck:
                sys.exit("enough")
            return super().read(ids)

    shelf = Fatal()
    async with shelved(tmp_path, shelf) as bulk:
        job = await run(bulk.runtime, "boxes", "burn" if kind == "async" else "burn_plainly", all=True)
        assert counts(job) == (0, 8, 0)
        assert job.last_error is not None
        assert (job.last_error.code, job.last_error.message) == (
            "ACTION_ERROR",
            "the action raised SystemExit",
        )
        shelf.stuck = {"b1"}
        with pytest.raises(Refusal):
            await preview(bulk, ids=["b1"])
        shelf.stuck = set()
        assert counts(await run(bulk.runtime, "boxes", "weigh", all=True)) == (8, 0, 0)


async def test_a_freeze_that_goes_wrong_pauses_the_job_until_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing = Troubled()
    thing.boxes = {f"b{n}": {"owner": "ana", "size": n} for n in range(1_200)}
    monkeypatch.setattr("bulkops.runner._TRIES", {"IO_ERROR": 0})
    async with shelved(tmp_path, thing) as bulk:
        # More than acceptance freezes by itself; what goes wrong later is the freezer's to tell.
        resource = bulk.runtime.house.resources["boxes"]
        sound = resource.manifest

        def manifest(query: Query) -> Any:
            thing.trouble = RuntimeError("not now")
            return sound(query)

        monkeypatch.setattr(resource, "manifest", manifest)
        job = await run(bulk.runtime, "boxes", "weigh", all=True)
        assert (job.status, job.status_reason and job.status_reason.code) == ("paused", "IO_ERROR")
        thing.trouble = None
        monkeypatch.setattr(resource, "manifest", sound)
        await service(bulk).resume(OWNER, job.id)
        assert counts(await rested(bulk.runtime, job.id)) == (1_200, 0, 0)


async def test_an_item_named_twice_by_a_list_that_shifts_is_done_once(tmp_path: Path) -> None:
    class Shifting(Shelf):
        def select(self, scope: Scope) -> Iterator[Item]:
            yield from super().select(scope)
            yield from super().select(scope)

    for count in (8, 1_500):  # within one piece of the walk, and across
        async with shelved(tmp_path, Shifting(count)) as bulk:
            assert (await preview(bulk, action="weigh", all=True)).matched == count
            job = await run(bulk.runtime, "boxes", "weigh", all=True, batch_size=500)
            assert counts(job) == (count, 0, 0)


async def test_what_cannot_connect_is_unreachable_and_tried_again(tmp_path: Path) -> None:
    class Away(Shelf):
        is_there = False

        def open(self) -> None:
            if not self.is_there:
                raise ConnectionRefusedError("secret:5432")

    thing = Away()
    async with shelved(tmp_path, thing) as bulk:
        with pytest.raises(Refusal, match="cannot be reached now"):
            await listed(bulk)
        thing.is_there = True
        assert len(await listed(bulk)) == 8


async def test_a_method_that_hangs_costs_a_deadline_and_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Shelf):
        async def read(self, ids: Sequence[str]) -> Iterable[Item]:  # type: ignore[override]  # the shelf's need not wait
            if hang.is_set():
                await asyncio.Event().wait()
            return super().read(ids)

    hang = asyncio.Event()
    monkeypatch.setattr("bulkops.resources.custom.asking.PATIENCE_S", 0.05)
    monkeypatch.setattr("bulkops.runner._TRIES", {"IO_ERROR": 0})
    async with shelved(tmp_path, Slow()) as bulk:
        job = await run(bulk.runtime, "boxes", "delete", all=True, canary=1)
        hang.set()
        await service(bulk).resume(OWNER, job.id)
        job = await rested(bulk.runtime, job.id)
        assert job.status_reason is not None
        assert job.status_reason.message == "read of boxes took longer than 0.05 s"
        hang.clear()
        await service(bulk).resume(OWNER, job.id)
        assert counts(await rested(bulk.runtime, job.id)) == (8, 0, 0)


async def test_ids_are_read_as_the_author_says(tmp_path: Path) -> None:
    class Named(Shelf):
        def parse_id(self, text: str) -> str:
            if text == "bug":
                raise KeyError(text)
            if not text.lower().startswith("b"):
                raise ValueError("a box begins with b")
            return text.lower()

    async with shelved(tmp_path, Named()) as bulk:
        assert (await preview(bulk, ids=["B1", "b1"])).duplicates == 1
        for wrong in ("c1", "bug"):
            with pytest.raises(Refusal, match="/ids/0"):
                await preview(bulk, ids=[wrong])


async def test_further_actions_of_the_host_go_along_and_may_not_stand_twice(tmp_path: Path) -> None:
    shelf = Shelf()
    bulk = Bulkops({"server": {}}, base=tmp_path)
    bulk.resource("boxes", shelf)

    @bulk.action("boxes", "archive")
    def archive(batch: Batch) -> None:
        for item in batch:
            shelf.boxes[item.id]["owner"] = f"archive of {item.row['owner']}"

    async with bulk.lifespan():
        assert counts(await run(bulk.runtime, "boxes", "archive", ids=["b1"])) == (1, 0, 0)
    assert shelf.boxes["b1"]["owner"] == "archive of ana"

    bulk = Bulkops({"server": {}}, base=tmp_path)
    bulk.resource("boxes", shelf)
    bulk.action("boxes", "delete")(archive)
    with pytest.raises(ConfigError, match=r"action boxes\.delete"):
        async with bulk.lifespan():
            pass


async def test_an_undo_whose_images_are_gone_reports_conflicts(tmp_path: Path) -> None:
    shelf = Shelf()
    async with shelved(tmp_path, shelf) as bulk:
        job = await run(bulk.runtime, "boxes", "delete", all=True)
        await bulk.runtime.store.write(lambda tx: tx.connection.execute("DELETE FROM trash").rowcount)
        view, _ = await service(bulk).undo(OWNER, job.id, UndoBody())
        assert counts(await rested(bulk.runtime, view.id)) == (0, 0, 8)


async def test_a_house_in_code_says_what_is_wrong_where_it_is_declared(tmp_path: Path) -> None:
    bulk = Bulkops({"server": {}}, base=tmp_path)

    @bulk.resource("boxes", label="size")
    class Mine(Shelf):
        pass

    assert bulk.settings.resources["boxes"].kind == f"{__name__}:Mine"
    for name, thing, settings, message in (
        ("boxes", Mine, {}, "there is a resource of that name already"),
        ("a/b", Mine, {}, "cannot stand in a URL"),
        ("other", Mine, {"labl": "x"}, 'unknown key; did you mean "label"'),
        ("other", Mine, {"database": "app.db"}, "knows no 'database'"),
        ("other", Mine(), {"settings": {"count": 3}}, "is no class"),
        ("other", Mine, {"settings": {"cont": 3}}, "cannot make"),
    ):
        if isinstance(thing, Mine) and "settings" in settings:
            continue
        with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
            bulk.resource(name, thing, **settings)
    async with bulk.lifespan():
        with pytest.raises(ConfigError, match="before its lifespan"):
            bulk.resource("late", Mine)
