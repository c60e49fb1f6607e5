"""`bulkops schedules` against a real server in a process of its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.test_cli import App, app, served

__all__ = ["app", "served"]

ADD = ("schedules", "add", "old notes", "notes", "delete", "--where", "status=open", "--where", "at<-90d")


def ids(found: Any) -> list[str]:
    return [each["id"] for each in found["items"]]


def test_one_is_added_listed_run_and_removed(served: App) -> None:
    made = served.json(*ADD, "--cron", "0 3 * * *", "--timezone", "Europe/Madrid", "--confirm", "DELETE")
    assert made["body"] == {
        "filter": {"status": "open", "at": {"lt": "-90d"}},
        "confirm": "DELETE",
    }
    listed = served.json("schedules", "list")
    assert ids(listed)[-1] == made["id"]
    assert ids(served.json("schedules")) == ids(listed)
    assert set(ids(listed)[:-1]) == {"maintenance.hourly", "maintenance.nightly"}
    table = served.run("schedules").stdout
    assert "0 3 * * * Europe/Madrid" in table
    assert "every 1h" in table
    job = served.json("schedules", "run", made["id"], "--wait")
    assert (job["status"], job["outcome"], job["label"]) == ("completed", "ok", "old notes")
    assert job["succeeded"] == served.ask("SELECT count(*) FROM notes WHERE deleted") > 0
    assert served.run("schedules", "remove", made["id"]).exit_code == 0
    assert made["id"] not in ids(served.json("schedules"))


def test_what_a_start_would_refuse_is_refused_when_it_is_added(served: App) -> None:
    refused = served.run(*ADD, "--every", "1d")
    assert refused.exit_code == 1
    assert "DELETE" in refused.stderr
    assert served.run(*ADD, "--every", "5s", "--confirm", "DELETE").exit_code == 1
    assert served.run("schedules", "remove", "maintenance.nightly").exit_code == 1
    assert served.run("schedules", "run", "nothing").exit_code == 1


def test_intervals_options_and_tenants_reach_the_server(served: App) -> None:
    made = served.json(
        *("schedules", "add", "tidy", "notes", "delete", "--all", "--exclude", "7", "--every", "6h"),
        *("--confirm", "DELETE", "--option", "hard=true", "--tenant", "a", "--reason", "why"),
    )
    assert (made["every"], made["tenant"]) == ("6h", "a")
    assert made["body"] == {
        "all": True,
        "exclude_ids": ["7"],
        "options": {"hard": True},
        "confirm": "DELETE",
        "reason": "why",
    }
    assert ids(served.json("schedules", "list", "--tenant", "a")) == [made["id"]]
    assert ids(served.json("schedules", "list", "--tenant", "b")) == []


@pytest.mark.parametrize(
    "words",
    [
        ["schedules", "add", "x", "notes"],
        ["schedules", "add", "x", "notes", "delete", "--every", "1d"],
        ["schedules", "add", "x", "notes", "delete", "--every", "1d", "--ids-from", "-"],
        ["schedules", "add", "x", "notes", "delete", "--all", "--option", "hard"],
        ["schedules", "remove"],
        ["schedules", "nonsense"],
    ],
)
def test_what_cannot_be_meant_exits_with_two(app: App, words: list[str]) -> None:
    assert app.run(*words).exit_code == 2


@pytest.mark.parametrize("words", [["schedules"], ["schedules", "list"], ["schedules", "run", "X"]])
def test_without_a_server_it_exits_with_six(app: App, words: list[str]) -> None:
    assert app.run(*words).exit_code == 6
