"""What jobs and tasks are called when nobody named them."""

from __future__ import annotations

import pytest

from bulkops.labels import humanise, job_label, task_done, task_label


@pytest.mark.parametrize(
    ("action", "resource", "label"),
    [
        ("delete", "receipts", "Delete receipts"),
        ("purge", "old_dossiers", "Purge old dossiers"),
        ("file_removal", "photos", "Removing files"),
        ("upload_postprocess", "photos", "Processing uploads"),
        ("generate_derivatives", "photos", "Generating thumbnails and previews"),
        ("manifest_check", "photos", "Manifest check"),
    ],
)
def test_a_job_is_called_after_its_action_and_resource(action: str, resource: str, label: str) -> None:
    assert job_label(action, resource, undo=False) == label


def test_an_undo_says_so() -> None:
    assert job_label("delete", "receipts", undo=True) == "Undo: Delete receipts"


def test_known_task_types_have_labels_and_others_are_humanised() -> None:
    assert task_label("change_commit") == "Commit changes"
    assert task_label("upload_processing") == "Upload processing"
    assert task_label("spring-cleaning") == "Spring cleaning"
    assert humanise("") == ""


def test_a_task_that_went_well_has_words_of_its_own() -> None:
    assert task_done("change_commit") == "Files removed"
    assert task_done("upload_processing") == "Upload processing completed"
    assert task_done("folder_check") == "Folder check completed"
