"""The README's pictures of the page, made anew: `python -m tests.browser.screens`.

The demo's data comes in, two files under tests/data/screens go out: a list with a selection while a job is under
way, in light; the preview of a deletion, in dark.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.browser.conftest import CHROMIUM, FLAGS
from tests.browser.desk import Desk
from tests.js.demo_server import DemoServer

SCREENS = Path(__file__).parents[1] / "data" / "screens"
SIZE = {"width": 1200, "height": 720}


def take_list(desk: Desk, path: Path) -> None:
    """Take a list in which some rows are selected while another business's are on their way out."""
    desk.server.ask("POST", "/api/bulk/sessions/close", {"filter": {"status": "open"}})
    desk.server.delete_receipts("nordlicht", reason="moved to the archive")
    desk.open("#/resources/receipts?tenant=oak&status.eq=closed")
    for number in ("000001", "000002", "000005"):
        desk.page.get_by_label(f"Select OAK-{number}").check()
    desk.wait_for_share(40)
    desk.page.screenshot(path=path)


def take_preview(desk: Desk, path: Path) -> None:
    """Take what a deletion would do, before its word is typed."""
    dialog = desk.preview("#/resources/receipts?tenant=harbor&status.eq=open")
    dialog.get_by_label("Type DELETE").fill("DELE")
    desk.page.screenshot(path=path)


def main() -> int:
    """Make both pictures; 0 when they are made."""
    from playwright.sync_api import sync_playwright  # only this script needs it

    SCREENS.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        DemoServer(Path(folder) / "demo") as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, take, scheme in (("list", take_list, "light"), ("preview", take_preview, "dark")):
            with Desk(browser, server, color_scheme=scheme, viewport=SIZE) as desk:
                desk.log_in_by_key()
                take(desk, SCREENS / f"{name}.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
