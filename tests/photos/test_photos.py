"""What jobs on photo projects do to rows and files, action by action, with real files and a real database."""

from __future__ import annotations

import os
import sqlite3
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from bulkops import Bulkops
from bulkops.configuration import load
from bulkops.errors import ConfigError, Refusal
from bulkops.models import Caller, JobsQuery, JobView, StartBody, TaskBody, UndoBody, ValidateBody
from bulkops.resources.photos import tasks
from bulkops.resources.photos.chores import CHORES
from bulkops.runtime import Runtime, open_runtime
from tests.photos.studio import CONFIG, Studio, damaged, samples
from tests.test_readme import README, table

OWNER = Caller(user="ana", roles=frozenset({"owner"}))


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


@pytest.fixture
async def house(studio: Studio) -> AsyncIterator[Runtime]:
    async with open_runtime(load(studio.folder / "bulkops.toml", {})) as runtime:
        yield runtime


async def ended(house: Runtime, job: JobView) -> JobView:
    with anyio.fail_after(20):
        return await house.service.job(OWNER, job.id, wait_s=20)


async def run(house: Runtime, action: str, *, caller: Caller = OWNER, **body: Any) -> JobView:
    """Start a job by hand and wait for its end; on project ``p`` unless the body says which items."""
    if not {"ids", "filter", "all"} & set(body):
        body = {"all": True, "options": {"project": "p"} | body.pop("options", {}), **body}
    return await ended(house, await house.service.start(caller, "photos", action, StartBody(**body)))


async def undone(house: Runtime, job: JobView, ids: list[str | int] | None = None) -> JobView:
    fresh, _ = await house.service.undo(OWNER, job.id, UndoBody(ids=ids))
    return await ended(house, fresh)


async def outcomes(house: Runtime, job: JobView) -> dict[str, tuple[str, str | None]]:
    page = await house.service.job_items(OWNER, job.id, limit=1000)
    return {item.id: (item.outcome, item.code) for item in page["items"]}


async def messages(house: Runtime, job: JobView) -> list[str]:
    page = await house.service.job_items(OWNER, job.id, limit=1000)
    return [item.message for item in page["items"] if item.message]


def counts(job: JobView) -> tuple[int, int, int]:
    return job.succeeded, job.failed, job.skipped


# --- file_removal and its undo ---------------------------------------------------------------------


async def test_only_what_is_not_kept_goes_and_comes_back_byte_for_byte(
    studio: Studio, house: Runtime
) -> None:
    studio.put("p", "A.JPG", b"a jpg")
    studio.put("p", "A.CR2", b"a raw")
    studio.put("p", "b.jpeg", b"b jpg")
    studio.put("p", "b.NEF", b"b raw")
    studio.put("p/.thumb", "A.jpg", b"thumb")
    studio.put("p/.thumb", "b.jpg", b"thumb")
    os.utime(studio.projects / "p" / "A.JPG", ns=(1, 1_000_000_007))
    a = studio.add("p", "A", keep_jpg=0, raw_available=1)
    b = studio.add("p", "b", keep_raw=0, raw_available=1)
    studio.add("p", "kept", raw_available=1)
    before, rows = studio.bytes_of("p"), studio.rows()
    job = await run(house, "file_removal")
    assert (job.total, counts(job), job.project) == (2, (2, 0, 0), "p")
    assert studio.names("p") == ["A.CR2", "b.jpeg"]
    assert studio.names("p", ".trash") == ["A.JPG", "b.NEF"]
    assert studio.names("p", ".thumb") == ["b.jpg"], "what a photo keeps its JPG for stays"
    assert (studio.row("p", "A"), studio.row("p", "b")) == ((0, 0, 1, 1), (1, 1, 0, 0))
    assert oct((studio.projects / "p" / ".trash").stat().st_mode & 0o777) == "0o700"
    trash = await house.service.trash(OWNER, limit=10, page=None)
    assert {item.label for item in trash["items"]} == {"p/A", "p/b"}

    half = await undone(house, job, [a])
    assert (half.total, counts(half)) == (1, (1, 0, 0))
    assert studio.names("p", ".trash") == ["b.NEF"]
    rest = await undone(house, job, [b])
    assert counts(rest) == (1, 0, 0)
    assert studio.bytes_of("p") == before
    assert studio.rows() == rows
    assert (studio.projects / "p" / "A.JPG").stat().st_mtime_ns == 1_000_000_007


