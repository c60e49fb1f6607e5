"""What a webview of Tauri's is to a page, in Chromium: its origin, its files, its policy, and `window.__TAURI__`.

The origin is the real one, as no server is asked for these files; `tauri://` itself only WebKit can do. The
Rust side is played by whoever holds a `Webview`: it is asked for the status, and tells of changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from tests.sidecar.host import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Route

TAURI: Final = ROOT / "tests" / "sidecar" / "tauri"
UI: Final = TAURI / "ui"
CLIENT: Final = ROOT / "static"
_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
#: Each call's arguments are kept, so that a test sees what the page asked for.
_STUB: Final = """
window.stub = { asked: [], listeners: [], status: STATUS };
window.__TAURI__ = {
  core: { invoke: async (...call) => { stub.asked.push(call); return stub.status; } },
  event: { listen: async (name, heard) => { stub.listeners.push([name, heard]); return () => {}; } },
};
"""


def config() -> dict[str, Any]:
    """Return the example's tauri.conf.json."""
    found: dict[str, Any] = json.loads((TAURI / "src-tauri" / "tauri.conf.json").read_text())
    return found


def policy() -> str:
    """Write the example's content security policy as the webview gets it."""
    return "; ".join(f"{name} {value}" for name, value in config()["app"]["security"]["csp"].items())


def view_of(ready: dict[str, Any], token: str) -> dict[str, Any]:
    """Say what the Rust side tells the page of a sidecar that is ready."""
    return {"state": "ready", "http": ready["http"], "ws": ready["ws"], "token": token, "message": None}


class Webview:
    """A window with the example's page; a context manager. ``complaints`` is what its console held."""

    def __init__(
        self, browser: Browser, origin: str, status: dict[str, Any], *, client: Path = CLIENT
    ) -> None:
        self.origin = origin
        self.complaints: list[str] = []
        self._client = client
        self._context = browser.new_context()
        # Chromium asks its user before a page may reach loopback; the webviews of desktop applications do not.
        self._context.grant_permissions(["local-network-access"], origin=origin)
        self._context.add_init_script(_STUB.replace("STATUS", json.dumps(status)))
        self._context.route(f"{origin}/**", self._serve)
        self.page: Page = self._context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.complaints.append(said.text)

    def _serve(self, route: Route) -> None:
        path = route.request.url.removeprefix(self.origin).partition("?")[0].lstrip("/") or "index.html"
        file = self._client / path if path == "bulkops.js" else UI / path
        if not file.is_file():
            route.fulfill(status=404)
            return
        headers = {"Content-Security-Policy": policy(), "Content-Type": _TYPES[file.suffix]}
        route.fulfill(body=file.read_bytes(), headers=headers)

    def open(self, query: str = "") -> Page:
        self.page.goto(f"{self.origin}/{query}")
        return self.page

    def choose(self, button: str) -> str:
        """Press a button once it can be pressed; return what became of it."""
        self.page.click(f"#{button}:enabled")
        self.page.wait_for_selector("#result:not(:empty)")
        return self.page.inner_text("#result")

    def tell(self, status: dict[str, Any]) -> None:
        """Emit the event of the Rust side."""
        self.page.evaluate(
            "status => { stub.status = status; for (const [, heard] of stub.listeners) heard({payload: status}) }",
            status,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.close()
