"""A kill -9 at the writes of a job that makes a file: no part is ever handed out, and the file becomes exact."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bulkops.configuration import load
from bulkops.errors import Refusal
from bulkops.models import JobsQuery
from bulkops.runtime import open_offline
from tests.crashes import exporting
from tests.crashes.points import Point, command, kill_at, run, watch
from tests.engine_house import make_database

pytestmark = [
    pytest.mark.strace,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
DRIVER = "tests.crashes.exporting"
PLACE = "bulkops-data/artifacts/"


def ground(folder: Path, ledger: str) -> Path:
    folder.mkdir(parents=True)
    make_database(folder / "app.db", exporting.SCRIPT)
    (folder / "bulkops.toml").write_text(exporting.CONFIG.format(ledger=ledger))
    return folder


def content_of(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    if raw.startswith(b"["):
        return list(json.loads(raw))
    return [json.loads(line) for line in gzip.decompress(raw).splitlines()]


async def handed_out(folder: Path) -> list[bytes]:
    """Return the files that anybody could have now, as the owner who may have all."""
    found = []
    async with open_offline(load(folder / "bulkops.toml", {})) as house:
        jobs = (await house.service.jobs(house.caller, JobsQuery(resource="things")))["items"]
        for artifact in [each for job in jobs for each in job.artifacts]:
            try:
                download = await house.service.download(house.caller, artifact.id)
            except Refusal:
                continue
            with open(download.fd, "rb") as file:
                found.append(file.read())
                assert artifact.bytes == len(found[-1])
    return found


async def judge(folder: Path, action: str) -> None:
    """See the job to its end after a kill, and hold its file against the rows."""
    early = await handed_out(folder)
    done = run(command(folder, action, driver=DRIVER))
    assert done.returncode == 0, done.stdout + done.stderr
    files = list((folder / PLACE).iterdir())
    assert len(files) == 1, files
    assert not files[0].suffix
    assert all(each == files[0].read_bytes() for each in early), "a part was handed out"
    assert await handed_out(folder) == [files[0].read_bytes()]
    rows = content_of(files[0])
    assert [row["id"] for row in rows] == list(range(1, exporting.ROWS + 1))
    if action == "archive":
        assert {row["status"] for row in rows} == {"archived"}
        assert all(len(row["c"]) == 1 for row in rows)
        with closing(sqlite3.connect(folder / "app.db")) as connection:
            assert connection.execute("SELECT DISTINCT status FROM t").fetchall() == [("archived",)]


def chosen(points: list[Point], few: int) -> list[Point]:
    """Take each kind of write to the file itself, then more of those and of the databases', spread out."""
    shuffled = random.Random(4).sample(points, len(points))
    own = [point for point in shuffled if point.path.startswith(PLACE)]
    kinds = list({(point.call, point.path): point for point in own}.values())
    others = [point for point in shuffled if ".db" in point.path]
    return [*kinds[:few], *others[: few // 2], *[point for point in own if point not in kinds][: few // 2]]


async def crash(folder: Path, action: str, ledger: str, few: int) -> None:
    points = watch(ground(folder / "seen", ledger), action, driver=DRIVER)
    taken = chosen(points, few)
    assert {"fdatasync", "fsync", "rename"} <= {
        point.call for point in points if point.path.startswith(PLACE)
    }
    hits = 0
    for index, point in enumerate(taken):
        world = ground(folder / str(index), ledger)
        hits += kill_at(world, action, point, driver=DRIVER)
        await judge(world, action)
    assert hits >= 0.7 * len(taken), f"only {hits} of {len(taken)} kills came"


@pytest.mark.timeout(300)
async def test_a_kill_at_each_kind_of_write_leaves_no_part_and_the_file_becomes_exact(tmp_path: Path) -> None:
    await crash(tmp_path, "export", "own", few=4)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ledger", ["own", "app"])
async def test_an_archive_killed_between_status_and_file_holds_every_row_once(
    tmp_path: Path, ledger: str
) -> None:
    await crash(tmp_path, "archive", ledger, few=2)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("action", "ledger"), [("export", "own"), ("archive", "own"), ("archive", "app")])
async def test_the_same_at_many_more_writes(tmp_path: Path, action: str, ledger: str) -> None:
    await crash(tmp_path, action, ledger, few=40)
