"""The command against a real server in a process of its own, and without one."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bulkops import __version__
from bulkops.cli import main
from bulkops.store.instance import InstanceLock
from tests.test_readme import README

CONFIG = """
[server]
port = 0

[resources.notes]
kind = "table"
database = "app.db"
table = "notes"
id = "id"
tenant = "owner"
label = "title"
soft_delete = "deleted"
status = { column = "status", closed = "closed", archived = "archived", busy = ["busy"] }
search = ["title", "status", "at"]
set = ["status"]

[resources.notes.actions.delete]
confirm = "DELETE"

[resources.notes.actions.close]
batch_size = 1
throttle_ms = 40

[resources.tags]
kind = "table"
database = "app.db"
table = "tags"
id = "id"
search = ["word"]
"""

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE notes (
  id INTEGER PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, status TEXT NOT NULL, at TEXT NOT NULL,
  deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE tags (id INTEGER PRIMARY KEY, word TEXT NOT NULL, note INTEGER);
CREATE TABLE uses (tag INTEGER NOT NULL REFERENCES tags (id));
"""


class App:
    """An application's folder with a config beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "bulkops.toml"
        self.config.write_text(CONFIG)
        with closing(sqlite3.connect(folder / "app.db")) as database, database:
            database.executescript(SCHEMA)
            database.executemany(
                "INSERT INTO notes (owner, title, status, at) VALUES (?, ?, ?, ?)",
                [
                    (
                        ("a", "b")[n % 2],
                        f"note {n}",
                        "busy" if n % 50 == 0 else "open",
                        f"2025-01-{n % 28 + 1:02}",
                    )
                    for n in range(1, 201)
                ],
            )
            database.executemany("INSERT INTO tags (word) VALUES (?)", [(f"w{n}",) for n in range(1500)])
            database.execute("INSERT INTO uses (tag) VALUES (3)")

    def ask(self, statement: str) -> Any:
        with closing(sqlite3.connect(self.folder / "app.db")) as database:
            return database.execute(statement).fetchone()[0]

    def run(self, *words: str, **more: Any) -> Result:
        return CliRunner().invoke(main, ["--config", str(self.config), *words], **more)

    def json(self, *words: str, code: int = 0) -> Any:
        result = self.run(*words, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def process(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bulkops", "--config", str(self.config), *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, **{**pipes, **more})

    @contextmanager
    def server(self) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
        process = self.process("serve", "--json")
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            yield process, json.loads(line)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.delenv("BULKOPS_KEY", raising=False)
    return App(tmp_path)


@pytest.fixture
def served(app: App) -> Iterator[App]:
    with app.server():
        yield app


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.02)


# --- words ---------------------------------------------------------------------------------------------


def test_the_module_and_the_script_are_the_same_command() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "bulkops", "--version"], capture_output=True, text=True, check=True
    )
    assert told.stdout == f"bulkops, version {__version__}\n"


def test_help_needs_neither_config_nor_engine() -> None:
    code = "import sys, bulkops.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('httpx', 'rich', 'uvicorn', 'starlette', 'aiosqlite') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


def commands_of(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield " ".join([*path, name]), command
        if isinstance(command, click.Group):
            yield from commands_of(command, *path, name)


def test_help_names_every_command_and_option_with_a_whole_sentence() -> None:
    assert isinstance(main, click.Group)
    told = " ".join(CliRunner().invoke(main, ["--help"]).stdout.split())
    found = dict(commands_of(main))
    assert {"start", "schedules add", "webhooks"} <= found.keys()
    for name, command in found.items():
        sentence = command.get_short_help_str(limit=1000)
        assert sentence, name
        assert " " in name or f" {name} {sentence}" in told
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, (name, option.name)


def test_a_mistyped_command_is_told_the_nearest(app: App) -> None:
    told = app.run("strat", "notes", "delete")
    assert told.exit_code == 2
    assert told.stderr.splitlines()[-1] == "Error: No such command 'strat'; did you mean \"start\"?"


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["start"],
        ["start", "notes", "delete"],
        ["start", "notes", "delete", "--all", "--id", "1"],
        ["start", "notes", "delete", "--where", "nothing"],
        ["validate", "notes", "delete", "--all", "--option", "hard"],
        ["report", "x", "--outcome", "nonsense"],
        ["keys", "create", "--user", "ana", "--role", "king"],
        ["keys", "create", "--user", "ana", "--role", "admin", "--expires-in", "soon"],
        ["cleanup-files", "--batch-size", "0"],
        ["--config", "absent.toml", "jobs"],
        ["--url", "http://127.0.0.1:1", "jobs"],
    ],
)
def test_what_cannot_be_meant_exits_with_two(app: App, words: list[str]) -> None:
    assert app.run(*words).exit_code == 2


@pytest.mark.parametrize(
    "words", [["resources"], ["start", "notes", "close", "--all"], ["watch", "X"], ["undo", "X"]]
)
def test_what_needs_a_server_exits_with_six_without_one(app: App, words: list[str]) -> None:
    result = app.run(*words)
    assert result.exit_code == 6
    assert "bulkops serve" in result.stderr


def test_an_address_nobody_listens_at_exits_with_six(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKOPS_KEY", "bk_x")
    result = app.run("--url", "http://127.0.0.1:1", "resources")
    assert result.exit_code == 6
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "url", ["", "not an address", "http://[::1", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://:80"]
)
def test_what_is_no_address_exits_with_two(app: App, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("BULKOPS_KEY", "bk_x")
    result = app.run("--url", url, "resources")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("is no address such as https://bulkops.example")


def test_a_wrong_config_exits_with_one_and_names_the_place(app: App) -> None:
    app.config.write_text("[server]\nworkerz = 4\n")
    result = app.run("jobs")
    assert result.exit_code == 1
    assert "bulkops.toml" in result.stderr
    assert "workerz" in result.stderr


# --- start, watch, verbs -------------------------------------------------------------------------------


def test_resources_are_listed_with_their_actions(served: App) -> None:
    result = served.run("resources")
    assert result.exit_code == 0
    assert "notes" in result.stdout
    assert "delete" in result.stdout
    assert served.json("resources")


def test_a_preview_changes_nothing(served: App) -> None:
    result = served.run("validate", "notes", "delete", "--all", "--tenant", "a")
    assert result.exit_code == 0
    assert result.stdout.startswith("delete 100 notes: 96 eligible, 4 not\n")
    assert served.json("validate", "notes", "delete", "--id", "1")["matched"] == 1
    assert served.json("jobs")["items"] == []


def test_a_start_without_the_word_is_refused_off_a_terminal(served: App) -> None:
    result = served.run("start", "notes", "delete", "--all", "--tenant", "a")
    assert result.exit_code == 1
    assert result.stderr.startswith("CONFIRMATION_REQUIRED: ")
    assert result.stderr.endswith("  pass it with --confirm DELETE\n")
    assert served.json("jobs")["items"] == []


def test_a_job_is_started_followed_undone_and_reported(served: App) -> None:
    words = ("--tenant", "b", "--confirm", "DELETE", "--expect", "100", "--reason", "spring")
    job = served.json("start", "notes", "delete", "--all", *words, "--wait")
    assert (job["status"], job["outcome"], job["succeeded"], job["reason"]) == (
        "completed",
        "ok",
        100,
        "spring",
    )
    assert served.ask("SELECT count(*) FROM notes WHERE deleted = 1") == 100
    result = served.run("undo", job["id"], "--wait")
    assert result.exit_code == 0
    assert "100 succeeded" in result.stdout
    assert served.ask("SELECT count(*) FROM notes WHERE deleted = 1") == 0
    report = served.run("report", job["id"], "--outcome", "succeeded")
    assert len(report.stdout.splitlines()) == 101


def test_without_wait_a_start_says_how_to_follow(served: App) -> None:
    result = served.run("start", "notes", "delete", "--id", "1", "--confirm", "DELETE", "--tenant", "b")
    assert result.exit_code == 0
    job = result.stdout.split()[0]
    assert result.stdout == f"{job} accepted\n"
    assert f"follow it with: bulkops watch {job} --config {served.config}\n" in result.stderr
    watched = served.run("watch", job)
    assert watched.exit_code == 0
    assert "1 succeeded" in watched.stdout
    shown = served.run("show", job)
    assert "succeeded        1\n" in shown.stdout
    assert job in served.run("jobs", "--status", "completed").stdout
    assert job not in served.run("jobs", "--status", "failed").stdout


def test_exit_codes_tell_how_a_job_ended(served: App) -> None:
    assert (
        served.run("start", "tags", "delete", "--id", "3", "--option", "hard=true", "--wait").exit_code == 4
    )
    partial = served.run("start", "tags", "delete", "--id", "3", "--id", "4", "--wait")
    assert partial.exit_code == 3
    assert "bulkops report" in partial.stdout
    assert served.run("start", "tags", "delete", "--id", "5", "--wait").exit_code == 0
    slow = served.json("start", "notes", "close", "--all", "--tenant", "a")
    assert served.run("cancel", slow["id"]).exit_code == 0
    assert served.run("watch", slow["id"]).exit_code == 5
    again = served.run("pause", slow["id"])
    assert again.exit_code == 1
    assert again.stderr.startswith("ILLEGAL_TRANSITION: ")


def test_a_failed_item_is_retried_once_the_reason_is_gone(served: App) -> None:
    job = served.json("start", "tags", "delete", "--id", "3", "--wait", code=4)
    shown = served.run("show", job["id"])
    assert "CONSTRAINT" in shown.stdout
    with closing(sqlite3.connect(served.folder / "app.db")) as database, database:
        database.execute("DELETE FROM uses")
    done = served.json("retry", job["id"], "--code", "CONSTRAINT", "--wait")
    assert (done["succeeded"], done["retry_of"]) == (1, job["id"])


def test_conditions_select(served: App) -> None:
    words = (
        "--where",
        "at>=2025-01-10",
        "--where",
        "at<2025-01-12",
        "--where",
        "status=open",
        "--tenant",
        "a",
    )
    expected = served.ask(
        "SELECT count(*) FROM notes WHERE owner = 'a' AND at >= '2025-01-10' AND at < '2025-01-12' AND status = 'open'"
    )
    assert served.json("validate", "notes", "close", *words)["matched"] == expected > 0
    result = served.run("validate", "notes", "close", "--where", "owner=a")
    assert result.exit_code == 1
    assert result.stderr.startswith("INVALID_FIELD: /filter/owner: ")


def test_more_ids_than_a_request_takes_are_uploaded(served: App) -> None:
    ids = "\n".join(str(n) for n in range(10, 1500))
    result = served.run(
        "start", "tags", "delete", "--ids-from", "-", "--exclude", "11", "--wait", "--json", input=ids
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["succeeded"] == 1489
    assert served.ask("SELECT count(*) FROM tags") == 11


def test_ids_that_are_no_text_are_a_line_and_exit_two(served: App) -> None:
    (served.folder / "ids").write_bytes(b"1\n\xff\n")
    for words in (["--ids-from", str(served.folder / "ids")], ["--id", "\udcff"]):
        result = served.run("validate", "notes", "close", *words)
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: text in UTF-8 is needed: ")


def test_nothing_is_no_job(served: App) -> None:
    for words in (["show"], ["watch"], ["pause"], ["report"]):
        result = served.run(*words, "")
        assert (result.exit_code, result.stderr.splitlines()[0]) == (1, "NOT_FOUND: no such job")


def test_pause_and_resume(served: App) -> None:
    job = served.json("start", "notes", "close", "--all", "--tenant", "a")["id"]
    served.json("pause", job)
    until(lambda: served.json("show", job)["status"] == "paused")
    assert "paused" in served.run("jobs").stdout
    assert served.run("resume", job).exit_code == 0
    assert served.json("show", job)["status"] in {"queued", "running"}
    served.json("cancel", job)


@pytest.mark.parametrize(
    "words",
    [["show", "../../healthz"], ["start", "nots", "delete", "--all"], ["start", "tags", "delte", "--all"]],
)
def test_what_is_unknown_exits_with_one_and_says_where_to_look(served: App, words: list[str]) -> None:
    result = served.run(*words)
    assert result.exit_code == 1
    problem, hint = result.stderr.splitlines()
    assert problem.startswith("NOT_FOUND: ")
    assert "bulkops resources" in hint


def test_with_json_a_refusal_is_json_on_stderr(served: App) -> None:
    result = served.run("show", "nonsense", "--json")
    assert json.loads(result.stderr)["code"] == "NOT_FOUND"
    assert result.stdout == ""


# --- terminals and signals -----------------------------------------------------------------------------


class Terminal:
    """A command on a real pseudo-terminal."""

    def __init__(self, app: App, *words: str) -> None:
        self.screen = ""
        self._main, other = pty.openpty()
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
        environ.pop("NO_COLOR", None)
        self.process = app.process(*words, stdin=other, stdout=other, stderr=other, env=environ)
        os.close(other)

    def read_until(self, text: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < deadline, self.screen
            if select.select([self._main], [], [], 0.1)[0]:
                self._read()

    def _read(self) -> bool:
        try:
            data = os.read(self._main, 65536)
        except OSError:  # the other side is closed
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._main)
        return self.process.wait(20)


def test_on_a_terminal_the_preview_is_shown_and_the_word_asked_for(served: App) -> None:
    terminal = Terminal(served, "start", "notes", "delete", "--all", "--tenant", "a", "--wait")
    terminal.read_until("Type DELETE")
    assert "delete 100 notes: 96 eligible, 4 not" in terminal.screen
    assert served.json("jobs")["items"] == []
    terminal.type("DELETE\n")
    assert terminal.end() == 0
    assert "96 succeeded, 4 skipped" in terminal.screen
    assert "100 of 100 (100.0 %)" in terminal.screen


def test_on_a_terminal_another_word_starts_nothing(served: App) -> None:
    terminal = Terminal(served, "start", "notes", "delete", "--all", "--tenant", "a")
    terminal.read_until("Type DELETE")
    terminal.type("delete\n")
    assert terminal.end() == 1
    assert "nothing was started" in terminal.screen
    assert served.json("jobs")["items"] == []


def test_lists_are_drawn_on_a_terminal(served: App) -> None:
    terminal = Terminal(served, "resources")
    assert terminal.end() == 0
    assert "───" in terminal.screen
    assert "notes" in terminal.screen


def test_errors_are_red_on_a_terminal(served: App) -> None:
    terminal = Terminal(served, "show", "nonsense")
    assert terminal.end() == 1
    assert "\x1b[31m" in terminal.screen


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(served: App) -> None:
    terminal = Terminal(served, "start", "notes", "close", "--all", "--tenant", "a", "--wait")
    terminal.read_until("running")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    job = served.json("jobs")["items"][0]
    assert f"bulkops watch {job['id']}" in terminal.screen
    assert job["status"] == "running"
    served.json("cancel", job["id"])


def test_a_watcher_survives_a_killed_server(app: App) -> None:
    with app.server() as (first, _):
        job = app.json("start", "notes", "close", "--all", "--tenant", "a")["id"]
        watcher = app.process("watch", job)
        assert watcher.stderr is not None
        assert job in watcher.stderr.readline()
        first.kill()
        first.wait()
    with app.server():
        out, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, err
    assert "96 succeeded, 4 skipped" in out
    assert "waiting" in err


# --- the server and its runtime file -------------------------------------------------------------------


def test_serve_says_where_everything_is_and_tidies_up(app: App) -> None:
    file = app.folder / "bulkops-data" / "runtime.json"
    with app.server() as (process, told):
        assert told["url"].startswith("http://127.0.0.1:")
        assert "/#login=" in told["login_url"]
        assert told["config"] == str(app.config)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        content = json.loads(file.read_text())
        assert (content["pid"], content["url"]) == (process.pid, told["url"])
    assert process.returncode == 0
    assert not file.exists()


def test_asked_again_and_again_to_stop_it_ends_once_and_in_order(app: App) -> None:
    process = app.process("serve", "--json")
    assert process.stdout is not None
    assert process.stdout.readline()
    while process.poll() is None:  # a terminal's Ctrl-C comes twice to a packaged binary
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert not (app.folder / "bulkops-data" / "runtime.json").exists()


def test_the_key_of_the_last_run_opens_nothing(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    with app.server():
        old = json.loads((app.folder / "bulkops-data" / "runtime.json").read_text())["key"]
    with app.server() as (_, told):
        monkeypatch.setenv("BULKOPS_KEY", old)
        result = app.run("--url", told["url"], "resources")
        assert result.exit_code == 1
        assert result.stderr.startswith("UNAUTHENTICATED: ")


def test_a_second_server_is_refused_and_names_the_first(served: App) -> None:
    result = served.run("serve")
    assert result.exit_code == 1
    pid = json.loads((served.folder / "bulkops-data" / "runtime.json").read_text())["pid"]
    assert str(pid) in result.stderr


def test_a_taken_port_is_one_line_and_says_what_to_do(app: App) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = app.run("serve", "--port", str(port))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"cannot listen at 127.0.0.1 port {port}: ")
    assert "--port" in line


def test_another_server_is_reached_by_url_and_key(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    with app.server() as (_, told):
        key = app.run("keys", "create", "--user", "ana", "--tenant", "a", "--role", "admin").stdout.strip()
        monkeypatch.setenv("BULKOPS_KEY", key)
        result = CliRunner().invoke(
            main, ["--url", told["url"], "validate", "notes", "close", "--all", "--json"]
        )
        assert json.loads(result.stdout)["matched"] == 100
        # The key also speaks for somebody at the server of this config.
        assert app.json("validate", "notes", "close", "--all")["matched"] == 100


# --- without a server ----------------------------------------------------------------------------------


def test_jobs_are_listed_shown_and_reported_the_same_without_a_server(app: App) -> None:
    with app.server():
        job = app.json("start", "tags", "delete", "--id", "3", "--id", "4", "--wait", code=3)["id"]
        shown, listed = app.json("show", job), app.json("jobs")
        report = app.run("report", job).stdout
    assert app.json("show", job) == shown
    assert app.json("jobs", "--show-maintenance") == listed
    assert app.json("jobs", "--limit", "1", "--status", "completed,failed", "--resource", "tags") == listed
    assert app.run("report", job).stdout == report
    assert app.json("report", job, "--outcome", "failed")["code"] == "CONSTRAINT"
    assert app.run("show", "nonsense").exit_code == 1


def test_who_is_at_it_for_a_moment_is_waited_for(app: App) -> None:
    assert app.run("jobs").exit_code == 0
    lock = InstanceLock(app.folder / "bulkops-data")
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    assert app.run("jobs").exit_code == 0


def test_keys_are_made_listed_and_revoked_with_and_without_a_server(app: App) -> None:
    made = app.json("keys", "create", "--user", "ana", "--tenant", "a", "--role", "admin", "--name", "ci")
    with app.server():
        other = app.json("keys", "create", "--user", "bo", "--role", "viewer", "--expires-in", "90d")
        assert [key["id"] for key in app.json("keys", "list")["items"]] == [other["id"], made["id"]]
        assert other.keys() == made.keys()
        assert app.run("keys", "revoke", made["id"]).exit_code == 0
    listed = {key["id"]: key for key in app.json("keys", "list")["items"]}
    assert listed.keys() == {made["id"], other["id"]}
    assert listed[made["id"]]["revoked_at"]
    assert "key" not in listed[other["id"]]
    assert app.run("keys", "revoke", other["id"]).exit_code == 0
    assert app.run("keys", "revoke", "nonsense").exit_code == 1
    bad = app.run("keys", "create", "--user", " ", "--role", "viewer")
    assert bad.stderr.startswith("INVALID_FIELD: /user")


def test_files_are_cleaned_up_with_and_without_a_server(app: App) -> None:
    nothing = {"processed": 0, "removed": 0, "missing": 0, "failed": 0, "remaining": 0}
    assert app.json("cleanup-files", "--batch-size", "500", "--max-attempts", "5") == nothing
    with app.server():
        assert app.json("cleanup-files") == nothing


def test_a_backup_is_whole_with_and_without_a_server_and_never_replaces(app: App) -> None:
    missing = app.run("backup", str(app.folder / "early.db"))
    assert missing.exit_code == 1
    assert not (app.folder / "early.db").exists()
    with app.server():
        app.run("start", "tags", "delete", "--id", "4", "--wait")
        assert app.run("backup", str(app.folder / "one.db")).exit_code == 0
    assert app.json("backup", str(app.folder / "two.db"))["bytes"] > 0
    for name in ("one.db", "two.db"):
        with closing(sqlite3.connect(app.folder / name)) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert copy.execute("SELECT count(*) FROM jobs WHERE status = 'completed'").fetchone() == (1,)
        assert stat.S_IMODE((app.folder / name).stat().st_mode) == 0o600
    before = (app.folder / "one.db").read_bytes()
    again = app.run("backup", str(app.folder / "one.db"))
    assert again.exit_code == 1
    assert "never replaces" in again.stderr
    assert (app.folder / "one.db").read_bytes() == before


def test_the_line_of_the_readme_puts_a_backup_back_also_after_a_crash(app: App) -> None:
    (line,) = re.findall(r"^rm -f bulkops.db-wal .*$", README, re.MULTILINE)
    with app.server() as (process, _):
        paused = app.json("start", "tags", "delete", "--all", "--canary", "1", code=0)["id"]
        until(lambda: app.json("show", paused)["status"] == "paused")
        assert app.run("backup", str(app.folder / "copy.db")).exit_code == 0
        later = app.json("start", "tags", "delete", "--id", "9", "--wait")["id"]
        process.kill()
        process.wait()
    assert (app.folder / "bulkops.db-wal").stat().st_size
    subprocess.run(["sh", "-ec", line.replace("FILE", "copy.db")], cwd=app.folder, check=True)
    assert app.run("show", later).exit_code == 1
    with app.server():
        found = app.json("show", paused)
        assert (found["status"], found["status_reason"]["code"]) == ("paused", "NEEDS_REVIEW")
        assert app.run("resume", paused, "--wait").exit_code in (0, 3)


# --- init and check ------------------------------------------------------------------------------------


def test_init_writes_a_config_that_check_finds_fine(app: App) -> None:
    shutil.move(app.config, app.folder / "old.toml")
    told = app.run("init", str(app.folder / "app.db"))
    assert told.exit_code == 0
    assert "check --explain" in told.stderr
    assert "notes" in told.stdout
    assert app.run("check").exit_code == 0
    before = app.config.read_text()
    again = app.run("init", str(app.folder / "app.db"))
    assert again.exit_code == 1
    assert "--force" in again.stderr
    app.config.write_text("mine")
    assert app.run("init", str(app.folder / "app.db"), "--force").exit_code == 0
    assert app.config.read_text() == before


def test_init_of_something_else_writes_nothing(app: App) -> None:
    app.config.unlink()
    assert app.run("init", str(app.folder / "absent.db")).exit_code == 1
    assert not app.config.exists()


def test_check_names_the_line_and_exits_with_one(app: App) -> None:
    app.config.write_text(app.config.read_text().replace('label = "title"', 'label = "titel"'))
    line = app.config.read_text().splitlines().index('label = "titel"') + 1
    result = app.run("check")
    assert result.exit_code == 1
    assert f"bulkops.toml:{line}: error: " in result.stdout
    findings = app.json("check", code=1)["findings"]
    assert [found["line"] for found in findings if found["severity"] == "error"] == [line]


def test_check_explains_each_statement_and_names_the_missing_index(app: App) -> None:
    result = app.run("check", "--explain")
    assert result.exit_code == 0
    assert 'UPDATE "notes" AS t SET "deleted" = :to0' in result.stdout
    assert "index: INTEGER PRIMARY KEY" in result.stdout
    assert 'misses: CREATE INDEX "notes_owner_id" ON "notes" ("owner", "id")' in result.stdout
    explained = {
        (each["resource"], each["action"]): each for each in app.json("check", "--explain")["actions"]
    }
    walk = explained["notes", "delete"]["statements"][0]
    assert (walk["index"], walk["missing"] is None) == (None, False)
    with closing(sqlite3.connect(app.folder / "app.db")) as database:
        database.execute(walk["missing"])
    again = {(each["resource"], each["action"]): each for each in app.json("check", "--explain")["actions"]}
    mended = again["notes", "delete"]["statements"][0]
    assert (mended["index"], mended["missing"]) == ("notes_owner_id", None)


def test_check_finds_schedules_that_could_never_start(app: App) -> None:
    app.config.write_text(
        app.config.read_text()
        + """
