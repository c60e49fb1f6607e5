"""The views that look after things: trash, schedules, file deletions, webhooks, keys, audit, the story of a job."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.desk import Desk
from tests.js.demo_server import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.js.demo_server import DemoServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

VIEWS = ["trash", "schedules", "queue", "webhooks", "keys", "audit"]


def ended(desk: Desk, job: str) -> dict[str, Any]:
    view: dict[str, Any] = desk.server.ask("GET", f"/api/jobs/{job}?wait=30")
    assert view["terminal"], view
    return view


def deleted(desk: Desk, *, count: int) -> list[str]:
    """Delete some images in one job; return their ids."""
    items = desk.server.ask("GET", f"/api/bulk/images/items?limit={count}")["items"]
    ids = [item["id"] for item in items]
    job = desk.server.ask("POST", "/api/bulk/images/delete", {"ids": ids})["id"]
    assert ended(desk, job)["succeeded"] == count
    return ids


def test_what_a_job_took_is_found_in_the_trash_and_put_back(visit: Desk) -> None:
    name = deleted(visit, count=3)[1]
    visit.open("#/trash")
    visit.page.keyboard.press("/")
    visit.page.keyboard.type(name)
    until(lambda: visit.rows().count() == 1, within_s=10)
    assert "q=" in visit.page.url
    visit.row(name).get_by_role("button", name="Restore").click()
    visit.page.get_by_text("Nothing in the trash has this name.").wait_for()
    visit.wait_for_end()


def test_many_are_restored_at_once_each_by_the_job_that_took_it(visit: Desk) -> None:
    gone = deleted(visit, count=1) + deleted(visit, count=1)
    visit.open("#/trash")
    visit.rows().nth(1).wait_for()
    boxes = visit.rows().locator("td.pick input")
    boxes.nth(0).check()
    boxes.nth(1).check()
    visit.page.get_by_text("2 selected").wait_for()
    visit.button("Restore selected").click()
    visit.page.get_by_text("2 selected").wait_for(state="hidden")

    def restored() -> bool:
        paths = [f"/api/bulk/images/items/{item}/history" for item in gone]
        return all(visit.server.ask("GET", path)["items"][0]["label"].startswith("Undo") for path in paths)

    until(restored, within_s=20)


def test_a_key_is_made_shown_once_and_revoked(visit: Desk, chromium: Browser, standing: DemoServer) -> None:
    visit.open("#/keys")
    visit.button("New key").click()
    dialog = visit.dialog()
    dialog.get_by_label("User").fill("robot")
    dialog.get_by_label("Role").select_option("viewer")
    dialog.get_by_role("button", name="Make the key").click()
    secret = visit.dialog().locator(".secret .mono")
    secret.wait_for()
    key = secret.inner_text()
    visit.dialog().get_by_role("button", name="I have saved it").click()
    with Desk(chromium, standing) as robot:
        robot.log_in_by_key(key)
        links = robot.page.locator("nav a").all_inner_texts()
        assert not {"Keys", "Webhooks", "File deletions", "Audit", "Schedules"} & {
            each.strip() for each in links
        }
    visit.row("robot").get_by_role("button", name="Revoke").click()
    visit.dialog().get_by_role("button", name="Revoke").click()
    visit.row("robot").get_by_text("revoked").wait_for()
    assert key not in visit.page.content()


def test_a_refused_key_says_so_beside_its_field(visit: Desk) -> None:
    visit.open("#/keys")
    visit.button("New key").click()
    visit.dialog().get_by_label("User").fill("x" * 300)
    visit.dialog().get_by_role("button", name="Make the key").click()
    error = visit.dialog().locator('[data-field="user"] .error')
    until(lambda: error.inner_text() != "", within_s=10)


def test_a_webhook_is_added_with_its_secret_and_removed(visit: Desk) -> None:
    visit.open("#/webhooks")
    visit.button("New webhook").click()
    visit.dialog().get_by_label("Address").fill("https://192.168.7.1/hook")
    visit.dialog().get_by_role("button", name="Add it").click()
    error = visit.dialog().locator('[data-field="url"] .error')
    until(lambda: error.inner_text() != "", within_s=10)
    visit.dialog().get_by_label("Address").fill("https://93.184.215.14/hook")
    visit.dialog().get_by_role("button", name="Add it").click()
    assert visit.dialog().locator(".secret .mono").inner_text().startswith("whsec_")
    visit.dialog().get_by_role("button", name="I have saved it").click()
    row = visit.row("93.184.215.14")
    row.get_by_role("button", name="Test").click()
    visit.toast("A test message").wait_for()
    row.locator(".open").click()
    visit.dialog().get_by_text("test", exact=True).wait_for()
    visit.page.keyboard.press("Escape")
    row.get_by_role("button", name="Remove").click()
    visit.dialog().get_by_role("button", name="Remove", exact=True).click()
    row.wait_for(state="detached")


def test_a_schedule_is_made_run_and_removed(visit: Desk) -> None:
    visit.open("#/schedules")
    visit.button("New schedule").click()
    visit.dialog().get_by_label("What").select_option(label="Sessions: Close")
    visit.dialog().get_by_role("button", name="Go on").click()
    dialog = visit.dialog()
    dialog.get_by_label("Name", exact=True).fill("close old ones")
    dialog.get_by_label("Cron line").fill("every night")
    dialog.get_by_role("button", name="Schedule it").click()
    error = dialog.locator('[data-field="cron"] .error')
    until(lambda: error.inner_text() != "", within_s=10)
    dialog.get_by_label("Cron line").fill("0 3 * * *")
    dialog.get_by_role("button", name="Schedule it").click()
    row = visit.row("close old ones")
    row.wait_for()
    row.get_by_role("button", name="Run now").click()
    visit.wait_for_end()
    row.get_by_role("link", name="by hand").wait_for()
    row.get_by_role("button", name="Remove").click()
    visit.dialog().get_by_role("button", name="Remove", exact=True).click()
    row.wait_for(state="detached")


def test_a_file_that_could_not_go_is_seen_tried_again_and_given_up(visit: Desk) -> None:
    root = visit.server.folder
    with closing(sqlite3.connect(root / "app.db")) as app:
        (image, path), *_ = app.execute("SELECT id, path FROM images ORDER BY id DESC LIMIT 1").fetchall()
    (root / "images" / path).unlink()
    job = visit.server.ask("POST", "/api/bulk/images/delete", {"ids": [str(image)]})["id"]
    ended(visit, job)
    visit.open("#/queue")
    row = visit.row(path)
    row.get_by_text("Not there").wait_for()
    visit.button("Remove files now").click()
    visit.toast("gone").wait_for()
    row.get_by_role("button", name="Give up").click()
    visit.dialog().get_by_role("button", name="Give it up").click()
    row.wait_for(state="detached")


def test_the_story_of_a_job_says_who_why_and_of_which_and_leads_to_its_audit(visit: Desk) -> None:
    job = visit.server.ask(
        "POST", "/api/bulk/sessions/delete",
        {"filter": {"status": "closed"}, "reason": "<img src=x onerror=alert(1)> end of term"},
    )["id"]  # fmt: skip
    ended(visit, job)
    visit.page.evaluate("(hash) => { location.hash = hash; }", f"#/jobs/{job}")
    story = visit.page.get_by_role("region", name="Story")
    story.get_by_text("<img src=x onerror=alert(1)> end of term").wait_for()
    assert "status is closed" in story.inner_text()
    story.locator("summary").click()
    story.get_by_text("Start", exact=True).wait_for()
    with visit.page.expect_download() as download:
        story.get_by_role("link", name="Report (CSV)").click()
    assert download.value.path().read_text().startswith("id,outcome")
    story.get_by_role("link", name="As a list").click()
    visit.page.get_by_role("heading", name="Audit").wait_for()
    visit.rows().first.wait_for()
    assert f"job={job}" in visit.page.url


def test_every_view_is_usable_with_a_screen_reader_light_and_dark_and_narrow(visit: Desk, axe: str) -> None:
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        for view in VIEWS:
            visit.open(f"#/{view}")
            assert visit.axe(axe) == [], view
    visit.page.set_viewport_size({"width": 400, "height": 800})
    for view in VIEWS:
        visit.open(f"#/{view}")
        wide = "document.documentElement.scrollWidth > innerWidth"
        assert not visit.page.evaluate(wide), f"{view} is wider than a phone"


def test_what_can_be_done_with_a_row_is_in_reach_on_a_phone(visit: Desk) -> None:
    deleted(visit, count=1)
    visit.page.set_viewport_size({"width": 400, "height": 800})
    for view, name in (("schedules", "Run now"), ("trash", "Restore"), ("keys", "Revoke")):
        visit.open(f"#/{view}")
        box = visit.rows().get_by_role("button", name=name).first.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 400, view


def test_the_batches_of_a_job_are_one_row_of_the_audit(visit: Desk) -> None:
    body = {"filter": {"status": "open"}, "tenant": "oak", "batch_size": 50, "throttle_ms": 0}
    job = visit.server.ask("POST", "/api/bulk/receipts/close", body)["id"]
    total = ended(visit, job)["total"]
    visit.open(f"#/audit?job={job}")
    row = visit.row(f"{-(-total // 50)} batches")
    row.get_by_text(f"{total} items").wait_for()
    assert visit.rows().count() == 3, "start, batches, end"
    visit.page.get_by_text("Only the entries of one job.").wait_for()
