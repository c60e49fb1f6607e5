"""A job followed to its end over a scripted server: news, silence, lost logs and restarts."""

from __future__ import annotations

from typing import Any

import pytest

from bulkops.cli import channels, progress
from bulkops.cli.channels import by_poll
from bulkops.cli.progress import Lines, follow
from bulkops.client import NoServer
from bulkops.errors import Refusal


def job(status: str = "running", processed: int = 0, cursor: str = "e:1", **more: Any) -> dict[str, Any]:
    return {
        "id": "J", "action": "delete", "label": "Delete", "status": status, "processed": processed, "total": 10,
        "percent": processed * 10.0, "items_per_second": 5.0, "eta_seconds": 2.0, "cursor": cursor,
        "terminal": status in {"completed", "failed", "cancelled"}, "status_reason": None, **more,
    }  # fmt: skip


class Script:
    """Stands in for the client: answers polls and reads in the order written."""

    def __init__(self, polls: list[Any], reads: list[Any]) -> None:
        self.polls, self.reads = polls, reads
        self.asked: list[str] = []
        self.reconnected = 0

    def poll(self, topic: str, since: str) -> Any:
        assert topic == "job:J"
        self.asked.append(since)
        return self._next(self.polls)

    def get(self, path: str) -> Any:
        assert path == "/api/jobs/J"
        return self._next(self.reads)

    def reconnect(self) -> None:
        self.reconnected += 1

    def _next(self, answers: list[Any]) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Seen:
    """A view that remembers."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int]] = []
        self.said: list[str] = []

    def show(self, found: dict[str, Any]) -> None:
        self.shown.append((found["status"], found["processed"]))

    def say(self, text: str) -> None:
        self.said.append(text)


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"seq": 0, "kind": kind, "job": "J", "data": data}


def news(cursor: str, *events: dict[str, Any]) -> dict[str, Any]:
    seq = int(cursor.partition(":")[2])
    items = [{**each, "seq": seq} for each in events]
    return {"prev": "e:1", "cursor": cursor, "head": cursor, "items": items}


def run(script: Script, first: dict[str, Any]) -> tuple[dict[str, Any], Seen]:
    seen = Seen()
    client: Any = script
    return follow(client, first, seen, ways=[by_poll]), seen


def test_a_finished_job_is_shown_and_not_asked_for() -> None:
    done, seen = run(Script([], []), job("completed", 10))
    assert done["status"] == "completed"
    assert seen.shown == [("completed", 10)]


def test_progress_moves_the_view_and_the_end_is_read_from_the_job() -> None:
    script = Script(
        [
            news("e:2", event("progress", status="running", total=10, processed=4)),
            news("e:3", event("progress", status="running", total=10, processed=9), event("completed")),
        ],
        [job("completed", 10, "e:3")],
    )
    done, seen = run(script, job())
    assert seen.shown == [("running", 0), ("running", 4), ("completed", 10)]
    assert script.asked == ["e:1", "e:2"]
    assert done["processed"] == 10


def test_a_trimmed_log_makes_it_read_the_job_and_go_on_from_there() -> None:
    script = Script(
        [{"reset": "trimmed", "cursor": "e:90"}, news("e:99", event("cancelled"))],
        [job(processed=5, cursor="e:95"), job("cancelled", 6, "e:99")],
    )
    done, seen = run(script, job())
    assert script.asked == ["e:1", "e:95"]
    assert seen.shown == [("running", 0), ("running", 5), ("cancelled", 6)]
    assert done["status"] == "cancelled"


def test_silence_makes_it_look_for_itself() -> None:
    done, _ = run(Script([news("e:1")], [job("failed", 3, "e:7")]), job())
    assert done["status"] == "failed"


def test_a_pause_is_said_once_with_the_way_on() -> None:
    reason = {"code": "RUNTIME_CAP", "message": "300 s are over"}
    paused = job("paused", 5, "e:5", status_reason=reason)
    script = Script([news("e:5", event("paused")), news("e:5"), news("e:6", event("completed"))],
                    [paused, paused, job("completed", 10)])  # fmt: skip
    _, seen = run(script, job())
    assert seen.said == ["paused, RUNTIME_CAP: 300 s are over; go on with: bulkops resume J"]


def test_a_server_that_restarts_is_waited_for_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "back_off_s", lambda _: 0.0)
    draining = Refusal("DRAINING", "shutting down")
    script = Script([draining, NoServer("gone"), NoServer("gone"), news("e:2", event("completed"))],
                    [job("completed", 10)])  # fmt: skip
    done, seen = run(script, job())
    assert script.reconnected == 3
    assert seen.said == ["the server went away; the job goes on when it is back, waiting"]
    assert done["status"] == "completed"


def test_a_server_that_stays_away_ends_the_following(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "HEARD_S", -1.0)
    monkeypatch.setattr(channels, "back_off_s", lambda _: 0.0)
    with pytest.raises(NoServer):
        run(Script([NoServer("gone"), NoServer("gone")], []), job())


def test_a_revoked_key_ends_the_following_at_once() -> None:
    with pytest.raises(Refusal, match="key"):
        run(Script([Refusal("UNAUTHENTICATED", "the key is revoked")], []), job())


def test_lines_tell_each_status_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for state in (job("preparing", total=None), job(processed=1), job(processed=2), job("completed", 10)):
        lines.show(state)
    assert capsys.readouterr().err == (
        "J preparing\nJ running 1 of 10 (10.0 %), 5/s\nJ completed 10 of 10 (100.0 %), 5/s\n"
    )