async def test_a_missing_file_is_no_error_and_a_second_run_has_nothing_to_do(
    studio: Studio, house: Runtime
) -> None:
    studio.put("p", "other.jpg", b"x")
    studio.add("p", "gone", keep_jpg=0)
    job = await run(house, "file_removal")
    assert counts(job) == (1, 0, 0)
    assert studio.row("p", "gone") == (0, 0, 1, 0)
    again = await run(house, "file_removal")
    assert (again.total, again.outcome) == (0, "ok")
    named = await run(house, "file_removal", ids=[1])
    assert await outcomes(house, named) == {"1": ("skipped", "ALREADY_DONE")}


async def test_a_project_without_a_folder_loses_nothing(studio: Studio, house: Runtime) -> None:
    studio.add("nowhere", "x", keep_jpg=0)
    job = await run(house, "file_removal", all=True)
    assert counts(job) == (1, 0, 0)
    assert not (studio.projects / "nowhere").exists()


async def test_other_projects_are_not_touched(studio: Studio, house: Runtime) -> None:
    for project in ("p", "q"):
        studio.put(project, "x.jpg", project.encode())
        studio.add(project, "x", keep_jpg=0)
    job = await run(house, "file_removal", ids=[1, 2], options={"project": "p"})
    assert await outcomes(house, job) == {"1": ("succeeded", None), "2": ("skipped", "INELIGIBLE")}
    assert (studio.names("p"), studio.names("q")) == ([], ["x.jpg"])


async def test_what_is_in_the_trash_is_never_overwritten(studio: Studio, house: Runtime) -> None:
    jobs = []
    for content in (b"first", b"second", b"third"):
        studio.put("p", "x.JPG", content)
        studio.sql("DELETE FROM photos")
        studio.add("p", "x", keep_jpg=0)
        jobs.append(await run(house, "file_removal"))
    assert studio.names("p", ".trash") == ["x.JPG", "x~2.JPG", "x~3.JPG"]
    back = await undone(house, jobs[1])
    assert counts(back) == (1, 0, 0)
    assert (studio.projects / "p" / "x.JPG").read_bytes() == b"second"
    blocked = await undone(house, jobs[0])
    assert await outcomes(house, blocked) == {"1": ("skipped", "CONFLICT")}
    assert (studio.projects / "p" / "x.JPG").read_bytes() == b"second"
    assert studio.names("p", ".trash") == ["x.JPG", "x~3.JPG"]


async def test_a_link_in_a_files_place_is_refused_and_its_row_stays(
    studio: Studio, house: Runtime, tmp_path: Path
) -> None:
    victim = tmp_path / "victim.jpg"
    victim.write_bytes(b"precious")
    studio.put("p", "good.jpg", b"x")
    (studio.projects / "p" / "evil.jpg").symlink_to(victim)
    studio.add("p", "evil", keep_jpg=0)
    studio.add("p", "good", keep_jpg=0)
    job = await run(house, "file_removal")
    assert await outcomes(house, job) == {"1": ("failed", "REFUSED_PATH"), "2": ("succeeded", None)}
    assert victim.read_bytes() == b"precious"
    assert studio.row("p", "evil") == (0, 1, 1, 0)


