"""The page as a person uses it: what tests click, type and read."""

from __future__ import annotations

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
        self.context = chromium.new_context(viewport={"width": 1280, "height": 900}, **context)
        self.context.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " (e) => console.error('violation: ' + e.violatedDirective + ' ' + e.blockedURI));" + script
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

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
        self.resource("Receipts").wait_for()

    def log_in_by_key(self) -> None:
        self.page.goto(self.server.url)
        self.page.get_by_label("API key").fill(self.server.key)
        self.page.keyboard.press("Enter")
        self.resource("Receipts").wait_for()

    def resource(self, label: str) -> Locator:
        heading = self.page.get_by_role("heading", name=label, exact=True)
        return self.page.locator(".resource").filter(has=heading)

    def preview(self, tenant: str, *, value: str = "") -> Locator:
        """Fill in the deletion of receipts and ask for its preview; returns the dialog."""
        card = self.resource("Receipts")
        if card.locator("details").get_attribute("open") is None:
            card.get_by_text("Delete by filter").click()
        if value:
            card.get_by_role("button", name="Add a condition").click()
            card.get_by_label("Value").fill(value)
        card.get_by_label("Tenant").fill(tenant)
        card.get_by_role("button", name="Preview and delete").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_label("Type DELETE").wait_for()
        return dialog

    def delete(self, tenant: str, *, value: str = "") -> None:
        """Delete receipts as a person does; returns when the job is listed."""
        dialog = self.preview(tenant, value=value)
        dialog.get_by_label("Type DELETE").fill("DELETE")
        dialog.get_by_role("button", name="receipts").click()
        dialog.wait_for(state="hidden")
        self.job().wait_for()

    def job(self, place: int = 0) -> Locator:
        """The entry of a job, newest first."""
        return self.page.locator("bulk-progress").nth(place)

    def share(self, place: int = 0) -> float:
        """What the bar of a job says, in percent; -1 when it does not know."""
        value = self.job(place).get_by_role("progressbar").get_attribute("aria-valuenow")
        return -1 if value is None else float(value)

    def wait_for_share(self, least: float, place: int = 0, *, within_s: float = 60) -> None:
        """Wait until a bar has come this far."""
        until(lambda: self.share(place) >= least, within_s=within_s)

    def wait_for_end(self, status: str = "Done", place: int = 0, *, within_s: float = 60) -> str:
        """Wait until a job shows its end; returns all that its entry says."""
        self.job(place).get_by_text(status, exact=True).wait_for(timeout=within_s * 1000)
        read = "(entry) => entry.shadowRoot.querySelector('.figures').innerText"
        figures: str = self.job(place).evaluate(read)
        return figures

    def wait_for_state(self, text: str, *, within_s: float = 60) -> None:
        """Wait until the top bar says how it is connected."""
        self.page.locator(".state").get_by_text(text, exact=True).wait_for(timeout=within_s * 1000)
