"""For every reader: axe, the keyboard alone, narrow and wide, dark and light, right to left, slow and still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from tests.browser.desk import Desk
from tests.js.demo_server import DemoServer, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
VIEWS = ["resources/receipts", "jobs", "trash", "schedules", "queue", "webhooks", "keys", "audit"]
#: When the frame of the page first stood, since the navigation began.
FIRST_PAINT = "() => Math.max(...performance.getEntriesByType('paint').map((each) => each.startTime))"
FOCUSED = """() => {
  let e = document.activeElement;
  while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
  return e === document.body ? '' : [e.getAttribute('aria-label'), e.innerText, e.labels?.[0]?.innerText].join(' ');
}"""


def test_axe_finds_nothing_on_any_view(visit: Desk, axe: str) -> None:
    job = visit.server.ask("POST", "/api/bulk/sessions/close", {"filter": {"status": "open"}})
    visit.server.ask("GET", f"/api/jobs/{job['id']}?wait=20")
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        for view in [*VIEWS, f"jobs/{job['id']}", "resources/receipts?q=nothing-like-that"]:
            visit.open(f"#/{view}")
            assert visit.axe(axe) == [], (scheme, view)


def test_axe_finds_nothing_in_what_opens(visit: Desk, axe: str) -> None:
    sizes: list[tuple[Literal["light", "dark"], int]] = [("light", 1280), ("dark", 400)]
    for scheme, width in sizes:
        visit.page.emulate_media(color_scheme=scheme)
        visit.page.set_viewport_size({"width": width, "height": 900})
        visit.open("#/resources/receipts?tenant=oak")
        visit.page.get_by_role("button", name="OAK-000001").click()
        visit.dialog().get_by_text("No job has touched").wait_for()
        assert visit.axe(axe) == [], (scheme, "item")
        visit.page.keyboard.press("Escape")
        visit.page.keyboard.press("?")
        visit.dialog().get_by_role("heading", name="Keyboard").wait_for()
        assert visit.axe(axe) == [], (scheme, "help")
        visit.page.keyboard.press("Escape")
        visit.page.get_by_label("Select OAK-000001").check()
        if width < 960:
            visit.page.get_by_role("button", name="Actions").click()
        visit.page.get_by_role("button", name="Delete…").locator("visible=true").click()
        visit.dialog().get_by_label("Type DELETE").wait_for()
        assert visit.axe(axe) == [], (scheme, "action")
        visit.page.keyboard.press("Escape")


def test_axe_finds_nothing_at_the_login(chromium: Browser, standing: DemoServer, axe: str) -> None:
    with Desk(chromium, standing) as desk:
        desk.page.goto(standing.url)
        desk.page.get_by_label("API key").wait_for()
        assert desk.axe(axe) == []


def test_it_is_all_done_with_the_keyboard_alone(chromium: Browser, server: DemoServer) -> None:
    with Desk(chromium, server) as desk:
        page, press = desk.page, desk.page.keyboard.press

        def tab_to(name: str) -> None:
            for _ in range(80):
                press("Tab")
                if name in page.evaluate(FOCUSED):
                    return
            raise AssertionError(f"{name} cannot be reached")

        page.goto(server.url)
        page.get_by_label("API key").wait_for()
        page.keyboard.type(server.key)
        press("Enter")
        page.locator("main#main h1").wait_for()
        tab_to("Receipts")
        press("Enter")
        page.get_by_role("heading", name="Receipts").wait_for()
        desk.rows().first.wait_for()
        press("/")
        page.keyboard.type("OAK-00000")
        press("Enter")
        page.wait_for_function("() => location.hash.includes('OAK-00000')")
        page.get_by_text("1\N{EN DASH}9 of 9").wait_for()
        tab_to("Select all rows")
        for key in ("j", "j", "x", "j", "x"):  # to the first row, the next, pick it, the next, pick it
            press(key)
        page.get_by_text("2 selected").wait_for()
        press("Enter")
        desk.dialog().get_by_text("History").wait_for()
        press("Escape")
        press("?")
        desk.dialog().get_by_text("Select the row").wait_for()
        press("Escape")
        press(".")
        assert "Delete" in page.evaluate(FOCUSED)
        press("Enter")
        desk.dialog().get_by_label("Type DELETE").wait_for()
        page.wait_for_function("() => document.activeElement.closest('.word')")
        page.keyboard.type("DELETE")
        press("Enter")
        assert "2 of 2" in desk.wait_for_end()
        tab_to("Undo")
        press("Enter")
        desk.wait_for_end("Undo: Delete receipts")
        press("J")
        page.get_by_role("heading", name="Jobs").wait_for()
        until(lambda: desk.rows().count() == 2)


def test_it_fits_every_window_and_direction(visit: Desk) -> None:
    for width in (1600, 1280, 700, 400):
        visit.page.set_viewport_size({"width": width, "height": 900})
        for direction in ("ltr", "rtl"):
            visit.page.evaluate("(dir) => { document.documentElement.dir = dir; }", direction)
            for view in VIEWS:
                visit.open(f"#/{view}")
                wide = visit.page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, (width, direction, view)
    visit.page.set_viewport_size({"width": 1280, "height": 900})
    side = visit.page.locator(".side").bounding_box()
    assert side is not None
    assert side["x"] > 1000, "right to left, the navigation is at the right"


def test_nothing_jumps_while_a_list_is_fetched_and_rows_are_picked(visit: Desk) -> None:
    visit.page.add_init_script(
        "globalThis.shifts = []; new PerformanceObserver((list) => { for (const each of list.getEntries())"
        " shifts.push(each.value); }).observe({ type: 'layout-shift', buffered: true });"
    )
    visit.page.reload()
    visit.open("#/resources/receipts")
    visit.rows().first.wait_for()
    visit.page.get_by_label("Select OAK-000001").check()
    visit.page.get_by_text("1 selected").wait_for()
    visit.page.get_by_role("button", name="Next page").click()
    visit.page.get_by_text("51\N{EN DASH}100").wait_for()
    assert sum(visit.page.evaluate("shifts")) < 0.1


def test_the_reader_s_numbers_and_dates_are_the_reader_s(chromium: Browser, standing: DemoServer) -> None:
    with Desk(chromium, standing, locale="de-DE", timezone_id="Europe/Berlin") as desk:
        desk.log_in_by_key()
        view = desk.open("#/resources/receipts")
        view.get_by_text("of 5.000").wait_for()
        view.get_by_text("25.03.2025, 12:44").wait_for()


def test_who_wants_less_motion_gets_none(chromium: Browser, standing: DemoServer) -> None:
    with Desk(chromium, standing, reduced_motion="reduce") as desk:
        desk.log_in_by_key()
        moving = desk.page.evaluate(
            "() => [...document.querySelectorAll('*')].filter((each) => {"
            " const style = getComputedStyle(each);"
            " return style.animationName !== 'none' || style.transitionDuration !== '0s'; }).length"
        )
        assert moving == 0


def test_single_letter_keys_can_be_turned_off(visit: Desk) -> None:
    visit.open("#/resources/receipts")
    visit.page.keyboard.press("?")
    visit.page.get_by_label("Single-letter keys are on").uncheck()
    visit.page.keyboard.press("Escape")
    visit.page.keyboard.press("J")
    visit.page.keyboard.press("/")
    assert "receipts" in visit.page.url
    assert "Search" not in visit.page.evaluate(FOCUSED)


def test_the_first_paint_is_there_at_once(visit: Desk) -> None:
    paints = []
    for _ in range(5):
        visit.page.reload()
        visit.page.locator("main#main h1").wait_for()
        paints.append(visit.page.evaluate(FIRST_PAINT))
    assert min(paints) < 200, paints
