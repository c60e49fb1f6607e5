"""Looking at a resource: find, sort, page, select, and see what happens elsewhere."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.desk import Desk
from tests.js.demo_server import DemoServer, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

HOSTILE = "<img src=x onerror=alert(1)>"
TURNED = "\u202eevil\u202d \u2067right\u2069"
LONG = "long title " * 900


def previewed(desk: Desk, action: str) -> dict[str, Any]:
    """Open an action on what is selected; returns what its preview asked the server."""
    with desk.page.expect_request("**/validate") as asked:
        desk.button(action).click()
    desk.dialog().locator(".preview:not([aria-busy])").wait_for()
    desk.page.keyboard.press("Escape")
    found: dict[str, Any] = json.loads(asked.value.post_data or "{}")
    return found


def test_rows_are_searched_filtered_and_sorted_by_the_server(visit: Desk) -> None:
    visit.open("#/resources/receipts")
    visit.page.get_by_label("Search receipts").fill("Cobalt Energy")
    visit.page.get_by_text(" of ").first.wait_for()
    visit.page.wait_for_url("**q=Cobalt**")
    visit.page.locator("main [aria-busy]").wait_for(state="detached")
    until(lambda: set(visit.rows().locator("td:nth-child(3)").all_inner_texts()) == {"Cobalt Energy"})
    visit.page.get_by_role("button", name="Filter").click()
    visit.page.get_by_label("Column", exact=True).select_option("created_at")
    visit.page.get_by_text("-30d for thirty days ago").wait_for()
    visit.page.get_by_label("Column", exact=True).select_option("status")
    visit.page.get_by_text("-30d for thirty days ago").wait_for(state="hidden")
    visit.page.get_by_label("Value").fill("closed")
    visit.page.keyboard.press("Enter")
    visit.page.get_by_text("status is closed").wait_for()
    until(lambda: set(visit.rows().locator("td:nth-child(6)").all_inner_texts()) == {"closed"})
    visit.page.get_by_role("button", name="Amount cents").click()
    visit.page.get_by_role("button", name="Amount cents").click()
    visit.page.locator("th[aria-sort=descending]").wait_for()

    def amounts() -> list[int]:
        return [
            int(each.replace(",", "")) for each in visit.rows().locator("td:nth-child(5)").all_inner_texts()
        ]

    until(lambda: len(amounts()) > 3 and amounts() == sorted(amounts(), reverse=True))
    visit.page.get_by_role("button", name="Remove: status is closed").click()
    visit.page.get_by_text("status is closed").wait_for(state="detached")
    assert "Cobalt" in visit.page.url
    visit.page.go_back()
    visit.page.get_by_text("status is closed").wait_for()


def test_the_states_say_how_many_only_while_nothing_else_narrows_the_list(visit: Desk) -> None:
    visit.open("#/resources/receipts")
    total = visit.server.ask("GET", "/api/bulk/receipts/info")["counts"]["by_status"]["open"]
    states = visit.page.locator(".states")
    states.get_by_role("button", name=f"open {total:,}").wait_for()
    visit.open("#/resources/receipts?tenant=oak")
    states.get_by_role("button", name="open", exact=True).wait_for()
    states.get_by_role("button", name="open", exact=True).click()
    visit.page.wait_for_url("**status.eq=open**")


def test_rows_that_actions_skip_say_so_in_words(visit: Desk) -> None:
    visit.open("#/resources/receipts?tenant=harbor&status.eq=processing")
    visit.rows().first.get_by_text("not eligible").wait_for()
    visit.rows().first.locator(".open").click()
    visit.dialog().get_by_text("Actions skip this item: it is not eligible now.").wait_for()


def test_pages_go_on_and_back_by_keyset(visit: Desk) -> None:
    view = visit.open("#/resources/receipts?sort=-number")
    first = visit.rows().first.inner_text()
    visit.page.get_by_role("button", name="Next page").click()
    view.get_by_text("51\N{EN DASH}100 of 5,000").wait_for()
    assert visit.rows().first.inner_text() != first
    visit.page.get_by_role("button", name="Previous page").click()
    view.get_by_text("1\N{EN DASH}50 of 5,000").wait_for()
    assert visit.rows().first.inner_text() == first
    visit.page.get_by_label("Rows per page").select_option("200")
    view.get_by_text("1\N{EN DASH}200 of 5,000").wait_for()
    assert visit.rows().count() == 200
    view = visit.open("#/schedules")
    shown = visit.rows().count()
    view.get_by_text(f"1\N{EN DASH}{shown} of {shown}").wait_for()
    assert not view.get_by_role("button", name="Next page").is_visible(), "there is but one page"


def test_rows_are_selected_by_id_and_everything_else_as_a_filter_with_exclusions(visit: Desk) -> None:
    visit.open("#/resources/receipts?tenant=oak")
    visit.page.get_by_label("Select OAK-000002").check()
    visit.page.get_by_label("Select OAK-000005").check()
    visit.page.get_by_text("2 selected").wait_for()
    assert previewed(visit, "Close…") == {"action": "close", "ids": ["2", "5"], "tenant": "oak"}

    visit.page.get_by_label("Select all rows of this page").check()
    visit.page.get_by_text("50 selected").wait_for()
    visit.page.get_by_role("button", name="Select all 1,200 matching").click()
    for number in ("000002", "000003", "000004"):
        visit.page.get_by_label(f"Select OAK-{number}").uncheck()
    visit.page.get_by_text("1,197 of 1,200 selected").wait_for()
    assert previewed(visit, "Close…") == {
        "action": "close",
        "all": True,
        "exclude_ids": ["2", "3", "4"],
        "tenant": "oak",
    }
    visit.page.get_by_role("button", name="Next page").click()
    visit.page.get_by_text("51\N{EN DASH}100").wait_for()
    assert visit.page.locator("tr.picked").count() == 50, "what comes later is meant too"

    visit.open("#/resources/receipts?tenant=oak&status.eq=paid&amount_cents.gte=1000&q=o&search_in=vendor")
    assert visit.page.locator("tr.picked").count() == 0, "another list is another selection"
    visit.pick_all()
    asked = previewed(visit, "Close…")
    assert asked["filter"] == {
        "status": {"eq": "paid"},
        "amount_cents": {"gte": 1000},
        "vendor": {"like": "%o%"},
    }
    assert "ids" not in asked


def test_no_more_rows_are_named_than_a_start_takes_and_that_is_said(visit: Desk) -> None:
    view = visit.open("#/resources/receipts?tenant=nordlicht")
    visit.page.get_by_label("Rows per page").select_option("200")
    for page in range(6):
        view.get_by_text(f"{page * 200 + 1:,}\N{EN DASH}").first.wait_for()
        visit.page.locator("main [aria-busy]").wait_for(state="detached")
        visit.page.get_by_label("Select all rows of this page").click()
        visit.page.get_by_role("button", name="Next page").click()
    visit.page.get_by_text("1,000 selected").wait_for()
    visit.page.get_by_text("At most 1,000 one by one").wait_for()


def test_a_search_in_all_columns_cannot_be_handed_to_a_job_and_says_so(visit: Desk) -> None:
    visit.open("#/resources/receipts?q=o")
    visit.page.get_by_label("Select all rows of this page").check()
    visit.page.get_by_text("To select all that match, search in one column.").wait_for()
    visit.page.get_by_label("Search in").select_option("vendor")
    visit.page.wait_for_url("**search_in=vendor**")
    visit.page.get_by_label("Select all rows of this page").check()
    visit.page.get_by_role("button", name="matching").click()


def test_a_list_follows_what_others_do(visit: Desk) -> None:
    view = visit.open("#/resources/images?client_id.eq=ember")
    view.get_by_text("1\N{EN DASH}50 of 80").wait_for()
    visit.server.ask("POST", "/api/bulk/images/delete", {"filter": {"client_id": "ember"}})
    view.get_by_text("Nothing found").wait_for()
    assert visit.toast("Delete images").count() <= 1


def test_what_stands_there_while_the_next_view_is_fetched_takes_no_clicks(visit: Desk) -> None:
    visit.open("#/resources/images")
    held: list[Route] = []
    visit.page.route("**/api/bulk/sessions/info", lambda route: held.append(route))  # noqa: PLW0108  it looks for attributes
    visit.page.get_by_role("link", name="Sessions").click()
    visit.page.locator("main#main[aria-busy]").wait_for()
    assert visit.page.locator("main .view").get_attribute("inert") is not None
    until(lambda: visit.page.evaluate("1") and held)  # asking the page lets the route be heard
    for route in held:
        route.continue_()
    visit.page.get_by_role("heading", name="Sessions").wait_for()
    assert visit.page.locator("main#main[aria-busy]").count() == 0


def test_deleted_items_are_a_list_with_actions_of_its_own(visit: Desk) -> None:
    job = visit.server.ask("POST", "/api/bulk/sessions/delete", {"filter": {"status": "open"}})
    visit.server.ask("GET", f"/api/jobs/{job['id']}?wait=20")
    visit.open("#/resources/sessions")
    visit.page.get_by_label("Deleted").check()
    visit.page.wait_for_url("**deleted=true**")
    visit.rows().first.wait_for()
    visit.page.get_by_label("Select all rows of this page").check()
    actions = visit.page.locator(".wide-actions > button")
    assert actions.all_inner_texts() == ["Restore…", "Purge…"]


def test_an_item_shows_all_of_its_row_and_its_history(visit: Desk) -> None:
    job = visit.server.ask("POST", "/api/bulk/receipts/close", {"ids": ["7"], "tenant": "oak"})
    visit.server.ask("GET", f"/api/jobs/{job['id']}?wait=20")
    visit.open("#/resources/receipts")
    visit.page.get_by_role("button", name="OAK-000007").click()
    panel = visit.dialog()
    panel.get_by_role("link", name="Close receipts").wait_for()
    assert "EUR" in panel.inner_text()
    panel.get_by_role("link", name="Close receipts").click()
    visit.page.get_by_role("heading", name="Close receipts").wait_for()
    assert job["id"] in visit.page.url


def test_columns_are_chosen_and_remembered(visit: Desk) -> None:
    visit.open("#/resources/receipts")
    visit.page.get_by_role("button", name="Columns").click()
    visit.page.get_by_role("checkbox", name="Currency").check()
    visit.page.get_by_role("columnheader", name="Currency").wait_for()
    visit.page.keyboard.press("Escape")
    visit.page.reload()
    visit.page.get_by_role("columnheader", name="Currency").wait_for()


def test_hostile_values_are_shown_as_text(chromium: Browser, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as database, database:
        statement = "UPDATE receipts SET vendor = ?, status = ?, category = ? WHERE business_id = 'oak'"
        database.execute(statement, [HOSTILE, HOSTILE, TURNED])
        database.execute("UPDATE receipts SET number = ? WHERE id = 3", [LONG])
        database.execute("UPDATE receipts SET number = ? WHERE id = 4", [HOSTILE])
    with DemoServer(folder) as server, Desk(chromium, server) as desk:
        desk.log_in_by_key()
        view = desk.open("#/resources/receipts?tenant=oak")
        desk.rows().get_by_text(HOSTILE).first.wait_for()
        boxes = [each.bounding_box() for each in desk.rows().all()[:8]]
        assert len({box and round(box["height"]) for box in boxes}) == 1, (
            "a long or turned text changes no row"
        )
        assert view.locator(".state-button").filter(has_text=HOSTILE).count() == 1
        desk.page.get_by_role("button", name="long title").click()
        desk.dialog().get_by_text("No job has touched").wait_for()
        assert LONG.strip() in desk.dialog().inner_text()
        desk.page.keyboard.press("Escape")
        desk.preview("#/resources/receipts?tenant=oak")
        desk.dialog().get_by_text(HOSTILE).first.wait_for()
        desk.page.keyboard.press("Escape")
        job = server.delete_receipts("oak", label=HOSTILE, reason=HOSTILE)
        desk.tray().get_by_text(HOSTILE).wait_for()
        desk.toast(HOSTILE).wait_for(timeout=60_000)
        desk.open("#/jobs")
        desk.row(HOSTILE).wait_for()
        desk.open(f"#/jobs/{job['id']}")
        assert desk.page.get_by_role("heading", name=HOSTILE).is_visible()
        assert desk.page.locator("img[src=x]").count() == 0


def test_a_hundred_thousand_rows_are_browsed_without_a_long_task(chromium: Browser, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as database, database:
        database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
            " INSERT INTO images (client_id, path, width, height, created_at)"
            " SELECT 'client' || (i % 40), 'big/' || i || '.jpg', 1, 1, '2025-01-01T00:00:00Z' FROM n"
        )
    with DemoServer(folder) as server, Desk(chromium, server) as desk:
        desk.log_in_by_key()
        view = desk.open("#/resources/images")
        view.get_by_text("1\N{EN DASH}50 of more than 10,000").wait_for()
        with desk.long_tasks() as long:
            desk.page.get_by_label("Rows per page").select_option("200")
            view.get_by_text("1\N{EN DASH}200 of more than 10,000").wait_for()
            for page in range(1, 6):
                desk.page.get_by_role("button", name="Next page").click()
                view.get_by_text(f"{page * 200 + 1:,}\N{EN DASH}{page * 200 + 200:,} of").wait_for()
            desk.pick_all()
            desk.page.get_by_text("All that match selected, more than 10,000").wait_for()
            desk.page.mouse.wheel(0, 4000)
        assert long == []
