"""The page in a real Chromium: log in, delete, watch, lose the network, the server, the socket; undo."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.desk import Desk
from tests.js.demo_server import DemoServer, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

HOSTILE = "<img src=x onerror=alert(1)>"
#: A proxy that knows no upgrade, and one that cuts streams too.
NO_SOCKETS = (
    "globalThis.WebSocket = class extends WebSocket {"
    " constructor(url, names) { super(url.replace(/ws$/, 'nothing'), names); } };"
)
NO_STREAMS = (
    "globalThis.EventSource = class extends EventSource {"
    " constructor(url) { super(url.replace('/api/events', '/nothing')); } };"
)


def live_receipts(folder: Path, tenant: str) -> int:
    statement = "SELECT count(*) FROM receipts WHERE business_id = ? AND is_deleted = 0"
    with closing(sqlite3.connect(folder / "app.db")) as database:
        count: int = database.execute(statement, [tenant]).fetchone()[0]
        return count


def test_the_one_time_link_opens_the_page_once_and_leaves_no_trace(
    chromium: Browser, server: DemoServer
) -> None:
    with Desk(chromium, server) as first:
        first.log_in()
        assert first.page.url == f"{server.url}/"
        assert "login" not in first.page.evaluate("history.length + location.href + document.cookie")
        assert first.page.locator(".who").inner_text() == "local · owner"
        first.page.get_by_role("button", name="Log out").click()
        first.page.get_by_label("API key").wait_for()
        first.page.reload()
        first.page.get_by_label("API key").wait_for()
    with Desk(chromium, server) as second:
        second.page.goto(server.login_url)
        second.page.get_by_text("This key or link does not work").wait_for()
        second.page.get_by_label("API key").fill(server.key)
        second.page.keyboard.press("Enter")
        second.resource("Receipts").wait_for()


def test_a_deletion_is_previewed_confirmed_by_its_word_watched_and_undone(desk: Desk) -> None:
    folder, before = desk.server.folder, live_receipts(desk.server.folder, "harbor")
    dialog = desk.preview("harbor", value="open")
    told = desk.server.ask(
        "POST",
        "/api/bulk/receipts/validate",
        {"action": "delete", "filter": {"status": "open"}, "tenant": "harbor"},
    )
    matched, eligible = told["matched"], told["eligible_count"]
    go = dialog.get_by_role("button", name=f"Delete {eligible} receipts")
    assert f"{eligible} of {matched} matching receipts" in dialog.inner_text()
    assert "it is protected: pinned is 1" in dialog.inner_text()
    for wrong in ("", "delete", "DELETE "):
        dialog.get_by_label("Type DELETE").fill(wrong)
        assert go.is_disabled()
    dialog.get_by_label("Type DELETE").fill("DELETE")
    go.click()
    desk.wait_for_share(1)
    assert desk.share() < 100
    text = desk.wait_for_end()
    assert desk.share() == 100
    assert f"{matched} of {matched}" in text
    assert f"{matched - eligible} skipped" in text
    assert live_receipts(folder, "harbor") == before - eligible
    desk.resource("Receipts").get_by_text(f"{eligible:,} deleted").wait_for()

    with desk.page.expect_download() as download:
        desk.job().get_by_role("link", name="Report").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == matched + 1

    desk.job().get_by_role("button", name="Undo").click()
    desk.job(1).wait_for()
    desk.wait_for_end()
    assert live_receipts(folder, "harbor") == before
    assert desk.page.locator("bulk-progress").count() == 2


def test_a_job_is_paused_resumed_and_cancelled_where_it_is_shown(desk: Desk) -> None:
    desk.delete("nordlicht")
    desk.wait_for_share(5)
    desk.job().get_by_role("button", name="Pause").click()
    desk.job().get_by_text("Paused", exact=True).wait_for()
    held = desk.share()
    desk.job().get_by_role("button", name="Resume").click()
    desk.wait_for_share(held + 1)
    desk.job().get_by_role("button", name="Cancel").click()
    desk.job().get_by_role("button", name="Keep going").click()
    desk.job().get_by_role("button", name="Cancel").click()
    desk.job().get_by_role("button", name="Cancel the job").click()
    text = desk.wait_for_end("Cancelled")
    assert "1,500" in text
    assert desk.share() < 100


def test_a_reload_in_mid_job_goes_on_where_it_is(desk: Desk) -> None:
    desk.delete("nordlicht")
    desk.wait_for_share(20)
    desk.page.reload()
    desk.job().wait_for()
    assert 0 < desk.share() < 100
    assert "1,500 of 1,500" in desk.wait_for_end()
    assert desk.share() == 100


def test_a_network_that_goes_and_comes_back_loses_nothing(desk: Desk) -> None:
    desk.delete("nordlicht")
    desk.wait_for_share(10)
    desk.context.set_offline(True)
    job = desk.server.ask("GET", "/api/jobs")["items"][0]
    until(lambda: desk.server.ask("GET", f"/api/jobs/{job['id']}")["processed"] > job["processed"] + 300)
    desk.context.set_offline(False)
    assert "1,500 of 1,500" in desk.wait_for_end()
    assert desk.share() == 100


def test_a_server_that_is_killed_and_comes_back_ends_the_same_bar(
    chromium: Browser, server: DemoServer
) -> None:
    with Desk(chromium, server) as desk:
        desk.log_in_by_key()  # the link's session is of the server's own key, which a restart replaces
        desk.delete("nordlicht")
        desk.wait_for_share(20)
        server.kill()
        desk.wait_for_state("Reconnecting…")
        assert desk.share() < 100
        server.start()
        assert "1,500 of 1,500" in desk.wait_for_end()
        assert desk.share() == 100


def test_a_session_that_has_ended_leads_to_the_login(chromium: Browser, server: DemoServer) -> None:
    for script in ("", NO_SOCKETS):
        with Desk(chromium, server, script=script) as desk:
            desk.log_in_by_key()
            desk.page.locator(".state").get_by_text("Live").wait_for()
            desk.context.clear_cookies()
            server.stop()
            server.start()
            desk.page.get_by_text("Your session has ended").wait_for(timeout=60_000)


@pytest.mark.parametrize(
    ("script", "state"), [(NO_SOCKETS, "Live (stream)"), (NO_SOCKETS + NO_STREAMS, "Live (polling)")]
)
def test_where_sockets_are_refused_streams_and_then_polls_take_over(
    chromium: Browser, server: DemoServer, script: str, state: str
) -> None:
    with Desk(chromium, server, script=script) as desk:
        desk.log_in()
        desk.wait_for_state(state)
        desk.delete("nordlicht")
        desk.wait_for_share(20)
        assert desk.share() < 100
        assert "1,500 of 1,500" in desk.wait_for_end()
        assert desk.share() == 100


def test_jobs_that_others_start_appear_by_themselves_and_two_tabs_agree(desk: Desk) -> None:
    other = desk.context.new_page()
    other.goto(desk.server.url)
    other.locator(".resource").first.wait_for()
    desk.wait_for_state("Live")
    desk.server.delete_receipts("oak", reason="from the shell")
    desk.page.get_by_text("“from the shell”").wait_for()
    other.get_by_text("“from the shell”").wait_for()
    assert "1,200 of 1,200" in desk.wait_for_end()
    other.locator("bulk-progress").get_by_text("Done", exact=True).wait_for()


def test_failures_are_told_by_cause_and_tried_again(chromium: Browser, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as database, database:
        database.execute(
            "CREATE TRIGGER audited BEFORE UPDATE ON receipts WHEN old.vendor = 'Cobalt Energy'"
            " BEGIN SELECT RAISE(ABORT, 'an audited vendor'); END"
        )
        bad = database.execute(
            "SELECT count(*) FROM receipts WHERE business_id = 'oak' AND vendor = 'Cobalt Energy'"
        ).fetchone()[0]
    with DemoServer(folder) as server, Desk(chromium, server) as desk:
        desk.log_in()
        server.delete_receipts("oak")
        text = desk.wait_for_end("Done, with failures")
        assert f"{bad} failed" in text
        assert desk.share() == 100
        desk.job().get_by_role("button", name=f"Why {bad} failed").click()
        desk.job().get_by_text("an audited vendor").wait_for()
        assert "outcome=failed" in str(
            desk.job().get_by_role("link", name="Failed items").get_attribute("href")
        )
        assert desk.job().get_by_role("button", name="Retry failed").is_visible()


def test_hostile_texts_are_shown_as_text(chromium: Browser, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as database, database:
        database.execute(
            "UPDATE receipts SET vendor = ?, status = ? WHERE business_id = 'oak'", [HOSTILE, HOSTILE]
        )
    with DemoServer(folder) as server, Desk(chromium, server) as desk:
        desk.log_in()
        assert desk.resource("Receipts").get_by_text(HOSTILE).first.is_visible()
        dialog = desk.preview("oak")
        dialog.get_by_text(HOSTILE).first.wait_for()
        desk.page.keyboard.press("Escape")
        server.delete_receipts("oak", label=HOSTILE, reason=HOSTILE)
        desk.wait_for_end()
        assert desk.job().get_by_text(HOSTILE, exact=True).is_visible()
        assert desk.page.get_by_text(f"“{HOSTILE}”").is_visible()
        assert desk.page.locator("img[src=x]").count() == 0


def test_it_is_all_done_with_the_keyboard(desk: Desk) -> None:
    def tab_to(name: str) -> None:
        for _ in range(60):
            desk.page.keyboard.press("Tab")
            if name in focused(desk.page):
                return
        raise AssertionError(f"{name} cannot be reached")

    for _ in range(2):
        tab_to("Delete by filter")
    desk.page.keyboard.press("Enter")
    tab_to("Add a condition")
    desk.page.keyboard.press("Enter")
    tab_to("Value")
    desk.page.keyboard.type("closed")
    tab_to("Tenant")
    desk.page.keyboard.type("oak")
    tab_to("Preview and delete")
    desk.page.keyboard.press("Enter")
    desk.page.get_by_label("Type DELETE").wait_for()
    desk.page.keyboard.type("DELETE")
    desk.page.keyboard.press("Enter")
    desk.wait_for_end()
    tab_to("Undo")
    desk.page.keyboard.press("Enter")
    desk.job(1).wait_for()
    desk.wait_for_end()


def focused(page: Page) -> str:
    """What the element under the keyboard is called."""
    found: str = page.evaluate(
        "() => { let e = document.activeElement; while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;"
        " const slot = e.querySelector?.('slot')?.assignedNodes().map((n) => n.textContent).join('');"
        " return [e.getAttribute('aria-label'), slot, e.innerText, e.labels?.[0]?.innerText].join(' '); }"
    )
    return found


def test_it_fits_every_window_in_light_and_dark(desk: Desk, tmp_path: Path) -> None:
    desk.delete("oak")
    desk.resource("Receipts").locator("details").evaluate("(details) => { details.open = true; }")
    for scheme in ("light", "dark"):
        desk.page.emulate_media(color_scheme=scheme)
        for width in (1280, 400):
            desk.page.set_viewport_size({"width": width, "height": 900})
            wide = desk.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width
            desk.page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)


def test_axe_finds_nothing(desk: Desk, axe: str) -> None:
    desk.server.delete_receipts("oak")
    desk.wait_for_end()

    def check(view: str) -> None:
        desk.page.evaluate(axe)
        found = desk.page.evaluate(
            "axe.run().then(({violations}) => violations.map((v) => v.id + v.nodes[0].html))"
        )
        assert not found, (view, found)

    for scheme in ("light", "dark"):
        desk.page.emulate_media(color_scheme=scheme)
        check(f"{scheme} page")
        desk.preview("harbor", value="open" if scheme == "light" else "")
        check(f"{scheme} dialog")
        desk.page.keyboard.press("Escape")
    desk.page.goto(f"{desk.server.url}/static/examples.html")
    desk.job().get_by_text("Done", exact=True).wait_for()
    check("examples")
    desk.page.goto(desk.server.url)
    desk.page.get_by_role("button", name="Log out").click()
    desk.page.get_by_label("API key").wait_for()
    check("login")


def test_the_elements_work_in_a_plain_page(desk: Desk) -> None:
    desk.page.goto(f"{desk.server.url}/static/examples.html")
    desk.page.get_by_text("There is no job yet").wait_for()
    desk.page.get_by_role("button", name="Delete all…").click()
    dialog = desk.page.get_by_role("dialog")
    dialog.get_by_label("Type DELETE").fill("DELETE")
    dialog.get_by_role("button", name="receipts").click()
    desk.wait_for_share(1)
    desk.job().get_by_role("button", name="Cancel").click()
    desk.job().get_by_role("button", name="Cancel the job").click()
    desk.page.get_by_text("bulk-finished:").wait_for()
    assert desk.page.locator("#events > *").count() > 2
