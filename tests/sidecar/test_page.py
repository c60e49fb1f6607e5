"""A real browser's page, at an origin of a desktop application, that drives a job through a sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sidecar.ground import ROWS, deleted, lay
from tests.sidecar.host import TOKEN, Host, command
from tests.sidecar.webview import Webview, view_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

#: What the module `bulkops.js` needs to know and nothing else: {http, token}.
DRIVE = """async ([http, token]) => {
  const { connect } = await import("./bulkops.js");
  const bearer = { Authorization: `Bearer ${token}` };
  const client = connect({
    url: http,
    fetch: (url, options = {}) => fetch(url, { ...options, headers: { ...options.headers, ...bearer } }),
    transports: ["ws"],
  });
  const job = await client.start("notes", "delete", { all: true, options: { hard: true } });
  const { status, succeeded } = await client.subscribe({ kind: "job", job: job.id }, { since: job.cursor }).finished();
  client.disconnect();
  return [status, succeeded];
}"""


@pytest.mark.parametrize("origin", ["http://tauri.localhost", "https://tauri.localhost"])
def test_a_page_of_an_application_drives_a_job(chromium: Browser, tmp_path: Path, origin: str) -> None:
    folder = lay(tmp_path / "data")
    with Host(command(folder)) as host:
        ready = host.ready()
        with Webview(chromium, origin, view_of(ready, TOKEN)) as window:
            urls: list[str] = []
            window.page.on("request", lambda request: urls.append(request.url))
            window.page.on("websocket", lambda socket: urls.append(socket.url))
            page = window.open()
            assert page.evaluate(DRIVE, [ready["http"], TOKEN]) == ["completed", ROWS]
            assert window.complaints == []
            assert ready["ws"] in urls
            assert not [url for url in urls if TOKEN in url]
        assert deleted(folder) == list(range(1, ROWS + 1))
        host.say("shutdown")
        assert host.exits() == 0