[schedules.a]
every = "1h"
resource = "notes"
action = "delet"
all = true
[schedules.b]
every = "1h"
resource = "notes"
action = "delete"
filter = { titel = { lt = "-90d" } }
confirm = "DELETE"
[schedules.c]
every = "1h"
resource = "notes"
action = "delete"
all = true
options = { hrd = true }
[schedules.d]
every = "1h"
resource = "tags"
action = "export"
all = true
"""
    )
    result = app.run("check")
    assert result.exit_code == 1
    told = [line for line in result.stdout.splitlines() if " schedules." in line]
    lines = app.config.read_text().splitlines()
    wanted = {
        "warning: schedules.a.action: notes has no action 'delet'; did you mean \"delete\"?": 'action = "delet"',
        "error: schedules.b.filter.titel: ": 'filter = { titel = { lt = "-90d" } }',
        'error: schedules.c.confirm: delete wants its word: confirm = "DELETE"': "[schedules.c]",
        "error: schedules.c.options.hrd: ": "options = { hrd = true }",
    }
    assert len(told) == len(wanted)
    serve = app.run("serve")
    assert serve.exit_code == 1
    assert serve.stderr.startswith("bulkops.toml: schedules.a: notes has no action 'delet'; it has: delete, ")
    for sentence, line in wanted.items():
        assert any(f"bulkops.toml:{lines.index(line) + 1}: {sentence}" in each for each in told), told


def test_check_finds_a_foreign_database_in_the_place_of_ours(app: App) -> None:
    text = app.config.read_text()
    with closing(sqlite3.connect(app.folder / "other.db")) as other:
        other.execute("CREATE TABLE t (a)")
    app.config.write_text(text.replace("[server]\n", '[server]\ndatabase = "other.db"\n'))
    result = app.run("check")
    assert result.exit_code == 1
    assert "error: server.database: other.db is a database of something else" in result.stdout
    app.config.write_text(text)
    with app.server():
        assert app.run("check").exit_code == 0
