"""The stories that `bulkops demo` shows: of each of the five systems its main job, on the demo's data.

What comes in: a server, the demo's folder, a stage; what goes out: what was done and how it is taken back. Each
first gives the application again what an earlier story took, as its users would.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bulkops.cli import screen
from bulkops.cli.demo_stage import Stage, open_stage
from bulkops.cli.desk import job_path
from bulkops.cli.progress import follow
from bulkops.cli.tasks import follow_task
from bulkops.client import Client
from bulkops.errors import Refusal

if TYPE_CHECKING:
    from bulkops.demo import Business

_Job = dict[str, Any]
#: So that small jobs can be seen at all: a few items at a time, and a pause.
_VISIBLE: Final = {"batch_size": 3, "throttle_ms": 80}
_QUEUE_S: Final = 20.0
_LOOK_S: Final = 0.05


class Told(msgspec.Struct, kw_only=True):
    """What a story did. ``forgiven``: how many of its failures belong to it."""

    system: str
    did: str
    jobs: list[_Job]
    back: list[str]
    seconds: float = 0.0
    forgiven: int = 0

    @property
    def items(self) -> int:
        """How many items its jobs brought to a good end, an item counted by each job."""
        return sum(job["succeeded"] for job in self.jobs)

    @property
    def failed(self) -> int:
        """How many failures its jobs had."""
        return sum(job["failed"] for job in self.jobs)

    @property
    def as_meant(self) -> bool:
        """Whether all came as the story has it."""
        return self.failed <= self.forgiven and all(job["status"] == "completed" for job in self.jobs)


class _Scene(msgspec.Struct, frozen=True):
    """All that a story needs."""

    client: Client
    folder: Path
    stage: Stage

    def run(self, resource: str, action: str, body: dict[str, Any]) -> _Job:
        """Start a job and show it to its end."""
        job = self.client.create(f"/api/bulk/{resource}/{action}", body | {"reason": "demo"})
        return follow(self.client, job, self.stage.next_view())

    def run_task(self, task_type: str, project: str) -> list[_Job]:
        """Start a task and show its jobs to the end of the last; returns them."""
        task = self.client.create(f"/api/tasks/{task_type}", {"project": project, "reason": "demo"})
        task = follow_task(self.client, task, self.stage.next_view)
        return [self.client.get(job_path(job["id"])) for job in task["jobs"]]


def tell(client: Client, folder: Path, system: str, *, as_json: bool) -> Told:
    """Show the story of a system.

    Raises:
        Refusal, NoServer: the server's answer to a start.
        DemoRefused: the demo's data are not what they were.

    """
    intention, story = _STORIES[system]
    with open_stage(system, intention, as_json=as_json) as stage:
        started = time.monotonic()
        told = story(_Scene(client, folder, stage))
        told.seconds = time.monotonic() - started
    return told


def start_receipts(client: Client, folder: Path) -> tuple[Business, _Job]:
    """Start the job for the first business that may have one now; with none, wait for it.

    An earlier demo's job that is still active is taken instead.
    """
    from bulkops.demo import BUSINESSES, refill  # late: only this command needs it

    wait_s = 0.0
    while True:
        for business in BUSINESSES:
            refill(folder, business)
            body = {"all": True, "tenant": business.id, "confirm": "DELETE", "reason": "demo"}
            try:
                return business, client.create("/api/bulk/receipts/delete", body)
            except Refusal as refused:
                active = refused.extra.get("job")
                if refused.code == "JOB_ACTIVE" and isinstance(active, str):
                    return business, client.get(job_path(active))
                if refused.code != "RATE_LIMITED":
                    raise
                wait_s = float(refused.headers.get("retry-after", "5"))
        screen.note(f"each business may start one such job a minute; waiting {wait_s:.0f} s")
        time.sleep(wait_s)


def _receipts(scene: _Scene) -> Told:
    business, job = start_receipts(scene.client, scene.folder)
    job = follow(scene.client, job, scene.stage.next_view())
    did = f"deleted all receipts of {business.name}{_left_alone(job)}"
    return Told(system="receipts", did=did, jobs=[job], back=_undo(job))


def _dossiers(scene: _Scene) -> Told:
    from bulkops.demo import refill_dossiers  # late: only this command needs it
    from bulkops.demo_data.dossiers import MISSING, PURGED

    refill_dossiers(scene.folder)
    ids = [*PURGED[:3], MISSING, *PURGED[3:]]
    job = scene.run("dossiers", "purge", {"ids": ids, "confirm": "PURGE", **_VISIBLE})
    did = f"purged {job['succeeded']} folders; {MISSING} was not there"
    back = ["a purge is for good, a delete is not"]
    return Told(system="dossiers", did=did, jobs=[job], back=back)


def _photos(scene: _Scene) -> Told:
    from bulkops.demo import decide_on_photos, upload_photos  # late: only this command needs it
    from bulkops.demo_data.photos import PROJECTS

    project = PROJECTS[0]
    decide_on_photos(scene.folder)
    committed = scene.run_task("change_commit", project)
    files = upload_photos(scene.folder)
    if find_spec("PIL") is not None:
        processed = scene.run_task("upload_processing", project)
    else:
        scene.stage.say("thumbnails are left out: pip install 'bulkops[photos]' brings Pillow for them")
        options = {"project": project, "files": files}
        processed = [scene.run("photos", "upload_postprocess", {"all": True, "options": options})]
    damaged = _failures(scene.client, processed, "CORRUPT")
    did = f"committed {project}, took in {len(files)} new files"
    if damaged:
        did += f"; {damaged[0]['sample_message'].partition(':')[0]} is damaged"
    jobs = [*committed, *processed]
    return Told(
        system="photos",
        did=did,
        jobs=jobs,
        back=_undo(committed[0]),
        forgiven=sum(failure["count"] for failure in damaged),
    )


def _sessions(scene: _Scene) -> Told:
    from bulkops.demo import refill_sessions  # late: only this command needs it

    refill_sessions(scene.folder)
    unfinished = {"filter": {"status": {"in": ["open", "processing"]}}}
    preview = scene.client.post("/api/bulk/sessions/validate", {"action": "close", **unfinished})
    scene.stage.say(
        f"validate: {preview['eligible_count']} of {preview['matched']} can be closed,"
        f" {preview['ineligible_count']} are being processed"
    )
    visible = {"batch_size": 10, "throttle_ms": 60}
    closed = scene.run("sessions", "close", {**unfinished, **visible})
    done = {"filter": {"status": "closed"}}
    options = {"format": "csv", "include_details": True}
    exported = scene.run("sessions", "export", {**done, **visible, "options": options})
    archived = scene.run("sessions", "archive", {**done, **visible})
    files = [made for made in exported["artifacts"] if made["status"] == "ready"]
    return Told(
        system="sessions",
        did=f"closed {closed['succeeded']}{_left_alone(closed)}, exported and archived {archived['succeeded']}",
        jobs=[closed, exported, archived],
        back=[*(f"bulkops download {made['id']}" for made in files), *_undo(archived), *_undo(closed)],
    )


def _images(scene: _Scene) -> Told:
    from bulkops.demo import refill_images  # late: only this command needs it
    from bulkops.demo_data.tables import CLIENTS

    refill_images(scene.folder)
    client, _ = CLIENTS[0]
    started = time.monotonic()
    job = scene.run("images", "delete", {"filter": {"client_id": client}})
    rows_s = time.monotonic() - started
    _work_off(scene, job["succeeded"])
    files_s = time.monotonic() - started
    did = f"deleted client {client}: rows gone after {rows_s:.1f} s, files after {files_s:.1f} s"
    return Told(system="images", did=did, jobs=[job], back=_undo(job))


_STORIES: Final[dict[str, tuple[str, Callable[[_Scene], Told]]]] = {
    "receipts": ("delete all that a business has, 50 rows at a time; files after them", _receipts),
    "dossiers": ("purge folders with all they hold; one of those asked for is not there", _dossiers),
    "photos": ("remove the files that are not kept, then take an upload in", _photos),
    "sessions": ("look first, then close; export with details, archive", _sessions),
    "images": ("delete a client's images: rows at once, files from a durable queue", _images),
}

SYSTEMS: Final = tuple(_STORIES)


def _work_off(scene: _Scene, total: int) -> None:
    """Show the deletion queue until no file waits any more, or for long enough."""
    view = scene.stage.next_view()
    deadline = time.monotonic() + _QUEUE_S
    while True:
        pending = scene.client.get("/api/cleanup/stats")["pending"]
        view.show(_queue_as_job(total, pending))
        if not pending or time.monotonic() > deadline:
            return
        time.sleep(_LOOK_S)


def _queue_as_job(total: int, pending: int) -> _Job:
    processed = max(total - pending, 0)
    return {
        "id": "queue",
        "label": "Files in the deletion queue",
        "status": "running" if pending else "completed",
        "total": total,
        "processed": processed,
        "percent": round(100 * processed / total, 1) if total else None,
        "terminal": not pending,
    }


def _failures(client: Client, jobs: list[_Job], code: str) -> list[dict[str, Any]]:
    """Return why items of some jobs failed, as far as the code is this one."""
    found = [
        each for job in jobs if job["failed"] for each in client.get(job_path(job["id"], "errors"))["items"]
    ]
    return [each for each in found if each["code"] == code]


def _left_alone(job: _Job) -> str:
    return f" ({job['skipped']} are left alone)" if job["skipped"] else ""


def _undo(job: _Job) -> list[str]:
    return [f"bulkops undo {job['id']}"] if "undo" in job["allowed_actions"] else []
