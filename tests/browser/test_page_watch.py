"""Watching: a job under way through reloads, lost networks and servers, in several tabs, to its one ending."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.desk import Desk
from tests.js.demo_server import DemoServer, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
#: A proxy that knows no upgrade, and one that cuts streams too.
NO_SOCKETS = (
    "globalThis.WebSocket = class extends WebSocket {"
    " constructor(url, names) { super(url.replace(/ws$/, 'nothing'), names); } };"
)
NO_STREAMS = (
    "globalThis.EventSource = class extends EventSource {"
    " constructor(url) { super(url.replace('/api/events', '/nothing')); } };"
)
#: Notes what the browser would have shown, with leave to show it, in a tab that is in the background.
BACKGROUND = (
    "globalThis.notes = []; globalThis.Notification = class { static permission = 'granted';"
    " constructor(title, { tag }) { notes.push(title + ' ' + tag); } close() {} };"
    "Object.defineProperty(document, 'visibilityState', { get: () => globalThis.away ? 'hidden' : 'visible' });"
)


def panel(desk: Desk) -> Locator:
    return desk.page.locator("main bulk-progress")


def test_a_job_is_paused_resumed_slowed_and_cancelled_where_it_is_shown(
    chromium: Browser, server: DemoServer
) -> None:
    with Desk(chromium, server) as desk:
        desk.log_in_by_key()
        job = desk.delete("nordlicht")
        desk.wait_for_share(5)
        desk.tray().get_by_role("button", name="Pause").click()
        desk.tray().get_by_text("Paused").wait_for()
        held = desk.share()
        desk.tray().get_by_role("button", name="Resume").click()
        desk.wait_for_share(held + 1)
        desk.tray().get_by_role("link", name="Delete receipts").click()
        panel(desk).get_by_role("img", name="Throughput: peak").wait_for()
        panel(desk).get_by_label("Speed").select_option("10")
        until(lambda: server.ask("GET", f"/api/jobs/{job}")["max_items_per_second"] == 10)
        panel(desk).get_by_role("button", name="Cancel").click()
        panel(desk).get_by_role("button", name="Keep going").click()
        panel(desk).get_by_role("button", name="Cancel").click()
        panel(desk).get_by_role("button", name="Cancel the job").click()
        panel(desk).get_by_text("Cancelled", exact=True).wait_for()
        desk.toast("Delete receipts: Cancelled").wait_for()
        assert not desk.tray().is_visible()


def test_what_goes_on_hides_no_row_for_good(chromium: Browser, server: DemoServer) -> None:
    with Desk(chromium, server, viewport={"width": 1280, "height": 600}) as desk:
        desk.log_in_by_key()
        desk.open("#/resources/receipts")
        job = server.delete_receipts("nordlicht")
        server.ask("POST", f"/api/jobs/{job['id']}/pause", {})
        desk.tray().get_by_text("Paused").wait_for()
        last = desk.rows().last
        desk.page.locator("main .table-place").evaluate("(each) => each.scrollTo(0, each.scrollHeight)")

        def is_clear() -> bool:
            row, tray = last.bounding_box(), desk.tray().bounding_box()
            return bool(row and tray and row["y"] + row["height"] <= tray["y"])

        until(is_clear)


def test_on_a_phone_what_goes_on_is_one_line_until_it_is_wanted(
    chromium: Browser, server: DemoServer
) -> None:
    with Desk(chromium, server, viewport={"width": 400, "height": 800}) as desk:
        desk.log_in_by_key()
        job = server.delete_receipts("nordlicht", label="all of theirs, " * 12)
        server.ask("POST", f"/api/jobs/{job['id']}/pause", {})
        desk.tray().get_by_text("1 job under way").wait_for()
        assert not desk.tray().locator("li").is_visible()
        desk.tray().get_by_role("progressbar", name="Under way").wait_for()
        desk.tray().get_by_role("button", name="Show jobs under way").click()
        resume = desk.tray().get_by_role("button", name="Resume")
        resume.wait_for()
        box = resume.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 400, "a long name does not push it out of sight"
        desk.page.reload()
        desk.tray().locator("li").wait_for()


def test_a_reload_in_mid_job_goes_on_where_it_is_and_the_end_is_told_once(
    chromium: Browser, server: DemoServer
) -> None:
    with Desk(chromium, server) as desk:
        desk.log_in_by_key()
        job = desk.delete("oak")
        desk.wait_for_share(20)
        desk.page.reload()
        desk.tray().locator("li").wait_for()
        assert 0 < desk.share() <= 101
        assert "1,200 of 1,200" in desk.wait_for_end()
        assert desk.page.locator(".toast").count() == 1
        desk.page.reload()
        desk.page.locator("main#main h1").wait_for()
        desk.open(f"#/jobs/{job}")
        assert desk.page.locator(".toast").count() == 0, "an ending is told once"


def test_an_end_during_a_reload_is_told_after_it(chromium: Browser, server: DemoServer) -> None:
    with Desk(chromium, server) as desk:
        desk.log_in_by_key()
        job = desk.delete("oak")
        desk.page.goto("about:blank")
        server.ask("GET", f"/api/jobs/{job}?wait=50")
        desk.page.goto(server.url)
        assert "1,200 of 1,200" in desk.wait_for_end()


def test_a_network_that_goes_and_comes_back_loses_nothing(chromium: Browser, server: DemoServer) -> None:
    with Desk(chromium, server) as desk:
        desk.log_in_by_key()
        job = desk.delete("nordlicht")
        desk.wait_for_share(10)
        desk.context.set_offline(True)
        desk.page.get_by_text("No connection to the server").wait_for()
        done = server.ask("GET", f"/api/jobs/{job}")["processed"]
        until(lambda: server.ask("GET", f"/api/jobs/{job}")["processed"] > done + 200)
        desk.context.set_offline(False)
        desk.page.get_by_text("No connection to the server").wait_for(state="hidden")
        assert "of 1,500" in desk.wait_for_end()


def test_a_server_that_is_killed_and_comes_back_ends_the_same_job(
    chromium: Browser, server: DemoServer
) -> None:
    with Desk(chromium, server) as desk:
        desk.log_in_by_key()
        desk.delete("nordlicht")
        desk.wait_for_share(20)
        server.kill()
        desk.wait_for_state("Reconnecting…")
        assert desk.share() < 100
        server.start()
        assert "of 1,500" in desk.wait_for_end()
        assert desk.page.locator(".toast").count() == 1


def test_a_view_that_met_no_server_opens_when_it_is_back(chromium: Browser, server: DemoServer) -> None:
    with Desk(chromium, server) as desk:
        desk.log_in_by_key()
        server.kill()
        desk.wait_for_state("Reconnecting…")
        desk.page.evaluate("location.hash = '#/resources/images'")
        desk.page.get_by_text("The server cannot be reached.").wait_for()
        server.start()
        desk.page.get_by_role("heading", name="Images").wait_for(timeout=60_000)
        desk.rows().first.wait_for()


@pytest.mark.parametrize(
    ("script", "state"),
    [
        (NO_SOCKETS, "Live (stream)"),
        pytest.param(NO_SOCKETS + NO_STREAMS, "Live (polling)", marks=pytest.mark.soak),  # two back-offs long
    ],
)
def test_where_sockets_are_refused_streams_and_then_polls_take_over(
    chromium: Browser, server: DemoServer, script: str, state: str
) -> None:
    with Desk(chromium, server, script=script) as desk:
        desk.log_in_by_key()
        desk.wait_for_state(state)
        desk.delete("oak")
        desk.wait_for_share(20)
        assert "1,200 of 1,200" in desk.wait_for_end()


def test_several_tabs_agree(chromium: Browser, server: DemoServer) -> None:
    with Desk(chromium, server) as desk:
        desk.log_in_by_key()
        other = desk.hear(desk.context.new_page())
        other.goto(f"{server.url}/#/jobs")
        other.locator("main#main h1").wait_for()
        job = desk.delete("nordlicht")
        other.locator(f".tray [data-job='{job}']").wait_for()
        other.locator(".tray").get_by_role("button", name="Pause").click()
        desk.tray().get_by_text("Paused").wait_for()
        other.locator("main tbody").get_by_text("Paused").wait_for()
        desk.tray().get_by_role("button", name="Resume").click()
        desk.wait_for_end()
        other.locator("main tbody").get_by_text("Done", exact=True).wait_for()
        other.locator(".tray").wait_for(state="hidden")


def test_a_tab_in_the_background_gets_one_notification(chromium: Browser, server: DemoServer) -> None:
    with Desk(chromium, server, script=BACKGROUND) as desk:
        desk.log_in_by_key()
        job = desk.delete("oak")
        desk.page.evaluate("globalThis.away = true")
        desk.page.wait_for_function("() => notes.length > 0", timeout=60_000)
        assert desk.page.evaluate("notes") == [f"Delete receipts: Done {job}"]


def test_failures_are_told_by_cause_and_tried_again(chromium: Browser, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as database, database:
        database.execute(
            "CREATE TRIGGER audited BEFORE UPDATE ON receipts WHEN old.vendor = 'Cobalt Energy'"
            " BEGIN SELECT RAISE(ABORT, 'an audited vendor'); END"
        )
        statement = "SELECT count(*) FROM receipts WHERE business_id = 'oak' AND vendor = 'Cobalt Energy'"
        bad = database.execute(statement).fetchone()[0]
    with DemoServer(folder) as server, Desk(chromium, server) as desk:
        desk.log_in_by_key()
        job = desk.delete("oak")
        end = desk.wait_for_end("Done, with failures")
        assert f"{bad} failed" in end
        desk.toast().get_by_role("link", name="Details").click()
        group = panel(desk).locator(".groups li").filter(has_text="an audited vendor")
        group.wait_for()
        report = panel(desk).get_by_role("link", name="Failed items (CSV)")
        with desk.page.expect_download() as download:
            report.click()
        assert len(Path(download.value.path()).read_text().splitlines()) == bad + 1
        with closing(sqlite3.connect(folder / "app.db")) as database, database:
            database.execute("DROP TRIGGER audited")
        with desk.page.expect_request("**/retry") as asked:
            group.get_by_role("button", name="Retry").click()
        assert "codes" in (asked.value.post_data or "")
        desk.page.wait_for_function(f"() => !location.hash.includes('{job}')")
        panel(desk).get_by_text(f"{bad} of {bad}", exact=True).wait_for()
        panel(desk).get_by_text("Done", exact=True).wait_for()


@pytest.mark.parametrize(
    "rows",
    [100_000, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
def test_a_large_job_is_watched_without_a_long_task(chromium: Browser, folder: Path, rows: int) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as database, database:
        database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)"
            " INSERT INTO sessions (id, title, status, started_at, minutes)"
            " SELECT 'many-' || i, 'one of many', 'open', '2025-01-01T00:00:00Z', 5 FROM n",
            {"rows": rows},
        )
    with DemoServer(folder) as server, Desk(chromium, server) as desk:
        desk.log_in_by_key()
        desk.open("#/resources/sessions")
        with desk.long_tasks() as long:
            job = server.ask("POST", "/api/bulk/sessions/close", {"filter": {"title": "one of many"}})
            desk.tray().locator("li").wait_for(timeout=60_000)
            desk.page.evaluate("(id) => { location.hash = '#/jobs/' + id; }", job["id"])
            panel(desk).wait_for()
            desk.wait_for_end(within_s=500)
        assert long == []
        assert server.ask("GET", f"/api/jobs/{job['id']}")["succeeded"] == rows
