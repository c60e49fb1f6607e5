"""What jobs and tasks are called when nobody named them: names of actions and task types in plain words.

Names come in, words for people go out; nothing here decides anything.
"""

from __future__ import annotations

from typing import Final

_KNOWN: Final = {
    "change_commit": "Commit changes",
    "upload_processing": "Upload processing",
    "file_removal": "Removing files",
    "upload_postprocess": "Processing uploads",
    "generate_derivatives": "Generating thumbnails and previews",
}


#: What is said once a task of this type went well.
_DONE: Final = {
    "change_commit": "Files removed",
    "upload_processing": "Upload processing completed",
}


def humanise(name: str) -> str:
    """Write a name as words: ``manifest_check`` is ``Manifest check``."""
    words = " ".join(name.replace("_", " ").replace("-", " ").split())
    return words[:1].upper() + words[1:]


def task_label(task_type: str) -> str:
    """Return what a task of this type is called."""
    return _KNOWN.get(task_type) or humanise(task_type)


def task_done(task_type: str) -> str:
    """Return what to say when a task of this type went well."""
    return _DONE.get(task_type) or f"{humanise(task_type)} completed"


def job_label(action: str, resource: str, *, undo: bool) -> str:
    """Return what a job is called: ``Delete receipts``; names of several words say of what themselves."""
    label = _KNOWN.get(action) or humanise(action)
    if action not in _KNOWN and " " not in label:
        label = f"{label} {humanise(resource).lower()}"
    return f"Undo: {label}" if undo else label
