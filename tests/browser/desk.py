"""The page as a person uses it: what tests click, type and read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from tests.js.demo_server import DemoServer, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

#: What the network says when a test cuts it, or nobody is logged in yet; everything else in the console is a fault.
EXPECTED = ("Failed to load resource", "WebSocket connection to", "net::ERR_")


class Desk:
    """One browser context with one page; a context manager that fails when the page complained."""

    def __init__(self, chromium: Browser, server: DemoServer, *, script: str = "", **context: Any) -> None:
        self.server = server
        self.context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.context.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " (e) => console.error('violation: ' + e.violatedDirective + ' ' + e.blockedURI));" + script
        )
        self.context.set_default_timeout(15_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.hear(self.page)

    def hear(self, page: Page) -> Page:
        """Note what a page complains about; another tab of this context may be heard too."""
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        return page

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not text.startswith(EXPECTED):
            self.complaints.append(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.context.close()
        assert kind is not None or not self.complaints, self.complaints

    def log_in(self) -> None:
        self.page.goto(self.server.login_url)
        self.page.locator("h1").wait_for()

    def log_in_by_key(self, key: str | None = None) -> None:
        self.page.goto(self.server.url)
        self.page.get_by_label("API key").fill(key or self.server.key)
        self.page.keyboard.press("Enter")
        self.page.locator("main#main h1").wait_for()

    def open(self, address: str) -> Locator:
        """Go to a view, such as ``#/jobs``; returns its root when its heading stands and its list is there."""
        self.page.evaluate("(hash) => { location.hash = hash; }", address)
        self.page.locator(f'main[data-at="{address}"]').wait_for()
        view = self.page.locator("main .view")
        view.locator("h1").wait_for()
        self.page.locator("main [aria-busy]").wait_for(state="detached")
        return view

    def rows(self) -> Locator:
        """The rows of the view's table."""
        return self.page.locator("main tbody tr:not(.skeleton)")

    def row(self, text: str) -> Locator:
        return self.rows().filter(has_text=text)

    def button(self, name: str) -> Locator:
        """A button of the view, by its exact name."""
        return self.page.locator("main").get_by_role("button", name=name, exact=True)

    def dialog(self) -> Locator:
        return self.page.locator("dialog[open]")

    def toast(self, text: str = "") -> Locator:
        return self.page.locator(".toast").filter(has_text=text)

    def tray(self) -> Locator:
        return self.page.locator(".tray")

    def pick_all(self, of: str = "") -> None:
        """Select all that match in the present list of items."""
        self.page.get_by_label("Select all rows of this page").check()
        everything = self.page.get_by_role("button", name=f"Select all {of}".strip())
        if everything.count() and everything.is_visible():
            everything.click()

    def preview(self, address: str = "#/resources/receipts?tenant=oak", action: str = "Delete…") -> Locator:
        """Select everything of an address and open an action; returns its dialog when the preview stands."""
        self.open(address)
        self.rows().first.wait_for()
        self.pick_all()
        self.button(action).click()
        self.dialog().locator(".preview:not([aria-busy])").wait_for()
        return self.dialog()

    def delete(self, tenant: str = "oak", **conditions: str) -> str:
        """Delete receipts as a person does; returns the id of the job."""
        query = "&".join([f"tenant={tenant}", *(f"{name}.eq={value}" for name, value in conditions.items())])
        dialog = self.preview(f"#/resources/receipts?{query}")
        dialog.get_by_label("Type DELETE").fill("DELETE")
        dialog.get_by_role("button", name="receipts").click()
        dialog.wait_for(state="detached")
        entry = self.tray().locator("li").first
        entry.wait_for()
        return str(entry.get_attribute("data-job"))

    def share(self) -> float:
        """What the bar of the newest job in the tray says, in percent; -1: it does not know, 101: it has gone."""
        bar = self.tray().get_by_role("progressbar").first
        if not bar.is_visible():
            return 101
        value = bar.get_attribute("aria-valuenow")
        return -1 if value is None else float(value)

    def wait_for_share(self, least: float, *, within_s: float = 60) -> None:
        """Wait until the newest job has come this far."""
        until(lambda: self.share() >= least, within_s=within_s)

    def wait_for_end(self, words: str = "Done", *, within_s: float = 60) -> str:
        """Wait for the toast of an ending; returns all it says."""
        toast = self.toast(words).last
        toast.wait_for(timeout=within_s * 1000)
        return toast.inner_text()

    def wait_for_state(self, text: str, *, within_s: float = 60) -> None:
        """Wait until the page says how it is connected."""
        self.page.locator(".state").get_by_text(text, exact=True).wait_for(timeout=within_s * 1000)

    @contextmanager
    def long_tasks(self) -> Iterator[list[float]]:
        """Trace what happens meanwhile; then the list has what kept the page's thread for over 100 ms.

        Milliseconds of its processor time: what other processes take of a busy machine is not the page's.
        """
        browser, found = self.context.browser, list[float]()
        assert browser is not None
        browser.start_tracing(page=self.page, categories=["disabled-by-default-devtools.timeline"])
        try:
            yield found
        finally:
            events = json.loads(browser.stop_tracing())["traceEvents"]
        named = [each for each in events if each["name"] == "thread_name"]
        main = {(each["pid"], each["tid"]) for each in named if each["args"]["name"] == "CrRendererMain"}
        tasks = [each for each in events if each["name"] == "RunTask" and (each["pid"], each["tid"]) in main]
        assert tasks, "the trace has nothing of the page"
        found += [each["tdur"] / 1000 for each in tasks if each.get("tdur", 0) > 100_000]

    def axe(self, source: str) -> list[str]:
        """What axe-core finds on the page as it is."""
        self.page.evaluate(source)
        found: list[str] = self.page.evaluate(
            "axe.run().then(({violations}) => violations.map((v) => v.id + ' ' + v.nodes[0].html.slice(0, 200)"
            " + ' ' + v.nodes[0].failureSummary))"
        )
        return found
