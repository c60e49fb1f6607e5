"""Who gets onto the page, and what is left of how they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.desk import Desk
from tests.js.demo_server import DemoServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
#: A proxy that knows no upgrade.
NO_SOCKETS = (
    "globalThis.WebSocket = class extends WebSocket {"
    " constructor(url, names) { super(url.replace(/ws$/, 'nothing'), names); } };"
)


def test_the_one_time_link_opens_the_page_once_and_leaves_no_trace(
    chromium: Browser, server: DemoServer
) -> None:
    with Desk(chromium, server) as first:
        first.log_in()
        assert "login" not in first.page.evaluate("history.length + location.href + document.cookie")
        first.page.get_by_role("button", name="Account: local · owner").click()
        first.page.get_by_role("button", name="Log out").click()
        first.page.get_by_label("API key").wait_for()
        first.page.reload()
        first.page.get_by_label("API key").wait_for()
    with Desk(chromium, server) as second:
        second.page.goto(server.login_url)
        second.page.get_by_text("This key or link does not work").wait_for()
        second.page.get_by_label("API key").fill(server.key)
        second.page.keyboard.press("Enter")
        second.page.locator("main#main h1").wait_for()


def test_a_wrong_key_is_told_at_the_form(chromium: Browser, standing: DemoServer) -> None:
    with Desk(chromium, standing) as desk:
        desk.page.goto(standing.url)
        desk.page.get_by_label("API key").fill("bk_nothing")
        desk.page.keyboard.press("Enter")
        desk.page.get_by_role("alert").get_by_text("This key or link does not work").wait_for()
        assert desk.page.get_by_label("API key").is_enabled()


def test_the_address_survives_the_login(chromium: Browser, standing: DemoServer) -> None:
    with Desk(chromium, standing) as desk:
        desk.page.goto(f"{standing.url}/#/resources/sessions?status.eq=open")
        desk.page.get_by_label("API key").fill(standing.key)
        desk.page.keyboard.press("Enter")
        desk.page.get_by_role("heading", name="Sessions").wait_for()
        desk.page.get_by_text("status is open").wait_for()


def test_a_session_that_has_ended_leads_to_the_login(chromium: Browser, server: DemoServer) -> None:
    for script in ("", NO_SOCKETS):
        with Desk(chromium, server, script=script) as desk:
            desk.log_in_by_key()
            desk.page.locator(".state").get_by_text("Live").wait_for()
            desk.context.clear_cookies()
            server.stop()
            server.start()
            desk.page.get_by_text("Your session has ended").wait_for(timeout=60_000)


def test_a_viewer_sees_what_a_viewer_may_and_nothing_to_press(
    chromium: Browser, standing: DemoServer
) -> None:
    key = standing.ask("POST", "/api/keys", {"user": "vera", "tenant": "oak", "role": "viewer"})["key"]
    with Desk(chromium, standing) as desk:
        desk.log_in_by_key(key)
        assert [link.inner_text().split("\n")[0] for link in desk.page.locator("nav a").all()][-2:] == [
            "Jobs",
            "Trash",
        ]
        desk.open("#/resources/receipts")
        desk.rows().first.wait_for()
        assert desk.page.get_by_role("checkbox", name="Select", exact=False).count() == 0
        assert desk.page.get_by_label("Tenant").count() == 0
        desk.page.evaluate("() => { location.hash = '#/keys'; }")
        desk.page.get_by_role("heading", name="No such page").wait_for()
