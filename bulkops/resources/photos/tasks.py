"""Tasks of photo projects: which job each type begins with, and which jobs follow which.

Names in, names out. Follow-ups of a commit and of an upload belong to their task; the thumbnails of what came back
follow an undo, and new photos that a check found are registered, wherever the job came from.
"""

from __future__ import annotations

from typing import Any, Final

from bulkops.resources.contract import Completed, FollowUp

#: The types of tasks, each with the action of its first job.
TYPES: Final = {
    "change_commit": "file_removal",
    "upload_processing": "upload_postprocess",
    "revert": "revert",
    "generate_derivatives": "generate_derivatives",
    "manifest_check": "manifest_check",
    "folder_check": "folder_check",
    "manifest_cleaning": "manifest_cleaning",
    "trash_maintenance": "trash_maintenance",
}
_USER: Final = 100
_CHECKS: Final = 95
_CLEANING: Final = 80


def follow_ups(done: Completed) -> list[FollowUp]:
    """Say what follows a job that completed, however its items fared: follow-ups look at what is there by then."""
    if done.undo:
        return [_pictures(done)] if done.action == "file_removal" and done.succeeded else []
    if done.action == "file_removal" and done.task_type == "change_commit":
        return [
            _maintenance("manifest_check", _CHECKS, done),
            _maintenance("folder_check", _CHECKS, done),
            _maintenance("manifest_cleaning", _CLEANING, done),
        ]
    if done.action == "folder_check" and done.succeeded:
        follow = _maintenance("upload_postprocess", _CHECKS, done)
        return [FollowUp(action=follow.action, options=follow.options | {"new_only": True}, priority=_CHECKS)]
    if done.action == "upload_postprocess" and (done.task_type is not None or done.maintenance):
        return [_pictures(done)]
    return []


def _maintenance(action: str, priority: int, done: Completed) -> FollowUp:
    return FollowUp(action=action, options=_of_project(done), priority=priority)


def _pictures(done: Completed) -> FollowUp:
    """Make derivatives as whoever wanted the photos: for a user what a user uploaded."""
    mine = done.task_type == "upload_processing" and not done.maintenance and not done.undo
    files = {"files": done.options["files"]} if "files" in done.options else {}
    return FollowUp(
        action="generate_derivatives",
        options=_of_project(done) | files,
        priority=_USER if mine else _CHECKS,
        maintenance=not mine,
    )


def _of_project(done: Completed) -> dict[str, Any]:
    project = done.options.get("project")
    return {} if project is None else {"project": project}
