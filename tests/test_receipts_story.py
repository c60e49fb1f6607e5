"""The story of the receipts: delete-all of one business as its page would do it, over a server that is killed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx

from tests.crashes.servers import Server, until
from tests.engine_house import dump

MINE: Final = 1_200
OTHERS: Final = 60
FILES: Final = 120
CONFIG: Final = """
[server]
port = 0

[resources.receipts]
kind = "table"
database = "app.db"
table = "receipts"
id = "id"
tenant = "business_id"
label = "number"
soft_delete = "is_deleted"
status = { column = "status", busy = ["processing"] }
search = ["number", "status"]
children = [{ table = "attachments", key = "receipt_id", file = "path", root = "storage" }]

[resources.receipts.actions.delete]
roles = ["owner", "admin"]
confirm = "DELETE"
rate = "1/minute"
exclusive = true
batch_size = 50
throttle_ms = 200
max_runtime_s = 1
"""
SCHEMA: Final = """
CREATE TABLE receipts (id INTEGER PRIMARY KEY, business_id TEXT NOT NULL, number TEXT, status TEXT,
  is_deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE attachments (id INTEGER PRIMARY KEY, receipt_id INTEGER REFERENCES receipts (id), path TEXT);
CREATE INDEX attachments_receipt ON attachments (receipt_id);
"""


def build(folder: Path) -> None:
    """Make receipts of two businesses; every tenth of ours has an attachment, the last one is busy."""
    (folder / "storage").mkdir()
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.executescript(SCHEMA)
        rows = [(n, "ours" if n <= MINE else "theirs", f"N{n}") for n in range(1, MINE + OTHERS + 1)]
        connection.executemany("INSERT INTO receipts VALUES (?, ?, ?, 'open', 0)", rows)
        connection.execute("UPDATE receipts SET status = 'processing' WHERE id = ?", (MINE,))
        for number in range(10, 10 * FILES + 1, 10):
            connection.execute(
                "INSERT INTO attachments (receipt_id, path) VALUES (?, ?)", (number, f"{number}.pdf")
            )
            (folder / "storage" / f"{number}.pdf").write_bytes(b"receipt %d" % number)
        connection.commit()
    (folder / "bulkops.toml").write_text(CONFIG, encoding="utf-8")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "storage").glob("*.pdf")}


def deleted(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        rows = connection.execute("SELECT id FROM receipts WHERE is_deleted ORDER BY id")
        return [row[0] for row in rows]


def key_of(server: Server, user: str, tenant: str, role: str) -> str:
    status, made = server.ask("POST", "/api/keys", {"user": user, "tenant": tenant, "role": role})
    assert status == 201, made
    return str(made["key"])


def person(server: Server, key: str) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"X-API-Key": key}, timeout=20)


def start(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/api/bulk/receipts/delete", json={"all": True, "confirm": "DELETE", **body})


def watch(
    client: httpx.Client, job: str, holds: Callable[[dict[str, Any]], bool], what: str
) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def there() -> bool:
        seen.update(client.get(f"/api/jobs/{job}").json())
        assert seen["processed"] == seen["succeeded"] + seen["failed"] + seen["skipped"]
        return holds(seen)

    until(there, within_s=30, every_s=0.02, what=what)
    return seen


def capped(job: dict[str, Any]) -> bool:
    return bool(job["status"] == "paused" and job["status_reason"]["code"] == "RUNTIME_CAP")


def test_delete_all_is_paced_capped_resumed_survives_a_kill_and_comes_back(tmp_path: Path) -> None:
    build(tmp_path)
    before, attached = dump(tmp_path / "app.db"), files(tmp_path)
    with Server(tmp_path) as server:
        key = key_of(server, "ana", "ours", "admin")
        olaf = key_of(server, "olaf", "ours", "operator")
        zoe = key_of(server, "zoe", "theirs", "admin")
        with person(server, key) as ana, person(server, olaf) as operator, person(server, zoe) as other:
            assert start(operator).status_code == 403
            refused = start(ana, confirm="delete")
            assert (refused.status_code, refused.json()["count"]) == (428, MINE)
            answer = start(ana, expected_count=MINE)
            assert answer.status_code == 202, answer.text
            job = answer.json()["id"]
            assert answer.elapsed.total_seconds() < 8, "it is answered before it is done"
            again = start(ana)
            assert (again.status_code, again.json()["code"]) in ((409, "JOB_ACTIVE"), (429, "RATE_LIMITED"))

            paused = watch(ana, job, capped, "the runtime cap")
            assert 0 < paused["processed"] < MINE
            assert paused["processed"] % 50 == 0, "it pauses between batches"
            assert deleted(tmp_path) == list(range(1, paused["processed"] + 1)), "in the order of the keys"
            blocked = start(ana)
            assert (blocked.status_code, blocked.json()["active_job"]) == (409, job)
            # Another business is not kept waiting, nor does it see anything of this.
            theirs = start(other).json()
            assert other.get(f"/api/jobs/{job}").status_code == 404
            done = watch(other, theirs["id"], lambda view: bool(view["terminal"]), "the other business")
            assert (done["total"], done["succeeded"]) == (OTHERS, OTHERS)
            assert start(other).status_code == 429

            assert ana.post(f"/api/jobs/{job}/resume").status_code == 200
            watch(ana, job, lambda view: bool(view["processed"] > paused["processed"]), "going on")
            server.kill()
    with Server(tmp_path) as server, person(server, key) as ana:
        # It goes on by itself, the cap counts from the resume; a person lets it go on faster.
        stopped = watch(ana, job, lambda view: view["terminal"] or capped(view), "the cap again")
        while not stopped["terminal"]:
            answer = ana.patch(f"/api/jobs/{job}", json={"batch_size": 1000})
            assert answer.status_code == 200, answer.text
            assert ana.post(f"/api/jobs/{job}/resume").status_code == 200
            stopped = watch(ana, job, lambda view: view["terminal"] or capped(view), "the end")
        assert (stopped["status"], stopped["outcome"], stopped["percent"]) == ("completed", "ok", 100.0)
        assert (stopped["total"], stopped["succeeded"], stopped["skipped"]) == (MINE, MINE - 1, 1)
        assert deleted(tmp_path) == [n for n in range(1, MINE + OTHERS + 1) if n != MINE]
        # The busy receipt keeps its attachment, all others are gone once their rows are.
        until(lambda: set(files(tmp_path)) == {f"{MINE}.pdf"}, what="the attachments")
        report = ana.get(f"/api/jobs/{job}/report", params={"format": "csv", "outcome": "skipped"}).text
        assert report.splitlines()[1].startswith(f"{MINE},skipped,INELIGIBLE")

        undone = ana.post(f"/api/jobs/{job}/undo").json()["id"]
        back = watch(ana, undone, lambda view: bool(view["terminal"]), "the undo")
        assert (back["succeeded"], back["outcome"]) == (MINE - 1, "ok")
        assert deleted(tmp_path) == list(range(MINE + 1, MINE + OTHERS + 1))
        assert files(tmp_path) == attached
        theirs_back = server.end(server.verb(theirs["id"], "undo")["id"])
        assert theirs_back["succeeded"] == OTHERS
    assert dump(tmp_path / "app.db") == before
