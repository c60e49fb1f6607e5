"""A job followed to its end: the live bar on a terminal, a line now and then elsewhere.

What comes in: a client and a job; what goes out: the finished job. It follows the event log from the job's
cursor, survives a restarting server, and reads the job again whenever it cannot be sure.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from bulkops.cli import screen
from bulkops.cli.channels import WAYS, Broken, Line, Way
from bulkops.cli.desk import job_path
from bulkops.cli.invocation import typed
from bulkops.client import HEARD_S, Client, NoServer
from bulkops.errors import Refusal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY_S: Final = 5.0
#: What a progress event carries of a job.
_MOVING: Final = (
    "status",
    "total",
    "processed",
    "succeeded",
    "failed",
    "skipped",
    "percent",
    "items_per_second",
    "eta_seconds",
)


class View(Protocol):
    """Shows a job as it goes."""

    def show(self, job: dict[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...


def follow(client: Client, job: dict[str, Any], view: View, *, ways: Sequence[Way] = WAYS) -> dict[str, Any]:
    """Show the job until it ends and return it as it is then.

    Raises:
        Refusal: the job is not the caller's, or the key was revoked.
        NoServer: the server stayed away for a minute; the job goes on when it comes back.

    """
    with closing(Line(client, job["id"], ways)) as line:
        follower = _Follower(client, job, view, line)
        while not follower.job["terminal"]:
            follower.step()
        return follower.job


class _Follower:
    """Keeps the newest state of a job and the cursor it belongs to."""

    def __init__(self, client: Client, job: dict[str, Any], view: View, line: Line) -> None:
        self.job = dict(job)
        self._line = line
        self._client = client
        self._view = view
        self._since = job["cursor"]
        self._lost_at: float | None = None
        self._told: str | None = None
        self._show()

    def step(self) -> None:
        """Wait for news and take them in."""
        try:
            self._take(self._line.hear(self._since))
        except (NoServer, Refusal) as error:
            self._wait_for_server(error)
        else:
            self._lost_at = None

    def _take(self, answer: dict[str, Any]) -> None:
        items = answer.get("items", [])
        for event in items:
            if event["kind"] == "progress":
                self.job.update({name: event["data"][name] for name in _MOVING if name in event["data"]})
        self._since = answer["cursor"]
        # Other kinds change more than they carry, and silence may mean that the log was trimmed or restored.
        if not items or any(event["kind"] not in {"progress", "changed"} for event in items):
            self._read_again()
        self._show()

    def _read_again(self) -> None:
        self.job = self._client.get(job_path(self.job["id"]))
        self._since = self.job["cursor"]

    def _show(self) -> None:
        self._view.show(self.job)
        reason = self.job.get("status_reason")
        told = f"{reason['code']}: {reason['message']}" if reason and self.job["status"] == "paused" else None
        if told is not None and told != self._told:
            self._view.say(f"paused, {told}; go on with: {typed('resume', self.job['id'])}")
        self._told = told

    def _wait_for_server(self, error: NoServer | Refusal) -> None:
        if isinstance(error, Refusal) and error.code not in {"DRAINING", "INTERNAL"}:
            raise error
        now = time.monotonic()
        pause_s = self._line.lost(error)
        if self._lost_at is None:
            self._lost_at = now
            if not isinstance(error, Broken) or error.away:
                self._view.say("the server went away; the job goes on when it is back, waiting")
        elif now - self._lost_at > HEARD_S:
            raise error
        time.sleep(pause_s)
        self._client.reconnect()


class Lines:
    """A view for logs and pipes: a line when the status changes, and one every few seconds."""

    def __init__(self, *, by_label: bool = False) -> None:
        """Begin each line with the job's id, or with what it is called."""
        self._name = "label" if by_label else "id"
        self._status: str | None = None
        self._next = 0.0

    def show(self, job: dict[str, Any]) -> None:
        now = time.monotonic()
        if job["status"] == self._status and now < self._next:
            return
        self._status, self._next = job["status"], now + _LINE_EVERY_S
        screen.note(f"{screen.clean(job[self._name])} {job['status']}{_numbers(job)}")

    def say(self, text: str) -> None:
        screen.note(screen.clean(text))


def _numbers(job: dict[str, Any]) -> str:
    if job["total"] is None:
        return ""
    percent = "" if job["percent"] is None else f" ({job['percent']} %)"
    rate = f", {job['items_per_second']:,.0f}/s" if job.get("items_per_second") else ""
    return f" {job['processed']:,} of {job['total']:,}{percent}{rate}"


class Silence:
    """The view of `--json`: nothing but what the server being away makes worth saying."""

    def show(self, job: dict[str, Any]) -> None:
        pass

    def say(self, text: str) -> None:
        screen.note(screen.clean(text))


class Bar:
    """A view for terminals: bar, counts, rate and ETA, redrawn ten times a second."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def show(self, job: dict[str, Any]) -> None:
        if self._task is None:
            self._task = self._progress.add_task("", total=None, status="", numbers="", left="")
        self._progress.update(
            self._task,
            total=job["total"],
            completed=job["processed"],
            description=screen.clean(job["label"] or job["action"]),
            status=job["status"],
            numbers=_numbers(job).strip() or "counting",
            left=_left(job),
        )

    def say(self, text: str) -> None:
        self._progress.console.print(screen.clean(text), markup=False, highlight=False)


def _left(job: dict[str, Any]) -> str:
    eta = job.get("eta_seconds")
    if job["terminal"] or eta is None:
        return ""
    minutes, seconds = divmod(round(eta), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


@contextmanager
def open_view(*, as_json: bool) -> Iterator[View]:
    """Choose the view that fits where stderr goes."""
    if as_json:
        yield Silence()
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        from rich.console import Console  # late: slow to import
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        columns = (
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.fields[status]}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield Bar(progress)
