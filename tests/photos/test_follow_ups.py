"""Which jobs follow which, of all actions, in every situation."""

from __future__ import annotations

from typing import Any

import pytest

from bulkops.resources.contract import Completed
from bulkops.resources.photos import tasks
from bulkops.resources.photos.chores import CHORES


def following(action: str, **situation: Any) -> list[tuple[str, int, bool]]:
    done = Completed(
        **{
            "action": action, "options": {"project": "p"}, "undo": False, "task_type": None, "maintenance": False,
            "succeeded": 1, **situation,
        }
    )  # fmt: skip
    found = tasks.follow_ups(done)
    assert all(each.options["project"] == "p" for each in found)
    return [(each.action, each.priority, each.maintenance) for each in found]


def test_a_commit_checks_and_cleans_up_behind_itself() -> None:
    assert following("file_removal", task_type="change_commit") == [
        ("manifest_check", 95, True), ("folder_check", 95, True), ("manifest_cleaning", 80, True)
    ]  # fmt: skip
    assert following("file_removal") == []


def test_an_upload_makes_pictures_of_what_came() -> None:
    assert following("upload_postprocess", task_type="upload_processing") == [
        ("generate_derivatives", 100, False)
    ]
    (row,) = tasks.follow_ups(
        Completed(
            action="upload_postprocess", options={"project": "p", "files": ["a.jpg"]}, undo=False,
            task_type="upload_processing", maintenance=False, succeeded=0,
        )
    )  # fmt: skip
    assert row.options == {"project": "p", "files": ["a.jpg"]}
    assert following("upload_postprocess") == []


def test_a_folder_check_registers_only_what_it_found() -> None:
    assert following("folder_check") == [("upload_postprocess", 95, True)]
    assert following("folder_check", succeeded=0) == []
    assert following("upload_postprocess", maintenance=True) == [("generate_derivatives", 95, True)]


def test_what_an_undo_brought_back_gets_its_pictures_again() -> None:
    assert following("file_removal", undo=True, task_type="change_commit") == [
        ("generate_derivatives", 95, True)
    ]
    assert following("file_removal", undo=True, succeeded=0) == []


@pytest.mark.parametrize(
    "action", sorted(set(CHORES) - {"file_removal", "folder_check", "upload_postprocess"})
)
@pytest.mark.parametrize("undo", [False, True])
def test_nothing_else_begins_anything_so_that_no_chain_is_endless(action: str, undo: bool) -> None:
    for task_type in [None, *tasks.TYPES]:
        assert following(action, undo=undo, task_type=task_type) == []


def test_every_task_begins_with_an_action() -> None:
    assert set(tasks.TYPES.values()) <= set(CHORES)
