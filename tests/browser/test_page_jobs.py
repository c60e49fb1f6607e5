"""The list of jobs, the page of one, tasks, and what is made for other pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.desk import Desk
from tests.js.demo_server import DemoServer, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


def ended(desk: Desk, resource: str, action: str, **body: object) -> str:
    """Run a job to its end; returns its id."""
    job = desk.server.ask("POST", f"/api/bulk/{resource}/{action}", body)
    desk.server.ask("GET", f"/api/jobs/{job['id']}?wait=30")
    return str(job["id"])


def test_jobs_are_listed_newest_first_filtered_and_opened(visit: Desk) -> None:
    ended(visit, "sessions", "close", ids=["nothing-here"], reason="to see what is said")
    ended(visit, "images", "delete", filter={"client_id": "fjord"})
    visit.open("#/jobs")
    visit.row("Delete images").first.wait_for()
    assert "Delete images" in visit.rows().nth(0).inner_text()
    assert "“to see what is said”" in visit.rows().nth(1).inner_text()
    assert "1 skipped" in visit.rows().nth(1).inner_text()
    bar = visit.rows().nth(1).locator(".meter .skip").bounding_box()
    assert bar is not None
    assert bar["width"] > 20, "what was skipped has its part of the bar"
    visit.page.get_by_label("Any resource").select_option("sessions")
    visit.row("Delete images").first.wait_for(state="detached")
    assert "resource=sessions" in visit.page.evaluate("location.hash")
    visit.page.get_by_label("Any status").select_option("failed")
    visit.page.get_by_text("No job fits these filters").wait_for()
    visit.page.go_back()
    visit.open("#/jobs")
    visit.page.get_by_role("button", name="Delete images").first.click()
    visit.page.get_by_role("heading", name="Delete images").wait_for()
    visit.page.locator("main bulk-progress").get_by_text("50 of 50").wait_for()
    visit.page.locator("main bulk-progress").get_by_role("button", name="Undo").click()
    visit.page.get_by_role("heading", name="Undo: Delete images").wait_for()
    visit.wait_for_end("Undo: Delete images")


def test_the_list_follows_what_others_start(visit: Desk) -> None:
    visit.open("#/jobs")
    ended(visit, "sessions", "archive", filter={"status": "closed"}, reason="from the shell")
    visit.row("“from the shell”").get_by_text("Done", exact=True).wait_for()


def test_maintenance_is_hidden_until_it_is_wanted(visit: Desk) -> None:
    visit.open("#/jobs")
    with visit.page.expect_request("**/api/jobs?*show_maintenance=true*"):
        visit.page.get_by_label("Show maintenance").check()
    visit.page.reload()
    visit.page.get_by_label("Show maintenance").wait_for()
    assert visit.page.get_by_label("Show maintenance").is_checked()


def test_jobs_of_a_task_stand_under_its_name_and_end_with_one_toast(visit: Desk) -> None:
    visit.open("#/jobs")
    for filter_ in ({"client_id": "cirrus"}, {"client_id": "borealis"}):
        visit.server.ask(
            "POST",
            "/api/bulk/images/delete",
            {"filter": filter_, "task_id": "spring", "max_items_per_second": 60},
        )
    visit.page.locator("tr.task-row").wait_for()
    visit.page.locator("tr.of-task").nth(1).wait_for()
    visit.toast("Delete completed").wait_for()
    visit.toast("Delete completed").get_by_role("link", name="Details").click()
    visit.page.locator('main[data-at*="task_id=spring"]').wait_for()
    until(lambda: visit.rows().count() == 3)
    assert visit.toast("Delete images").count() == 0


def test_a_job_of_later_says_when_it_starts(visit: Desk) -> None:
    later = (datetime.now(tz=UTC) + timedelta(days=9, hours=6)).isoformat()
    job = visit.server.ask("POST", "/api/bulk/sessions/export", {"all": True, "run_at": later})["id"]
    visit.open("#/jobs?status=scheduled")
    visit.row("Export sessions").get_by_text("in 9 days").wait_for()
    visit.open(f"#/jobs/{job}")
    visit.page.get_by_role("region", name="Story").get_by_text("in 9 days").wait_for()
    visit.server.ask("POST", f"/api/jobs/{job}/cancel", {})


def test_an_address_that_leads_nowhere_leads_to_the_start(visit: Desk) -> None:
    visit.page.evaluate("() => { location.hash = '#/nothing'; }")
    visit.page.get_by_role("heading", name="No such page").wait_for()
    visit.page.get_by_role("link", name="Go to the start").click()
    visit.rows().first.wait_for()


def test_a_job_that_is_not_there_is_said_so(visit: Desk) -> None:
    visit.page.evaluate("() => { location.hash = '#/jobs/01JNOTHINGHERE'; }")
    visit.page.get_by_text("There is no such thing, or it is not yours to see").wait_for()


def test_the_elements_work_in_a_plain_page(visit: Desk) -> None:
    visit.page.goto(f"{visit.server.url}/static/examples.html")
    visit.page.get_by_role("button", name="Delete all…").click()
    dialog = visit.page.get_by_role("dialog")
    dialog.get_by_label("Type DELETE").fill("DELETE")
    dialog.get_by_role("button", name="receipts").click()
    progress = visit.page.locator("#action bulk-progress")
    progress.get_by_role("button", name="Cancel").click()
    progress.get_by_role("button", name="Cancel the job").click()
    visit.page.get_by_text("bulk-finished:").wait_for()
    assert visit.page.locator("#events > *").count() > 2


def test_axe_finds_nothing_in_the_examples(visit: Desk, axe: str) -> None:
    ended(visit, "sessions", "close", ids=["nothing-here"])
    visit.page.goto(f"{visit.server.url}/static/examples.html")
    visit.page.locator("#progress bulk-progress").get_by_text("Done", exact=True).wait_for()
    assert visit.axe(axe) == []


def test_a_task_is_begun_from_its_resource_and_told_as_one(chromium: Browser, folder: Path) -> None:
    with DemoServer(folder) as server, Desk(chromium, server) as desk:
        desk.log_in_by_key()
        desk.open("#/resources/photos")
        desk.button("More tasks").click()
        desk.button("Trash maintenance…").wait_for()
        desk.page.keyboard.press("Escape")
        desk.button("Commit changes…").click()
        desk.dialog().get_by_role("button", name="Begin").click()
        desk.dialog().locator("[data-field=project] .error").filter(has_text="project").wait_for()
        desk.dialog().get_by_label("Project").fill("2024-harvest")
        desk.dialog().get_by_role("button", name="Begin").click()
        desk.page.wait_for_url("**task_id=**")
        task = desk.page.locator("tr.task-row")
        task.filter(has_text="Commit changes").filter(has_text="2024-harvest").wait_for()
        desk.toast("Files removed").wait_for()
        assert desk.page.locator(".toast").count() == 1
        assert desk.row("Removing files").count() == 1
