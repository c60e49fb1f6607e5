"""The story of the images: rows go at once, files when they can, whatever happens to process, disk and storage.

Told by the real server and the real command; every file of a client has its own content, so that what comes back
can be compared byte for byte.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.crashes.servers import Server, until

MINE: Final = 7
#: Generous: what is asserted is the order of events, the clock only that nothing waits for a thousand files.
IN_SIGHT_S: Final = 8.0
CONFIG: Final = """
[server]
port = 0

[resources.images]
kind = "table"
database = "app.db"
table = "images"
id = "id"
file = "path"
{place}
search = ["client_id"]
"""
NOTHING: Final = ("processed", "removed", "missing", "failed", "remaining")
BUCKET: Final = '''
"""A storage of the host's: a folder far away that answers as it likes."""
import os
from pathlib import Path

HERE = Path(__file__).parent


class Bucket:
    def delete(self, keys):
        if (HERE / "closed").exists():
            raise ConnectionError("the storage is closed")
        answer = {}
        for key in keys:
            with (HERE / "asked").open("a") as asked:
                asked.write(key + "\\n")
            if key == "p5.jpg":
                answer[key] = "refused: legal hold"
                continue
            if key == "p6.jpg" and not (HERE / "again").exists():
                (HERE / "again").touch()
                answer[key] = "retry: throttled"
                continue
            try:
                (HERE / "bucket" / key).unlink()
                answer[key] = "removed"
            except FileNotFoundError:
                answer[key] = "missing"
            if (HERE / "deadly").exists() and len(list((HERE / "bucket").iterdir())) <= 60:
                (HERE / "deadly").unlink()
                os.kill(os.getpid(), 9)
        return answer