async def test_a_project_that_is_a_link_is_refused_everywhere(
    studio: Studio, house: Runtime, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.jpg").write_bytes(b"precious")
    (studio.projects / "p").symlink_to(outside)
    studio.add("p", "x", keep_jpg=0)
    job = await run(house, "file_removal", ids=[1])
    assert await outcomes(house, job) == {"1": ("failed", "REFUSED_PATH")}
    for action in ("manifest_check", "generate_derivatives", "manifest_cleaning", "upload_postprocess"):
        await run(house, action)
    await run(house, "trash_maintenance", options={"days": 0})
    assert sorted(each.name for each in outside.iterdir()) == ["x.jpg"]
    assert studio.row("p", "x") == (0, 1, 1, 0)


@pytest.mark.parametrize("base", ["../up", "a/b", ".hidden", "", "nul\0", "x" * 300])
async def test_hostile_names_in_rows_fail_alone(studio: Studio, house: Runtime, base: str) -> None:
    studio.put("p", "good.jpg", b"x")
    studio.put("up", "up.jpg", b"precious")
    studio.add("p", base, keep_jpg=0)
    studio.add("p", "good", keep_jpg=0)
    job = await run(house, "file_removal")
    assert counts(job) == (1, 1, 0)
    assert await outcomes(house, job) == {"1": ("failed", "REFUSED_PATH"), "2": ("succeeded", None)}


async def test_hostile_projects_in_rows_fail_alone(studio: Studio, house: Runtime, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"precious")
    for project in ("..", "../..", "/", ".trash", "p/q"):
        studio.add(project, "x", keep_jpg=0)
    job = await run(house, "file_removal", all=True)
    assert counts(job) == (0, 5, 0)
    assert (tmp_path / "x.jpg").read_bytes() == b"precious"


async def test_a_file_that_cannot_be_moved_keeps_its_row(studio: Studio, house: Runtime) -> None:
    studio.put("p", "x.jpg", b"x")
    studio.put("p", ".trash", b"a file in the trash's place")
    studio.add("p", "x", keep_jpg=0)
    job = await run(house, "file_removal")
    assert counts(job) == (0, 1, 0)
    assert studio.row("p", "x") == (0, 1, 1, 0)
    assert studio.names("p") == [".trash", "x.jpg"]


async def test_a_trigger_that_says_no_costs_one_row(studio: Studio, house: Runtime) -> None:
    studio.sql(
        "CREATE TRIGGER keep BEFORE UPDATE ON photos WHEN old.base = 'b' BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
    )
    for base in "abc":
        studio.put("p", f"{base}.jpg", base.encode())
        studio.add("p", base, keep_jpg=0)
    job = await run(house, "file_removal")
    assert await outcomes(house, job) == {
        "1": ("succeeded", None), "2": ("failed", "CONSTRAINT"), "3": ("succeeded", None)
    }  # fmt: skip
    assert studio.names("p") == ["b.jpg"]


async def test_an_undo_puts_rows_back_that_were_cleaned_away(studio: Studio, house: Runtime) -> None:
    studio.put("p", "x.jpg", b"x")
    studio.add("p", "x", keep_jpg=0, stars=5)
    rows = studio.rows()
    removal = await run(house, "file_removal")
    cleaning = await run(house, "manifest_cleaning")
    assert counts(cleaning) == (1, 0, 0)
    assert studio.rows() == []
    assert counts(await undone(house, removal)) == (1, 0, 0)
    assert studio.rows() == rows
    late = await undone(house, cleaning)
    assert await outcomes(house, late) == {"1": ("skipped", "CONFLICT")}
    assert studio.rows() == rows


async def test_an_undo_leaves_a_row_alone_that_was_changed_since(studio: Studio, house: Runtime) -> None:
    studio.put("p", "x.jpg", b"x")
    studio.add("p", "x", keep_jpg=0, stars=1)
    removal = await run(house, "file_removal")
    studio.sql("UPDATE photos SET jpg_available = 7, stars = 2")
    job = await undone(house, removal)
    assert await outcomes(house, job) == {"1": ("skipped", "CONFLICT")}
    assert studio.names("p", ".trash") == ["x.jpg"], "it is in the trash again"
    studio.sql("UPDATE photos SET jpg_available = 0")
    assert counts(await undone(house, removal, [1])) == (1, 0, 0)
    assert studio.sql("SELECT jpg_available, stars FROM photos") == [(1, 2)]


async def test_an_undo_finds_a_purged_file_gone(studio: Studio, house: Runtime) -> None:
    studio.put("p", "x.jpg", b"x")
    studio.add("p", "x", keep_jpg=0)
    removal = await run(house, "file_removal")
    purge = await run(house, "trash_maintenance", options={"days": 0})
    assert await outcomes(house, purge) == {"p/.trash/x.jpg": ("succeeded", None)}
    job = await undone(house, removal)
    assert await outcomes(house, job) == {"1": ("skipped", "CONFLICT")}
    assert studio.row("p", "x") == (0, 0, 1, 0)


# --- the trash ---------------------------------------------------------------------------------------


async def test_the_trash_is_emptied_by_how_long_a_file_has_been_there(studio: Studio, house: Runtime) -> None:
    studio.put("p", "x.jpg", b"x")
    os.utime(studio.projects / "p" / "x.jpg", (0, 0))
    studio.add("p", "x", keep_jpg=0)
    await run(house, "file_removal")
    young = await run(house, "trash_maintenance")
    assert await outcomes(house, young) == {}, "an old photo is not one that was long in the trash"
    named = await run(house, "trash_maintenance", ids=["p/.trash/x.jpg", "p/.trash/y.jpg"])
    assert await outcomes(house, named) == {
        "p/.trash/x.jpg": ("skipped", "INELIGIBLE"), "p/.trash/y.jpg": ("skipped", "NOT_FOUND")
    }  # fmt: skip
    assert studio.names("p", ".trash") == ["x.jpg"]
    assert counts(await run(house, "trash_maintenance", options={"days": 0})) == (1, 0, 0)
    assert studio.names("p", ".trash") == []


# --- checks ------------------------------------------------------------------------------------------


async def test_a_check_makes_rows_say_what_is_there(studio: Studio, house: Runtime) -> None:
    studio.put("p", "both.JPG", b"x")
    studio.put("p", "both.DNG", b"x")
    studio.put("p", "right.jpg", b"x")
    studio.add("p", "both", jpg_available=0)
    studio.add("p", "lost", raw_available=1)
    studio.add("p", "right")
    job = await run(house, "manifest_check")
    assert await outcomes(house, job) == {"1": ("succeeded", None), "2": ("succeeded", None)}
    assert [studio.row("p", base) for base in ("both", "lost", "right")] == [
        (1, 1, 1, 1), (1, 0, 1, 0), (1, 1, 1, 0)
    ]  # fmt: skip
    assert (await run(house, "manifest_check")).total == 0


async def test_revert_keeps_what_is_there_and_can_be_undone(studio: Studio, house: Runtime) -> None:
    studio.add("p", "a", keep_jpg=0, keep_raw=1)
    studio.add("p", "b", keep_raw=0)
    rows = studio.rows()
    job = await run(house, "revert")
    assert await outcomes(house, job) == {"1": ("succeeded", None)}
    assert [studio.row("p", base) for base in "ab"] == [(1, 1, 0, 0), (1, 1, 0, 0)]
    assert counts(await undone(house, job)) == (1, 0, 0)
    assert studio.rows() == rows


async def test_cleaning_removes_rows_without_files_with_what_hangs_on_them(
    studio: Studio, house: Runtime
) -> None:
    studio.put("p", "there.NEF", b"x")
    for base in ("there", "gone"):
        studio.add("p", base, jpg_available=0)
    studio.add("unmounted", "x")
    studio.sql("INSERT INTO tags VALUES (1, 'one'), (2, 'two')")
    rows, tags = studio.rows(), studio.sql("SELECT * FROM tags ORDER BY photo")
    job = await run(house, "manifest_cleaning", all=True)
    assert await outcomes(house, job) == {"2": ("succeeded", None)}
    assert studio.sql("SELECT base FROM photos ORDER BY id") == [("there",), ("x",)]
    assert studio.sql("SELECT tag FROM tags") == [("one",)]
    assert counts(await undone(house, job)) == (1, 0, 0)
    assert (studio.rows(), studio.sql("SELECT * FROM tags ORDER BY photo")) == (rows, tags)


# --- uploads -----------------------------------------------------------------------------------------


async def test_uploads_are_registered_once(studio: Studio, house: Runtime) -> None:
    studio.put("p", "new.JPG", b"x")
    studio.put("p", "new.arw", b"x")
    studio.put("p", "old.jpg", b"x")
    studio.put("p", "notes.txt", b"x")
    studio.put("p", ".hidden.jpg", b"x")
    studio.add("p", "old", keep_jpg=0, jpg_available=0)
    job = await run(house, "upload_postprocess")
    assert counts(job) == (2, 0, 0)
    assert (studio.row("p", "new"), studio.row("p", "old")) == ((1, 1, 1, 1), (1, 1, 1, 0))
    assert len(studio.rows()) == 2
    again = await run(house, "upload_postprocess")
    assert (again.total, len(studio.rows())) == (0, 2)


async def test_only_the_named_files_are_registered_and_one_that_never_came_is_told(
    studio: Studio, house: Runtime
) -> None:
    for name in ("a.jpg", "b.jpg"):
        studio.put("p", name, b"x")
    job = await run(house, "upload_postprocess", options={"files": ["a.jpg", "never.jpg"]})
    assert await outcomes(house, job) == {"p/a": ("succeeded", None), "p/never": ("skipped", "NOT_FOUND")}
    assert studio.sql("SELECT base FROM photos") == [("a",)]


async def test_a_row_that_the_table_refuses_fails_alone(studio: Studio, house: Runtime) -> None:
    studio.sql(
        "CREATE TRIGGER no BEFORE INSERT ON photos WHEN new.base = 'b' BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    for base in "abc":
        studio.put("p", f"{base}.jpg", b"x")
    job = await run(house, "upload_postprocess")
    assert counts(job) == (2, 1, 0)
    assert await messages(house, job) == ["no"]


async def test_new_photos_that_a_folder_check_finds_are_registered_and_shown(
    studio: Studio, house: Runtime
) -> None:
    studio.put("p", "new.jpg", samples()[0])
    studio.put("p", "known.jpg", samples()[0])
    studio.add("p", "known", jpg_available=0, keep_jpg=0)
    task = await house.service.task_start(OWNER, "folder_check", TaskBody(project="p"))
    view = await task_end(house, task.id)
    assert [(job.action, job.total) for job in view.jobs] == [
        ("folder_check", 1), ("upload_postprocess", 1), ("generate_derivatives", 1)
    ]  # fmt: skip
    assert studio.row("p", "new") == (1, 1, 0, 0)
    assert studio.row("p", "known") == (0, 0, 1, 0), "only new ones"
    assert studio.names("p", ".thumb") == ["new.jpg"]
    nothing = await house.service.task_start(OWNER, "folder_check", TaskBody(project="p"))
    assert [job.action for job in (await task_end(house, nothing.id)).jobs] == ["folder_check"]


async def task_end(house: Runtime, task_id: str) -> Any:
    with anyio.fail_after(20):
        while True:
            view = await house.service.task(OWNER, task_id)
            if view.status in ("completed", "failed", "cancelled"):
                return view
            await anyio.sleep(0.01)


# --- pictures ----------------------------------------------------------------------------------------


async def test_derivatives_are_made_once_and_again_for_another_file(studio: Studio, house: Runtime) -> None:
    studio.put("p", "x.JPG", samples("landscape_6.jpg")[0])
    studio.add("p", "x")
    assert counts(await run(house, "generate_derivatives")) == (1, 0, 0)
    thumb = studio.projects / "p" / ".thumb" / "x.jpg"
    with Image.open(thumb) as made:
        assert made.size == (320, 240)
        assert not made.getexif()
    with Image.open(studio.projects / "p" / ".preview" / "x.jpg") as made:
        assert made.size == (600, 450), "never larger than the photo"
    first = thumb.read_bytes()
    assert (await run(house, "generate_derivatives")).total == 0
    named = await run(house, "generate_derivatives", ids=[1])
    assert await outcomes(house, named) == {"1": ("skipped", "ALREADY_DONE")}
    studio.put("p", "x.JPG", samples("portrait_3.jpg")[0])
    assert counts(await run(house, "generate_derivatives")) == (1, 0, 0)
    assert thumb.read_bytes() != first
    assert studio.names("p", ".thumb") == ["x.jpg"]


async def test_what_is_no_whole_picture_fails_alone_with_its_reason(studio: Studio, house: Runtime) -> None:
    photo = samples("landscape_1.jpg")[0]
    studio.put("p", "cut.jpg", photo.read_bytes()[:60_000])
    studio.put("p", "damaged.jpg", damaged(photo))
    studio.put("p", "empty.jpg", b"")
    studio.put("p", "good.jpg", photo)
    studio.put("p", "text.jpg", b"no picture at all")
    Image.new("1", (20_000, 20_000)).save(studio.projects / "p" / "bomb.png")
    (studio.projects / "p" / "bomb.png").rename(studio.projects / "p" / "bomb.jpg")
    for base in ("bomb", "cut", "damaged", "empty", "good", "text"):
        studio.add("p", base)
    job = await run(house, "generate_derivatives")
    assert counts(job) == (1, 5, 0)
    bomb, cut, damage, empty, text = await messages(house, job)
    assert bomb == "bomb.jpg: its pixels are too many"
    assert "truncated" in cut
    assert damage.startswith("damaged.jpg: damaged: the reserved marker 0x9F at byte ")
    assert empty == "empty.jpg: it is no picture that can be read"
    assert text == "text.jpg: it is no picture that can be read"
    assert studio.names("p", ".thumb") == ["good.jpg"]


async def test_a_photo_without_its_jpg_is_passed_by(studio: Studio, house: Runtime) -> None:
    studio.put("p", "other.jpg", b"x")
    studio.add("p", "gone")
    assert (await run(house, "generate_derivatives")).total == 0
    named = await run(house, "generate_derivatives", ids=[1])
    assert await outcomes(house, named) == {"1": ("skipped", "NOT_FOUND")}


async def test_a_derivative_that_is_a_link_is_replaced_not_followed(
    studio: Studio, house: Runtime, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    studio.put("p", "x.jpg", samples()[0])
    studio.add("p", "x")
    (studio.projects / "p" / ".thumb").mkdir()
    (studio.projects / "p" / ".thumb" / "x.jpg").symlink_to(victim)
    assert counts(await run(house, "generate_derivatives")) == (1, 0, 0)
    assert victim.read_bytes() == b"precious"
    assert studio.names("p", ".thumb") == ["x.jpg"]


async def test_derivatives_behind_a_link_are_neither_written_nor_removed(
    studio: Studio, house: Runtime, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.jpg").write_bytes(b"precious")
    studio.put("p", "x.jpg", samples()[0])
    studio.add("p", "x")
    (studio.projects / "p" / ".thumb").symlink_to(outside)
    job = await run(house, "generate_derivatives")
    assert await outcomes(house, job) == {"1": ("failed", "REFUSED_PATH")}
    studio.sql("UPDATE photos SET keep_jpg = 0")
    assert counts(await run(house, "file_removal")) == (1, 0, 0)
    assert [(each.name, each.read_bytes()) for each in outside.iterdir()] == [("x.jpg", b"precious")]


async def test_many_pictures_are_made_in_small_batches(studio: Studio, house: Runtime) -> None:
    for number in range(20):
        studio.put("p", f"{number}.jpg", samples()[number % 16])
        studio.add("p", str(number))
    job = await run(house, "generate_derivatives")
    assert (counts(job), job.batch_size) == ((20, 0, 0), 8)


async def test_without_pillow_the_job_says_so(
    studio: Studio, house: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    studio.put("p", "x.jpg", samples()[0])
    studio.add("p", "x")
    job = await run(house, "generate_derivatives")
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "PILLOW_MISSING"
    assert "bulkops[photos]" in job.error.message


# --- tasks -------------------------------------------------------------------------------------------


async def test_a_cancelled_task_begins_nothing_more_and_is_told_once(studio: Studio, house: Runtime) -> None:
    for number in range(5):
        studio.put("p", f"{number}.jpg", b"x")
        studio.add("p", str(number), keep_jpg=0)
    house.workers.stop()
    task = await house.service.task_start(OWNER, "change_commit", TaskBody(project="p"))
    assert task.jobs[0].label == "Removing files"
    await house.service.cancel(OWNER, task.jobs[0].id)
    view = await house.service.task(OWNER, task.id)
    assert (view.status, len(view.jobs)) == ("cancelled", 1)
    assert await ends_told(house, task.id) == [("cancelled", None)]


async def ends_told(house: Runtime, task_id: str) -> list[tuple[str, str | None]]:
    rows = await house.store.read(
        lambda connection: connection.execute(
            "SELECT data ->> 'status', data ->> 'message' FROM events"
            " WHERE task_id = ? AND kind = 'task_completed'",
            [task_id],
        ).fetchall()
    )
    return list(rows)


async def test_a_failed_job_that_is_resumed_goes_on_with_its_task(
    studio: Studio, house: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.put("p", "x.jpg", samples()[0])
    with monkeypatch.context() as without_pillow:
        without_pillow.setitem(__import__("sys").modules, "PIL", None)
        task = await house.service.task_start(OWNER, "upload_processing", TaskBody(project="p"))
        view = await task_end(house, task.id)
    assert view.status == "failed"
    await house.service.resume(OWNER, view.jobs[1].id)
    assert (await task_end(house, task.id)).status == "completed"
    assert await ends_told(house, task.id) == [
        ("failed", None), ("completed", "Upload processing completed")
    ]  # fmt: skip


async def test_a_task_with_failures_claims_no_success(studio: Studio, house: Runtime) -> None:
    studio.put("p", "x.jpg", b"no picture")
    task = await house.service.task_start(OWNER, "upload_processing", TaskBody(project="p", files=["x.jpg"]))
    await task_end(house, task.id)
    assert await ends_told(house, task.id) == [("completed", None)]


async def test_an_upload_of_some_files_makes_their_pictures_only(studio: Studio, house: Runtime) -> None:
    for name in ("a.jpg", "b.jpg"):
        studio.put("p", name, samples()[0])
    studio.add("p", "b")
    task = await house.service.task_start(OWNER, "upload_processing", TaskBody(project="p", files=["a.jpg"]))
    await task_end(house, task.id)
    assert studio.names("p", ".thumb") == ["a.jpg"]


async def test_maintenance_jobs_of_a_task_are_hidden_unless_asked_for(studio: Studio, house: Runtime) -> None:
    task = await house.service.task_start(OWNER, "change_commit", TaskBody(project="p"))
    await task_end(house, task.id)
    shown = await house.service.jobs(OWNER, JobsQuery(project="p"))
    assert [job.action for job in shown["items"]] == ["file_removal"]
    everything = await house.service.jobs(OWNER, JobsQuery(project="p", show_maintenance=True))
    priorities = {job.action: job.priority for job in everything["items"]}
    assert priorities == {
        "file_removal": 100, "manifest_check": 95, "folder_check": 95, "manifest_cleaning": 80
    }  # fmt: skip
    viewer = Caller(user="ana", roles=frozenset({"operator"}))
    assert [job.action for job in (await house.service.task(viewer, task.id)).jobs] == ["file_removal"]


@pytest.mark.parametrize(
    ("task_type", "body", "code", "pointer"),
    [
        ("nonsense", {"project": "p"}, "NOT_FOUND", None),
        ("change_commit", {"project": "../p"}, "INVALID_FIELD", "/project"),
        ("change_commit", {"project": ""}, "INVALID_FIELD", "/project"),
        ("change_commit", {"project": ".trash"}, "INVALID_FIELD", "/project"),
        ("change_commit", {"project": "p", "files": ["a.jpg"]}, "INVALID_FIELD", "/files"),
        ("upload_processing", {"project": "p", "files": []}, "INVALID_FIELD", "/files"),
        (
            "upload_processing",
            {"project": "p", "files": ["a.jpg"] * 10_001},
            "INVALID_FIELD",
            "/files",
        ),
        ("upload_processing", {"project": "p", "files": ["a/b.jpg"]}, "INVALID_FIELD", "/files"),
        ("trash_maintenance", {"project": "p", "options": {"days": -1}}, "INVALID_FIELD", "/options/days"),
        ("change_commit", {"project": "p", "resource": "other"}, "INVALID_FIELD", "/resource"),
        ("change_commit", {"project": "p", "tenant": "acme"}, "INVALID_FIELD", "/tenant"),
        ("change_commit", {"project": "p", "expected_count": 3}, "COUNT_CHANGED", None),
    ],
)
async def test_tasks_that_cannot_be_are_refused_and_leave_nothing(
    house: Runtime, task_type: str, body: dict[str, Any], code: str, pointer: str | None
) -> None:
    with pytest.raises(Refusal) as refused:
        await house.service.task_start(OWNER, task_type, TaskBody(**body))
    assert refused.value.code == code
    if pointer is not None:
        assert refused.value.extra["errors"][0]["pointer"] == pointer
    assert (await house.service.tasks(OWNER))["items"] == []
    assert (await house.service.jobs(OWNER, JobsQuery(show_maintenance=True)))["items"] == []


@pytest.mark.parametrize(
    ("role", "action", "allowed"),
    [
        ("viewer", "upload_postprocess", False),
        ("operator", "upload_postprocess", True),
        ("operator", "file_removal", True),
        ("operator", "trash_maintenance", False),
        ("admin", "trash_maintenance", True),
    ],
)
async def test_roles_rise_with_what_cannot_be_taken_back(
    house: Runtime, role: str, action: str, allowed: bool
) -> None:
    caller = Caller(user="bo", roles=frozenset({role}))
    if allowed:
        await run(house, action, caller=caller)
    else:
        with pytest.raises(Refusal) as refused:
            await run(house, action, caller=caller)
        assert refused.value.code == "FORBIDDEN"


# --- the resource ------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["project", "base", "keep_raw", "jpg_available"])
async def test_a_missing_column_is_named(studio: Studio, column: str) -> None:
    studio.sql(f"ALTER TABLE photos RENAME COLUMN {column} TO other")
    with pytest.raises(ConfigError) as error:
        async with open_runtime(load(studio.folder / "bulkops.toml", {})):
            pass
    assert column in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('tenant = "project"', "knows no 'tenant'"),
        ('ledger = "app"', "keeps no ledger"),
        ('root = "nowhere"', "No such file"),
    ],
)
async def test_settings_that_cannot_be_are_refused(studio: Studio, line: str, message: str) -> None:
    config = CONFIG.replace('root = "projects"\n', "") if line.startswith("root") else CONFIG
    (studio.folder / "bulkops.toml").write_text(f"{config}\n{line}\n")
    with pytest.raises(ConfigError) as error:
        async with open_runtime(load(studio.folder / "bulkops.toml", {})):
            pass
    assert message in str(error.value)


async def test_actions_of_the_application_are_refused_on_photos(studio: Studio) -> None:
    bulk = Bulkops(tomllib.loads(CONFIG), base=studio.folder)

    @bulk.action("photos", "stamp")
    def stamp(batch: object) -> None: ...

    with pytest.raises(ConfigError):
        async with bulk.lifespan():
            pass


async def test_a_text_key_and_a_name_column_will_do(studio: Studio) -> None:
    studio.sql("DROP TABLE tags")
    studio.sql("DROP TABLE photos")
    studio.sql(
        "CREATE TABLE photos (id TEXT PRIMARY KEY, project TEXT, name TEXT, keep_jpg BOOL, jpg_available BOOL,"
        " keep_raw BOOL, raw_available BOOL)"
    )
    (studio.folder / "bulkops.toml").write_text(CONFIG.replace('"base", "stars", ', ""))
    studio.put("p", "x.JPG", b"x")
    async with open_runtime(load(studio.folder / "bulkops.toml", {})) as house:
        assert counts(await run(house, "upload_postprocess")) == (1, 0, 0)
        ((key,),) = studio.sql("SELECT id FROM photos WHERE name = 'x' AND keep_jpg")
        assert len(key) == 26
        studio.sql("UPDATE photos SET keep_jpg = 0")
        job = await run(house, "file_removal")
        assert await outcomes(house, job) == {key: ("succeeded", None)}
        rows = studio.rows()
        await run(house, "manifest_cleaning")
        assert studio.rows() == []
        assert counts(await undone(house, job)) == (1, 0, 0)
        assert [row[:3] for row in studio.rows()] == [row[:3] for row in rows]


async def test_a_photo_may_be_known_by_project_and_base_alone(studio: Studio) -> None:
    studio.sql("DROP TABLE tags")
    studio.sql("DROP TABLE photos")
    studio.sql(
        "CREATE TABLE photos (project TEXT, base TEXT, stars INTEGER, keep_jpg BOOL, jpg_available BOOL,"
        " keep_raw BOOL, raw_available BOOL, PRIMARY KEY (base, project)) WITHOUT ROWID"
    )
    (studio.folder / "bulkops.toml").write_text(CONFIG.replace('id = "id"\n', ""))
    for name in ("x.JPG", "y.jpg", "a,b.jpg"):
        studio.put("p", name, b"x")
    async with open_runtime(load(studio.folder / "bulkops.toml", {})) as house:
        uploaded = await run(house, "upload_postprocess", ids=["p/x", "p/y", "p/a,b"], exclude_ids=["p/y"])
        assert await outcomes(house, uploaded) == {"p/x": ("succeeded", None), "p/a,b": ("succeeded", None)}
        assert counts(await run(house, "upload_postprocess")) == (1, 0, 0)
        studio.sql("UPDATE photos SET keep_jpg = 0 WHERE base <> 'y'")
        job = await run(house, "file_removal", ids=["x,p", "y,p", "a%2Cb,p", "z,p"])
        assert await outcomes(house, job) == {
            "x,p": ("succeeded", None),
            "a%2Cb,p": ("succeeded", None),
            "y,p": ("skipped", "ALREADY_DONE"),
            "z,p": ("skipped", "NOT_FOUND"),
        }
        rows = studio.sql("SELECT * FROM photos ORDER BY base")
        cleaned = await run(house, "manifest_cleaning")
        assert await outcomes(house, cleaned) == {"x,p": ("succeeded", None), "a%2Cb,p": ("succeeded", None)}
        assert counts(await undone(house, cleaned)) == (2, 0, 0)
        assert studio.sql("SELECT * FROM photos ORDER BY base") == rows
        await run(house, "manifest_cleaning")
        assert counts(await undone(house, job)) == (2, 0, 0)
        assert studio.sql("SELECT base, jpg_available FROM photos ORDER BY base") == [
            *(("a,b", 1), ("x", 1), ("y", 1))
        ]


async def test_a_preview_counts_files_and_bytes(studio: Studio, house: Runtime) -> None:
    studio.put("p", "x.jpg", b"12345")
    studio.put("p", "x.raw", b"1234567")
    studio.add("p", "x", keep_jpg=0, keep_raw=0, raw_available=1)
    preview = await house.service.validate(
        OWNER, "photos", ValidateBody(action="file_removal", all=True, options={"project": "p"})
    )
    assert (preview.matched, preview.impact.files, preview.impact.bytes) == (1, 2, 12)
    upload = await house.service.validate(
        OWNER, "photos", ValidateBody(action="upload_postprocess", all=True, options={"project": "p"})
    )
    assert upload.matched == 0
    with pytest.raises(sqlite3.OperationalError):
        studio.sql("SELECT * FROM _bulkops_ledger")


# --- the README --------------------------------------------------------------------------------------


def test_the_readme_lists_every_task_type_and_action() -> None:
    types = dict.fromkeys(tasks.TYPES)
    assert list(dict.fromkeys(table(" task type "))) == [
        *("change_commit", "upload_processing", "folder_check", "revert", "generate_derivatives"),
        *("manifest_check", "manifest_cleaning", "trash_maintenance"),
    ]
    assert set(table(" task type ")) == set(types)
    told = table(" photo action ")
    assert set(told) == set(CHORES)
    assert {name: cells[1] == "yes" for name, cells in told.items()} == {
        name: not chore.final for name, chore in CHORES.items()
    }


async def test_the_readme_s_table_and_settings_are_all_that_is_needed(tmp_path: Path) -> None:
    blocks = [block for block in README.split("```") if "photos" in block]
    (schema,) = [block.removeprefix("sql\n") for block in blocks if block.startswith("sql")]
    (config,) = [
        block.removeprefix("toml\n") for block in blocks if block.startswith("toml\n[resources.photos]")
    ]
    studio = Studio(tmp_path, config)
    studio.sql("DROP TABLE tags")
    studio.sql("DROP TABLE photos")
    studio.sql(schema)
    studio.put("p", "x.JPG", b"x")
    async with open_runtime(load(tmp_path / "bulkops.toml", {})) as house:
        assert counts(await run(house, "upload_postprocess")) == (1, 0, 0)
    assert studio.row("p", "x") == (1, 1, 0, 0)
