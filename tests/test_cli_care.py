"""`cleanup-files`, `trash`, `tune`, `audit` and `webhooks`: one real server for all of them, and without one."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from bulkops.cli.trash import command_for
from tests.test_cli import App, app, until

__all__ = ["app"]

MORE = """
[resources.images]
kind = "table"
database = "app.db"
table = "images"
id = "name"
label = "name"
file = "path"
root = "images"
"""

HOSTILE = "it's \x1b[31m\u202e\\ a 'name'"


class House(App):
    """An application whose images have files, and a listener beside it that webhooks reach."""

    def __init__(self, folder: Path, hooks: int) -> None:
        super().__init__(folder)
        self.hook = f"http://127.0.0.1:{hooks}/hook"
        self.config.write_text(
            self.config.read_text().replace("port = 0", f'port = 0\nwebhook_hosts = ["127.0.0.1:{hooks}"]')
            + MORE
        )
        (folder / "images").mkdir()
        with closing(sqlite3.connect(folder / "app.db")) as database, database:
            database.execute("CREATE TABLE images (name TEXT PRIMARY KEY, path TEXT NOT NULL)")
            names = [HOSTILE, "-5", "plain", *(f"gone{n}" for n in range(4))]
            database.executemany(
                "INSERT INTO images VALUES (?, ?)", [(name, f"f{n}.jpg") for n, name in enumerate(names)]
            )
        for n in range(3):
            (folder / "images" / f"f{n}.jpg").write_bytes(b"a picture")

    def delete(self, *ids: str) -> str:
        chosen = [word for each in ids for word in ("--id", each)]
        job: str = self.json("start", "images", "delete", *chosen, "--wait")["id"]
        return job

    def queue(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.json("cleanup-files", "--list")["items"]
        return entries

    def give_up(self, entry: int) -> None:
        """Let an entry be as the engine leaves one whose attempts are used up."""
        with closing(sqlite3.connect(self.folder / "bulkops.db", timeout=20)) as ours, ours:
            ours.execute(
                "UPDATE deletions SET state = 'dead', error = ? WHERE id = ?", ("EPERM \x1b[2J", entry)
            )


@contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """Listen for webhooks; the second is what came, by `webhook-id`."""
    heard: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            heard.append(self.headers["webhook-id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port, heard
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def heard() -> Iterator[tuple[int, list[str]]]:
    with listening() as found:
        yield found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, heard: tuple[int, list[str]]) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BULKOPS_KEY", raising=False)
        made = House(tmp_path_factory.mktemp("house"), heard[0])
        with made.server():
            yield made


# --- the file deletion queue ---------------------------------------------------------------------------


def test_the_queue_is_counted_listed_tried_again_and_forgotten(house: House) -> None:
    assert (
        house.run("cleanup-files", "--list").stderr
        == "no file waits for its deletion, and none ended badly\n"
    )
    assert (
        house.run("cleanup-files", "--stats").stdout == "no file waits for its deletion, and none is dead\n"
    )
    house.delete("gone0", "gone1", "gone2", "gone3")
    until(lambda: [each["state"] for each in house.queue()] == ["missing"] * 4)
    first, second, third, fourth = (each["id"] for each in house.queue())
    for entry in (first, second):
        house.give_up(entry)
    assert house.json("cleanup-files", "--stats")["dead"] == 2
    assert "dead" in house.run("cleanup-files", "--stats").stdout
    table = house.run("cleanup-files", "--list", "--limit", "1")
    assert "\x1b" not in table.stdout
    assert "EPERM [2J" in table.stdout
    page = table.stderr.split("--page ")[1].strip()
    rest = house.json("cleanup-files", "--list", "--page", page)["items"]
    assert [each["id"] for each in rest] == [second, third, fourth]

    assert house.json("cleanup-files", "--requeue", "all") == {"requeued": [first, second], "refused": []}
    until(lambda: [each["state"] for each in house.queue()] == ["missing"] * 4)
    none = house.run("cleanup-files", "--requeue", "all")
    assert (none.exit_code, none.stderr) == (0, "no entry is dead\n")

    partly = house.json("cleanup-files", "--drop", str(third), "--drop", "999999", code=1)
    assert partly["dropped"] == [third]
    assert [(each["id"], each["code"]) for each in partly["refused"]] == [(999999, "NOT_FOUND")]
    told = house.run("cleanup-files", "--drop", str(fourth), "--drop", "999999")
    assert told.exit_code == 1
    assert told.stdout == f"entry {fourth} is forgotten, its file stays\n"
    assert told.stderr.startswith("entry 999999: NOT_FOUND: ")
    assert [each["id"] for each in house.queue()] == [first, second]
    verbs = [each["verb"] for each in house.json("audit", "--limit", "1000")["items"]]
    assert (verbs.count("cleanup_requeue"), verbs.count("cleanup_drop")) == (2, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stats", "--list"], "--stats and --list are two things"),
        (["--list", "--drop", "1"], "--list and --drop are two things"),
        (["--requeue", "all", "--requeue", "1"], "it stands alone"),
        (["--requeue", "x"], "--requeue 'x' is no number"),
        (["--drop", "all"], "--drop 'all' is no number"),
        (["--drop", "9" * 30], "is no number"),
        (["--stats", "--batch-size", "5"], "--batch-size has no say with --stats"),
        (["--limit", "5"], "--limit has no say without --list"),
        (["--requeue", "1", "--page", "x"], "--page has no say with --requeue"),
    ],
)
def test_ways_of_asking_do_not_mix(app: App, words: list[str], said: str) -> None:
    result = app.run("cleanup-files", *words)
    assert result.exit_code == 2
    assert said in result.stderr


def test_the_queue_trash_and_audit_are_seen_and_steered_without_a_server(app: App) -> None:
    assert app.json("cleanup-files", "--stats")["pending"] == 0
    assert app.json("cleanup-files", "--list") == {"items": [], "next": None}
    assert app.json("cleanup-files", "--requeue", "all") == {"requeued": [], "refused": []}
    assert app.json("cleanup-files", "--requeue", "7", code=1)["refused"][0]["code"] == "NOT_FOUND"
    assert app.json("cleanup-files", "--drop", "7", code=1)["refused"][0]["id"] == 7
    empty = app.run("trash")
    assert (empty.exit_code, empty.stdout, empty.stderr) == (0, "", "the trash is empty\n")
    assert app.run("audit", "--job", "X\x1b").stderr == "nothing is noted about X\n"
    app.run("keys", "create", "--user", "ana", "--role", "viewer")
    assert [each["verb"] for each in app.json("audit")["items"]] == ["key_created"]


# --- trash ---------------------------------------------------------------------------------------------


def test_what_is_in_the_trash_is_put_back_by_the_command_that_stands_beside_it(house: House) -> None:
    ids = {HOSTILE, "-5", "plain"}
    job = house.delete(*ids)
    found = house.json("trash")["items"]
    assert ids <= {each["id"] for each in found if each["job"] == job}
    shown = house.run("trash", "--query", "name")
    assert "\x1b" not in shown.stdout
    assert "\u202e" not in shown.stdout
    assert len(shown.stdout.splitlines()) == 2
    nothing = house.run("trash", "--query", "nowhere")
    assert nothing.stderr == "nothing in the trash has that in its label or id\n"
    assert house.run("trash", "--limit", "1").stderr.startswith("more: --page ")
    for item in sorted(ids):
        line = next(
            line
            for line in house.run("trash").stdout.splitlines()
            if f"{command_for(job, item)} --config " in line
        )
        words = words_of(line[line.index("bulkops undo") :])
        assert words[:5] == ["bulkops", "undo", job, "--id", item]
        assert house.json(*words[1:], "--wait")["succeeded"] == 1
    assert house.ask("SELECT count(*) FROM images WHERE name NOT LIKE 'gone%'") == 3
    assert not ids & {each["id"] for each in house.json("trash")["items"]}
    assert (house.folder / "images" / "f2.jpg").read_bytes() == b"a picture"


def words_of(command: str) -> list[str]:
    """Split a command as bash does."""
    told = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    return told.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize(
    "item", ["1", "a b", "$(id)", "", "'", "\n", "\x7f1", "é\u200b2", "\\'\t", "*", "-x"]
)
def test_a_command_names_any_id_in_one_printable_line(item: str) -> None:
    command = command_for("J", item)
    assert command.isprintable()
    assert words_of(command) == ["bulkops", "undo", "J", "--id", item]


def test_an_id_that_no_argument_can_bear_leaves_the_whole_job() -> None:
    assert command_for("J", "a\0b") == "bulkops undo J"


# --- tune ----------------------------------------------------------------------------------------------


def test_knobs_are_turned_while_a_job_runs_and_refused_when_it_ended(house: House) -> None:
    job = house.json("start", "notes", "close", "--all")["id"]
    house.run("pause", job)
    found = house.json("tune", job, "--priority", "120", "--speed", "2.5", "--batch-size", "7")
    knobs = ("priority", "max_items_per_second", "batch_size")
    assert [found[name] for name in knobs] == [120, 2.5, 7]
    told = house.run("tune", job, "--speed", "full", "--batch-size", "auto")
    assert told.stdout.rstrip().endswith("priority 120, full speed, batches of automatic size")
    assert house.json("show", job)["max_items_per_second"] is None
    refused = house.run("tune", job, "--priority", "100000")
    assert refused.exit_code == 1
    assert "/priority" in refused.stderr
    house.run("cancel", job)
    until(lambda: bool(house.json("show", job)["status"] == "cancelled"))
    ended = house.run("tune", job, "--speed", "5")
    assert ended.exit_code == 1
    assert ended.stderr.startswith("ILLEGAL_TRANSITION")
    assert house.run("tune", "nothing", "--speed", "5").exit_code == 1


# --- audit ---------------------------------------------------------------------------------------------


def test_the_audit_is_a_table_a_document_or_a_file(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "BULKOPS_KEY", house.json("keys", "create", "--user", "=cmd()", "--role", "owner")["key"]
    )
    job = house.json("start", "notes", "close", "--id", "3", "--reason", "why", "--wait")["id"]
    of_job = house.json("audit", "--job", job)["items"]
    assert {each["job"] for each in of_job} == {job}
    table = house.run("audit", "--job", job).stdout
    assert job in table
    assert "total=1" in table
    every = house.json("audit", "--limit", "1000")["items"]
    assert len(every) > 3
    lines = house.run("audit", "--format", "ndjson").stdout.splitlines()
    assert [json.loads(line) for line in lines] == every
    assert len(house.run("audit", "--format", "ndjson", "--limit", "2").stdout.splitlines()) == 2
    rows = list(csv.reader(io.StringIO(house.run("audit", "--format", "csv", "--limit", "3").stdout)))
    assert rows[0][:3] == ["seq", "at", "user"]
    assert [row[0] for row in rows[1:]] == [str(each["seq"]) for each in every[:3]]
    assert "'=cmd()" in {row[2] for row in rows[1:]}
    more = house.run("audit", "--limit", "1").stderr
    following = house.json("audit", "--limit", "1", "--page", more.split("--page ")[1].strip())
    assert following["items"] == every[1:2]
    nothing = house.run("audit", "--job", "X", "--format", "csv")
    assert nothing.stdout.strip() == "seq,at,user,tenant,verb,job,resource,detail"


def test_the_csv_is_the_servers_own(house: House) -> None:
    from bulkops.client import Client, Endpoint  # as the command does
    from bulkops.runtime_file import find_running

    running = find_running(house.folder / "bulkops-data")
    assert running is not None
    with (
        closing(Client(lambda: Endpoint(running.url, running.key))) as client,
        client.stream("/api/audit", {"format": "csv"}) as chunks,
    ):
        theirs = b"".join(chunks)
    assert house.run("audit", "--format", "csv").stdout_bytes == theirs


def test_the_audit_is_for_admins(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    key = house.json("keys", "create", "--user", "vera", "--role", "viewer")["key"]
    monkeypatch.setenv("BULKOPS_KEY", key)
    for words in (["audit", "--format", "csv"], ["webhooks"], ["cleanup-files", "--requeue", "1"]):
        refused = house.run(*words)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr.startswith("FORBIDDEN")


# --- webhooks ------------------------------------------------------------------------------------------


def test_a_webhook_is_made_tried_told_again_and_removed(house: House, heard: tuple[int, list[str]]) -> None:
    assert "bulkops webhooks add" in house.run("webhooks").stderr
    made = house.json("webhooks", "add", house.hook, "--event", "completed", "--description", "ours")
    assert made["secret"].startswith("whsec_")
    listed = house.run("webhooks", "list").stdout
    assert house.hook in listed
    assert made["secret"] not in listed
    assert "nothing sent" in listed
    assert house.run("webhooks", "messages", made["id"]).stderr == "nothing was to be sent yet\n"
    message = house.json("webhooks", "test", made["id"])["id"]
    until(lambda: heard[1] == [message])
    until(lambda: "delivered" in house.run("webhooks", "messages", made["id"]).stdout)
    assert house.run("webhooks", "messages", made["id"], "--state", "dead").stderr == "no message is dead\n"
    again = house.run("webhooks", "resend", made["id"], message)
    assert again.stdout == f"message {message} is pending\n"
    until(lambda: heard[1] == [message, message])
    assert house.run("webhooks", "resend", made["id"], "nothing").exit_code == 1
    assert house.run("webhooks", "remove", made["id"]).stdout == f"webhook {made['id']} is removed\n"
    assert house.run("webhooks", "remove", made["id"]).exit_code == 1
    assert house.json("webhooks") == {"items": [], "next": None}


def test_the_secret_stands_alone_on_stdout_and_a_private_address_is_refused(house: House) -> None:
    made = house.run("webhooks", "add", house.hook, "--event", "failed", "--event", "failed", "--tenant", "a")
    assert made.stdout.startswith("whsec_")
    assert made.stdout.count("\n") == 1
    found = house.json("webhooks", "list", "--tenant", "a")["items"]
    assert [each["events"] for each in found] == [["failed"]]
    assert house.json("webhooks", "list", "--tenant", "b")["items"] == []
    house.run("webhooks", "remove", found[0]["id"])
    refused = house.run("webhooks", "add", "https://10.0.0.1/x", "--event", "failed")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("INVALID_FIELD: /url")


# --- what cannot be meant, and nobody to ask -----------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["tune", "X"],
        ["tune", "X", "--speed", "fast"],
        ["tune", "X", "--speed", "nan"],
        ["tune", "X", "--batch-size", "2.5"],
        ["tune", "X", "--batch-size", "9" * 400],
        ["trash", "--limit", "0"],
        ["audit", "--format", "xml"],
        ["webhooks", "add", "https://app.example/x"],
        ["webhooks", "add", "https://app.example/x", "--event", "nonsense"],
        ["webhooks", "resend", "X"],
        ["webhooks", "messages", "X", "--state", "lost"],
    ],
)
def test_what_cannot_be_meant_exits_with_two(app: App, words: list[str]) -> None:
    assert app.run(*words).exit_code == 2


@pytest.mark.parametrize("words", [["tune", "X", "--speed", "1"], ["webhooks"], ["webhooks", "test", "X"]])
def test_without_a_server_it_exits_with_six(app: App, words: list[str]) -> None:
    assert app.run(*words).exit_code == 6