'''


def build(folder: Path, count: int, *, root: str = "images", place: str = 'root = "images"') -> None:
    """Make images of client 7 and, every tenth, of client 8, each with a file, and a config."""
    (folder / root).mkdir()
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        connection.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, client_id INTEGER, path TEXT)")
        rows = [(n, 8 if n % 10 == 0 else MINE, f"p{n}.jpg") for n in range(1, count + 1)]
        connection.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)
        connection.commit()
    for number in range(1, count + 1):
        (folder / root / f"p{number}.jpg").write_bytes(content_of(number))
    (folder / "bulkops.toml").write_text(CONFIG.format(place=place), encoding="utf-8")


def content_of(number: int) -> bytes:
    return b"image %d" % number * 3


def files(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir() if each.suffix == ".jpg"}


def mine(count: int) -> set[str]:
    return {f"p{n}.jpg" for n in range(1, count + 1) if n % 10}


def delete_mine(server: Server) -> dict[str, Any]:
    return server.end(server.start("images", filter={"client_id": MINE}))


def cautions(server: Server) -> list[str]:
    wish = {"action": "delete", "filter": {"client_id": MINE}}
    status, found = server.ask("POST", "/api/bulk/images/validate", wish)
    assert status == 200, found
    return [each["code"] for each in found["warnings"]]


def in_sight(server: Server) -> int:
    return int(server.get(f"/api/bulk/images/items?client_id={MINE}")["total"])


def stats(server: Server) -> dict[str, Any]:
    return dict(server.get("/api/cleanup/stats"))


def entries(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = ""
    while True:
        answer = server.get(f"/api/cleanup/items?limit=500{page}")
        found += answer["items"]
        if answer["next"] is None:
            return found
        page = f"&page={answer['next']}"


def run(server: Server, **query: int) -> dict[str, int]:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    status, found = server.ask("POST", f"/api/cleanup/run?{asked}")
    assert status == 200, found
    assert found["processed"] == found["removed"] + found["missing"] + found["failed"]
    return dict(found)


def command(folder: Path, *arguments: str) -> tuple[int, dict[str, int]]:
    """Run `bulkops cleanup-files` as cron would."""
    done = subprocess.run(
        [sys.executable, "-m", "bulkops", "--json", "cleanup-files", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    return done.returncode, json.loads(done.stdout)


def cron(folder: Path) -> int:
    """Run the queue once, giving up what fails; return how much remains."""
    code, done = command(folder, "--batch-size", "500", "--max-attempts", "1")
    assert (code == 3) == (done["failed"] > 0), "what could not be deleted is told by the exit code"
    return done["remaining"]


@contextmanager
def immutable(place: Path) -> Iterator[None]:
    """Make a folder or file one that not even root can change."""
    if shutil.which("chattr") is None:
        pytest.skip("chattr is not installed")
    done = subprocess.run(["chattr", "+i", str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be made immutable here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(place)], check=True)


def test_a_thousand_images_are_out_of_sight_while_their_files_cannot_go(tmp_path: Path) -> None:
    build(tmp_path, 1_112)
    images = tmp_path / "images"
    with Server(tmp_path) as server, immutable(images):
        preview = server.ask(
            "POST", "/api/bulk/images/validate", {"action": "delete", "filter": {"client_id": MINE}}
        )[1]
        assert (preview["matched"], preview["impact"]["files"]) == (1_001, 1_001)
        began = time.monotonic()
        done = delete_mine(server)
        assert in_sight(server) == 0
        assert time.monotonic() - began < IN_SIGHT_S
        assert (done["succeeded"], done["outcome"]) == (1_001, "ok")
        assert server.get("/api/bulk/images/items?client_id=8")["total"] == 111
        assert len(files(images)) == 1_112, "the rows did not wait for their files"
        waiting = stats(server)
        assert (waiting["pending"], waiting["dead"]) == (1_001, 0)
        assert waiting["bytes"] == sum(len(content_of(n)) for n in range(1, 1_113) if n % 10)
        assert waiting["oldest_at"] is not None

        assert run(server, batch_size=1_000, max_attempts=3)["remaining"] == 1_001
        assert server.stop() == 0
        # Without the server, whose patience is longer, cron gives them up.
        until(lambda: cron(tmp_path) == 0, within_s=30, every_s=0.2, what="all given up")
        assert len(files(images)) == 1_112
    with Server(tmp_path) as server:
        assert stats(server) == {"pending": 0, "retrying": 0, "dead": 1_001, "bytes": 0, "oldest_at": None}
        assert command(tmp_path, "--batch-size", "500", "--max-attempts", "5") == (
            0,
            dict.fromkeys(NOTHING, 0),
        )
        dead = entries(server)
        assert Counter(each["state"] for each in dead) == {"dead": 1_001}
        shown = {
            name: value for name, value in dead[0].items() if name not in ("id", "attempts", "created_at")
        }
        assert shown == {
            "job": done["id"], "resource": "images", "tenant": None, "storage": "images", "path": "p1.jpg",
            "bytes": len(content_of(1)), "state": "dead", "error": "EPERM: Operation not permitted",
            "not_before": None,
        }  # fmt: skip

        first, second = dead[0], dead[1]
        assert server.ask("POST", f"/api/cleanup/items/{first['id']}/requeue") == (
            200, {"id": first["id"], "state": "queued"}
        )  # fmt: skip
        until(lambda: first["path"] not in files(images), what="the entry that was put in line again is done")
        assert server.ask("POST", f"/api/cleanup/items/{first['id']}/requeue")[0] == 404
        assert server.ask("DELETE", f"/api/cleanup/items/{second['id']}") == (204, None)
        assert server.ask("DELETE", f"/api/cleanup/items/{second['id']}")[0] == 404
        assert second["path"] in files(images), "what is dropped stays where it is"
        assert stats(server)["dead"] == 999
        verbs = [each["verb"] for each in server.get("/api/audit?limit=1000")["items"]]
        assert {"cleanup_requeue", "cleanup_drop"} <= set(verbs)


@pytest.mark.strace
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_killed_while_files_move_the_queue_goes_on_where_it_was(tmp_path: Path) -> None:
    build(tmp_path, 400)
    images = tmp_path / "images"
    for lost in ("p1.jpg", "p2.jpg", "p3.jpg"):
        (images / lost).unlink()
    around = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=renameat2",
              "-e", "inject=renameat2:signal=KILL:when=150"]  # fmt: skip
    with Server(tmp_path, around=around) as server:
        job = server.start("images", filter={"client_id": MINE})
        server.process.wait(30)
    left = files(images)
    assert 40 < len(left) < 397, f"it was killed with {len(left)} files left"
    with Server(tmp_path) as server:
        assert server.end(job)["succeeded"] == 360
        until(lambda: stats(server)["pending"] == 0, what="an empty queue")
        assert files(images) == {f"p{n}.jpg" for n in range(10, 401, 10)}
        told = Counter((each["state"], each["path"]) for each in entries(server))
        assert told == {("missing", f"p{n}.jpg"): 1 for n in (1, 2, 3)}
        undone = server.end(server.verb(job, "undo")["id"])
        assert (undone["succeeded"], undone["outcome"]) == (360, "ok")
        assert in_sight(server) == 360
    for number in range(4, 401):
        assert (images / f"p{number}.jpg").read_bytes() == content_of(number)


@pytest.mark.strace
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_full_disk_keeps_the_files_in_line_until_there_is_room(tmp_path: Path) -> None:
    build(tmp_path, 50)
    images = tmp_path / "images"
    with Server(tmp_path) as server:
        full = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", os.devnull, "-p", str(server.pid), "-e", "trace=renameat2",
             "-e", "inject=renameat2:error=ENOSPC"], stderr=subprocess.PIPE
        )  # fmt: skip
        try:
            until(
                lambda: "TracerPid:\t0" not in Path(f"/proc/{server.pid}/status").read_text(), what="traced"
            )
            done = delete_mine(server)
            assert (done["succeeded"], in_sight(server)) == (45, 0)
            until(lambda: stats(server)["retrying"] == 45, what="all were tried once")
            assert len(files(images)) == 50
            assert {each["error"] for each in entries(server)} == {"ENOSPC: No space left on device"}
            assert all(each["not_before"] for each in entries(server))
        finally:
            full.terminate()
            full.communicate(timeout=10)
        until(lambda: files(images) == {f"p{n}.jpg" for n in range(10, 51, 10)}, what="there is room again")
        until(lambda: stats(server)["pending"] == 0, what="an empty queue")
        assert entries(server) == []


def test_a_path_used_again_and_a_file_of_two_rows_are_not_touched(tmp_path: Path) -> None:
    build(tmp_path, 20)
    images = tmp_path / "images"
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("UPDATE images SET path = 'p10.jpg' WHERE id = 2")  # client 8 has it too
        connection.commit()
    with Server(tmp_path) as server:
        with immutable(images / "p1.jpg"), immutable(images / "p10.jpg"):
            delete_mine(server)
            until(lambda: len(files(images)) == 4, what="all others are gone")
            # p2.jpg belongs to no row; p1 cannot go yet; p10 and p20 are client 8's.
            assert files(images) == {"p1.jpg", "p2.jpg", "p10.jpg", "p20.jpg"}
        (images / "p1.jpg").unlink()
        (images / "p1.jpg").write_bytes(b"somebody else's now")
        until(
            lambda: (
                {each["path"]: each["state"] for each in entries(server)}
                == {"p1.jpg": "superseded", "p10.jpg": "shared"}
            ),
            what="both are told",
        )
        assert (images / "p1.jpg").read_bytes() == b"somebody else's now"
        assert (images / "p10.jpg").read_bytes() == content_of(10)
        # When the last row that names it goes, its file goes.
        assert server.end(server.start("images", ids=[10]))["succeeded"] == 1
        until(lambda: files(images) == {"p1.jpg", "p2.jpg", "p20.jpg"}, what="the last row took it")


def test_a_storage_made_in_python_is_asked_until_it_has_answered_for_every_file(tmp_path: Path) -> None:
    build(tmp_path, 100, root="bucket", place='storage = "remote:Bucket"')
    (tmp_path / "remote.py").write_text(BUCKET, encoding="utf-8")
    bucket = tmp_path / "bucket"
    (bucket / "p7.jpg").unlink()
    beside = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"}
    with Server(tmp_path, environ=beside) as server:
        assert cautions(server) == ["FILES_NOT_UNDONE"]
        (tmp_path / "closed").touch()
        job = delete_mine(server)["id"]
        assert in_sight(server) == 0
        until(lambda: stats(server)["retrying"] == 90, what="the storage refuses to answer")
        assert {each["error"] for each in entries(server)} == {"ConnectionError: the storage is closed"}
        assert len(files(bucket)) == 99
        assert server.stop() == 0
    # Cron works the queue while no server runs, and dies of it half-way.
    (tmp_path / "closed").unlink()
    (tmp_path / "deadly").touch()
    died = subprocess.run(
        [sys.executable, "-m", "bulkops", "--config", "bulkops.toml", "cleanup-files"],
        cwd=tmp_path, capture_output=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    codes = set()
    while died.returncode in (0, 3):  # not enough was due yet
        codes.add(died.returncode)
        time.sleep(0.1)
        died = subprocess.run(died.args, cwd=tmp_path, capture_output=True, check=False, timeout=60,
                              env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})  # fmt: skip
    assert died.returncode == -9
    assert len(files(bucket)) == 60

    total: Counter[str] = Counter()

    def cron() -> bool:
        code, done = command(tmp_path, "--batch-size", "40", "--max-attempts", "5")
        codes.add(code)
        total.update({name: count for name, count in done.items() if name != "remaining"})
        return done["remaining"] == 0

    until(cron, within_s=30, every_s=0.2, what="an empty queue")
    assert files(bucket) == {"p5.jpg"} | {f"p{n}.jpg" for n in range(10, 101, 10)}
    assert total["removed"] == 49, "what was left when it died, but for the one on hold"
    assert 3 in codes, "a file that could not be deleted is told by the exit code"
    with Server(tmp_path, environ=beside) as server:
        told = {each["path"]: (each["state"], each["error"]) for each in entries(server)}
        assert told.pop("p5.jpg") == ("refused", "legal hold")
        assert {state for state, _ in told.values()} == {"missing"}
        # Those that went just before the crash are missing when they are asked for again, like p7: nobody
        # can tell who took them. p6, which was put off once, may be among them.
        times = Counter((tmp_path / "asked").read_text().split())
        again = {path for path, count in times.items() if count > 1} - {"p5.jpg", "p6.jpg"}
        assert again, "it died with answers that nobody had written down"
        assert set(told) - {"p6.jpg"} == again | {"p7.jpg"}
        undone = server.end(server.verb(job, "undo")["id"])
        assert undone["succeeded"] < 90, "a storage without a trash cannot give files back"
    asked = (tmp_path / "asked").read_text().split()
    assert set(asked) == mine(100), "nobody else's files were asked for"
