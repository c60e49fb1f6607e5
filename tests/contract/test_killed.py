"""A resource made in Python in a real server that is killed: the batch comes again, under the same key."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tests.contract.mailbox_api import MailboxApi, mailbox_api
from tests.contract.test_contract import readme_module
from tests.crashes.servers import Server

_CONFIG = """
[server]
port = 0

[resources.mailboxes]
kind = "mailboxes:Mailboxes"
settings = {{ url = "{url}" }}

[resources.mailboxes.actions.delete]
batch_size = 4
"""


def prepare(folder: Path, api: MailboxApi) -> None:
    api.fill(12)
    (folder / "mailboxes.py").write_text(readme_module(), encoding="utf-8")
    (folder / "bulkops.toml").write_text(_CONFIG.format(url=api.url), encoding="utf-8")


def test_killed_within_a_batch_it_ends_with_every_mailbox_counted_once(tmp_path: Path) -> None:
    with mailbox_api() as api:
        prepare(tmp_path, api)
        with Server(tmp_path) as server:
            # It dies while the provider is deleting the sixth: that one is gone, and nobody was told.
            api.after["m6"] = server.kill
            job = server.start("mailboxes", all=True, confirm="DELETE")
            server.process.wait(20)
        assert "m6" not in api.mailboxes
        assert len(api.mailboxes) == 6
        with Server(tmp_path) as server:
            done = server.end(job)
            assert (done["total"], done["succeeded"], done["outcome"]) == (12, 12, "ok")
            assert api.mailboxes == {}
            keys = defaultdict(set)
            for _, mailbox, key in api.calls:
                keys[mailbox].add(key)
            assert keys == {f"m{n}": {f"{job}-{(n + 3) // 4}-m{n}"} for n in range(1, 13)}

            # Killed in the middle of the undo, it comes back likewise, as it was.
            api.after["m9"] = server.kill
            undoing = server.verb(job, "undo")["id"]
            server.process.wait(20)
        with Server(tmp_path) as server:
            assert server.end(undoing)["succeeded"] == 12
        assert {mailbox: row["megabytes"] for mailbox, row in api.mailboxes.items()} == {
            f"m{n}": n for n in range(1, 13)
        }


def test_a_service_that_is_down_pauses_the_job_and_not_the_server(tmp_path: Path) -> None:
    with mailbox_api() as api:
        prepare(tmp_path, api)
        with Server(tmp_path) as server:
            job = server.start("mailboxes", all=True, confirm="DELETE", canary=4)
            assert server.reach(job, "paused")["status_reason"]["code"] == "CANARY"
            api.broken = True
            status, problem = server.ask("GET", "/api/bulk/mailboxes/items")
            assert (status, problem["code"]) == (503, "QUEUE_FULL")
            server.verb(job, "resume")
            paused = server.reach(job, "paused")
            assert paused["status_reason"]["code"] == "IO_ERROR"
            assert paused["status_reason"]["message"] == "read of mailboxes raised HTTPStatusError"
            api.broken = False
            server.verb(job, "resume")
            assert server.end(job)["succeeded"] == 12


def check(folder: Path) -> tuple[int, str]:
    """Run `bulkops check` from somewhere else: the class lies beside the config."""
    done = subprocess.run(
        [sys.executable, "-m", "bulkops", "--config", str(folder / "bulkops.toml"), "check"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_check_makes_the_class_and_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    with mailbox_api() as api:
        prepare(tmp_path, api)
        assert check(tmp_path)[0] == 0
        module = tmp_path / "mailboxes.py"
        sound = module.read_text()
        for old, new, line, complaint in (
            ("def read(", "def red(", 6, "Mailboxes has no method read(self, ids)"),
            ("url: str", "uri: str", 6, "cannot make 'mailboxes:Mailboxes': TypeError"),
            (
                '"type": "boolean"',
                '"type": "bool"',
                6,
                "action delete: options: 'bool' is no type; did you mean",
            ),
            ("import httpx", "import httpxx", 6, "cannot import 'mailboxes:Mailboxes': ModuleNotFoundError"),
        ):
            assert old in sound
            module.write_text(sound.replace(old, new))
            code, told = check(tmp_path)
            assert code == 1
            assert f"bulkops.toml:{line}: error: resources.mailboxes.kind: {complaint}" in told, told
        assert api.calls == [], "it is asked nothing"
