"""Acting: the preview, the word, what is refused and where that is said, the way back."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.desk import Desk
from tests.js.demo_server import DemoServer, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


def live_receipts(folder: Path, tenant: str) -> int:
    statement = "SELECT count(*) FROM receipts WHERE business_id = ? AND is_deleted = 0"
    with closing(sqlite3.connect(folder / "app.db")) as database:
        count: int = database.execute(statement, [tenant]).fetchone()[0]
        return count


def test_a_deletion_is_previewed_confirmed_by_its_word_watched_and_undone(visit: Desk) -> None:
    folder, before = visit.server.folder, live_receipts(visit.server.folder, "harbor")
    dialog = visit.preview("#/resources/receipts?tenant=harbor&status.eq=open")
    body = {"action": "delete", "filter": {"status": "open"}, "tenant": "harbor"}
    told = visit.server.ask("POST", "/api/bulk/receipts/validate", body)
    matched, eligible = told["matched"], told["eligible_count"]
    assert 0 < eligible < matched
    go = dialog.get_by_role("button", name=f"Delete {eligible} receipts")
    said = dialog.inner_text()
    assert f"{eligible} of the {matched} selected receipts." in said
    assert f"{matched - eligible} are skipped:" in said
    assert "You can undo this for 30 days." in said
    assert "It is protected: pinned is 1" in said
    assert "rows of attachments" in said
    assert f"confirm exactly {eligible} receipts" in said
    for wrong in ("", "delete", "DELETE "):
        dialog.get_by_label("Type DELETE").fill(wrong)
        assert go.is_disabled()
    dialog.get_by_label("Type DELETE").fill("DELETE")
    dialog.get_by_label("Reason").fill("the till was wrong")
    with visit.page.expect_request("**/api/bulk/receipts/delete") as asked:
        go.click()
    sent = json.loads(asked.value.post_data or "{}")
    assert sent["expected_count"] == matched
    assert "idempotency-key" in asked.value.headers
    visit.page.locator("tr.going, tr.gone").first.wait_for()  # what is going is greyed
    visit.tray().locator("li").wait_for()
    end = visit.wait_for_end()
    assert f"{eligible} of {matched}" in end
    assert f"{matched - eligible} skipped" in end
    assert live_receipts(folder, "harbor") == before - eligible
    assert visit.page.locator("tr.picked").count() == 0

    undo = visit.toast("Delete receipts").get_by_role("button", name="Undo")
    assert " s" in undo.inner_text(), "it counts down"
    undo.click()
    visit.wait_for_end("Undo: Delete receipts")
    assert live_receipts(folder, "harbor") == before


def test_the_search_is_cleared_and_the_first_page_shown_when_a_job_ends(visit: Desk) -> None:
    visit.preview("#/resources/sessions?q=Interview&search_in=title", "Close…")
    visit.dialog().get_by_role("button", name="Close ").last.click()
    visit.wait_for_end()
    visit.page.wait_for_function("() => !location.hash.includes('Interview')")
    assert visit.page.get_by_label("Search sessions").input_value() == ""


def test_options_are_a_form_and_change_the_preview(visit: Desk) -> None:
    dialog = visit.preview("#/resources/sessions?status.eq=open")
    with visit.page.expect_request("**/validate") as asked:
        dialog.get_by_label("Take along: exports").check()
    assert json.loads(asked.value.post_data or "{}")["options"] == {"cascade": True}
    dialog.get_by_text("rows of exports").wait_for()
    visit.page.keyboard.press("Escape")
    visit.open("#/resources/receipts?tenant=oak")
    visit.page.get_by_label("Select OAK-000002").check()
    visit.page.get_by_role("button", name="More", exact=True).click()
    visit.page.get_by_role("button", name="Set…").click()
    visit.dialog().get_by_label("Status", exact=True).fill("paid")
    with visit.page.expect_request("**/api/bulk/receipts/set") as started:
        visit.dialog().get_by_role("button", name="Set 1 item of receipts").click()
    assert json.loads(started.value.post_data or "{}")["options"] == {"set": {"status": "paid"}}
    visit.wait_for_end()


def test_what_cannot_be_undone_is_said_before_anything_else_is(visit: Desk) -> None:
    dialog = visit.preview("#/resources/receipts?tenant=oak&status.eq=paid")
    dialog.get_by_text("You can undo this for 30 days.").wait_for()
    dialog.get_by_label("Delete for good").check()
    dialog.get_by_text("This cannot be undone.").wait_for()
    assert dialog.get_by_text("You can undo").count() == 0
    visit.page.keyboard.press("Escape")
    dialog = visit.preview("#/resources/images?client_id.eq=aurora", "Export…")
    assert dialog.get_by_text("You can undo").count() == 0, "there is nothing to undo"
    visit.page.keyboard.press("Escape")


def test_a_start_that_nobody_waits_for_is_not_tried_again(visit: Desk) -> None:
    visit.page.clock.install()
    dialog = visit.preview("#/resources/sessions", "Archive…")
    tries: list[str] = []

    def cut(route: Route) -> None:
        tries.append(route.request.url)
        route.abort()

    visit.page.route("**/api/bulk/sessions/archive", cut)
    dialog.get_by_role("button", name="Archive ").last.click()
    dialog.get_by_role("button", name="Starting…").wait_for()
    while len(tries) < 3:
        visit.page.clock.run_for(500)
    dialog.get_by_text("The server does not answer yet.").wait_for()
    dialog.get_by_role("button", name="Not now").click()
    dialog.wait_for(state="detached")
    before = len(tries)
    for _ in range(10):
        visit.page.clock.run_for(3_000)
    visit.page.unroute("**/api/bulk/sessions/archive")
    assert len(tries) <= before + 1, "one may have been on its way"


def test_a_count_that_has_changed_stops_the_start_until_it_is_counted_again(visit: Desk) -> None:
    dialog = visit.preview("#/resources/images?client_id.eq=delta")
    with closing(sqlite3.connect(visit.server.folder / "app.db")) as database, database:
        database.execute(
            "INSERT INTO images (client_id, path, width, height, created_at)"
            " VALUES ('delta', 'delta/one-more.jpg', 1, 1, '2025-01-01T00:00:00Z')"
        )
    dialog.get_by_role("button", name="Delete 100 images").click()
    dialog.get_by_role("alert").get_by_text("101").wait_for()
    assert dialog.get_by_role("button", name="Delete 100 images").is_disabled()
    dialog.get_by_role("button", name="Count again").click()
    dialog.get_by_role("button", name="Delete 101 images").click()
    visit.wait_for_end()


def test_refusals_are_said_where_they_belong(visit: Desk) -> None:
    def refuse(route: Route) -> None:
        errors = [{"pointer": "/batch_size", "detail": "must be between 1 and 10000"}]
        problem = {
            "title": "Invalid",
            "status": 422,
            "detail": "no",
            "code": "INVALID_FIELD",
            "errors": errors,
        }
        route.fulfill(status=422, content_type="application/problem+json", body=json.dumps(problem))

    dialog = visit.preview("#/resources/sessions", "Archive…")
    visit.page.route("**/api/bulk/sessions/archive", refuse)
    dialog.get_by_role("button", name="Archive ").last.click()
    field = dialog.locator("[data-field=batch_size]")
    field.get_by_text("Must be between 1 and 10000").wait_for()
    assert field.locator("input").get_attribute("aria-invalid") is not None
    assert dialog.locator("details").get_attribute("open") is not None
    visit.page.unroute("**/api/bulk/sessions/archive")
    visit.page.keyboard.press("Escape")


@pytest.mark.parametrize(
    ("status", "code", "said", "may_count_again"),
    [
        (429, "RATE_LIMITED", "That is too often. Try again in 40 s.", False),
        (428, "CONFIRMATION_REQUIRED", "Type ARCHIVE", True),
        (403, "FORBIDDEN", "It is for other roles", False),
    ],
)
def test_each_refusal_of_a_start_says_what_helps(
    visit: Desk, status: int, code: str, said: str, may_count_again: bool
) -> None:
    def refuse(route: Route) -> None:
        detail = "it is for other roles" if status == 403 else "type ARCHIVE"
        problem = json.dumps({"status": status, "code": code, "detail": detail})
        headers = {"Retry-After": "40"} if status == 429 else {}
        route.fulfill(status=status, headers=headers, content_type="application/problem+json", body=problem)

    dialog = visit.preview("#/resources/sessions", "Archive…")
    visit.page.route("**/api/bulk/sessions/archive", refuse)
    dialog.get_by_role("button", name="Archive ").last.click()
    dialog.get_by_role("alert").get_by_text(said).wait_for()
    assert dialog.get_by_role("button", name="Count again").is_visible() == may_count_again
    visit.page.unroute("**/api/bulk/sessions/archive")
    visit.page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    assert visit.page.evaluate("document.activeElement.textContent") == "Archive…"


def test_in_a_low_window_the_preview_is_read_before_the_word_is_typed(visit: Desk) -> None:
    visit.page.set_viewport_size({"width": 640, "height": 400})
    visit.open("#/resources/receipts?tenant=oak")
    visit.page.get_by_label("Select OAK-000002").check()
    visit.page.get_by_role("button", name="Actions").click()
    visit.page.get_by_role("button", name="Delete…").locator("visible=true").click()
    first = visit.dialog().get_by_text("The one that is selected.")
    first.wait_for()
    visit.dialog().get_by_label("Type DELETE").wait_for()
    box = first.bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 400
    visit.page.keyboard.press("Escape")
    visit.dialog().wait_for(state="detached")
    last = visit.rows().last
    last.scroll_into_view_if_needed()
    assert len(visit.page.query_selector_all("main .view.full")) == 1
    inside = visit.page.locator("main").evaluate("(main) => main.scrollTop > 500")
    assert inside, "the page scrolls as a whole"


def test_another_job_in_the_way_is_named_and_linked(visit: Desk) -> None:
    job = visit.server.delete_receipts("nordlicht")
    visit.server.ask("POST", f"/api/jobs/{job['id']}/pause", {})
    until(lambda: visit.server.ask("GET", f"/api/jobs/{job['id']}")["status"] == "paused")
    dialog = visit.preview("#/resources/receipts?tenant=nordlicht")
    dialog.locator(".warn").first.wait_for()
    dialog.get_by_label("Type DELETE").fill("DELETE")
    dialog.get_by_role("button", name="receipts").click()
    dialog.get_by_role("alert").filter(has_text="Show that job").wait_for()
    dialog.get_by_role("link", name="Show that job").click()
    visit.page.get_by_role("heading", name="Delete receipts").wait_for()
    assert job["id"] in visit.page.url
    visit.server.ask("POST", f"/api/jobs/{job['id']}/cancel", {})


def test_a_start_that_meets_no_server_is_started_once_when_it_is_back(
    chromium: Browser, server: DemoServer
) -> None:
    with Desk(chromium, server) as desk:
        desk.log_in_by_key()
        dialog = desk.preview("#/resources/sessions", "Close…")
        server.kill()
        dialog.get_by_role("button", name="Close ").last.click()
        server.start()
        desk.wait_for_end()
    jobs = server.ask("GET", "/api/jobs?resource=sessions")["items"]
    until(lambda: len(jobs) == 1)
