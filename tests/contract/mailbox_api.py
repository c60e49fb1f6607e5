"""Somebody else's service: mailboxes behind a small HTTP API, in a thread of its own, outliving every house."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

_PAGE: Final = 3


class MailboxApi(ThreadingHTTPServer):
    """Mailboxes by id; ``in_use`` are refused with 409, ``calls`` are the writes as they came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mailboxes: dict[str, dict[str, Any]] = {}
        self.in_use: set[str] = set()
        self.calls: list[tuple[str, str, str | None]] = []
        self.broken = False
        #: What to do once, when a mailbox was written and before anybody is told.
        self.after: dict[str, Callable[[], None]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fill(self, count: int, *, customers: tuple[str, ...] = ("acme", "zeta")) -> None:
        """Make mailboxes m1 … ``count``, customers in turn."""
        for number in range(1, count + 1):
            self.add(f"m{number}", customer=customers[number % len(customers)], megabytes=number)

    def add(self, mailbox: str, **row: Any) -> None:
        self.mailboxes[mailbox] = {"id": mailbox, "address": f"{mailbox}@mail.example", **row}


class _Handler(BaseHTTPRequestHandler):
    server: MailboxApi
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: Any = None) -> None:
        with suppress(ConnectionError):  # nobody may be there any more
            self._send(status, body)

    def _send(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _mailbox(self) -> str:
        found = re.fullmatch(r"/mailboxes/([^/?]+)", urlsplit(self.path).path)
        assert found is not None, self.path
        return found[1]

    def _note(self, verb: str, mailbox: str) -> None:
        self.server.calls.append((verb, mailbox, self.headers.get("Idempotency-Key")))

    def do_GET(self) -> None:
        if self.server.broken:
            self._answer(500)
            return
        first = int(parse_qs(urlsplit(self.path).query).get("from", ["0"])[0])
        rows = list(self.server.mailboxes.values())
        following = f"/mailboxes?from={first + _PAGE}" if len(rows) > first + _PAGE else None
        self._answer(200, {"items": rows[first : first + _PAGE], "next": following})

    def do_POST(self) -> None:
        wanted = self._body()
        found = [self.server.mailboxes[each] for each in wanted if each in self.server.mailboxes]
        self._answer(500 if self.server.broken else 200, found)

    def do_DELETE(self) -> None:
        mailbox = self._mailbox()
        self._note("DELETE", mailbox)
        if mailbox in self.server.in_use:
            self._answer(409)
            return
        found = self.server.mailboxes.pop(mailbox, None)
        self._conclude(mailbox)
        self._answer(404 if found is None else 200)

    def do_PUT(self) -> None:
        mailbox = self._mailbox()
        self._note("PUT", mailbox)
        self.server.mailboxes[mailbox] = self._body()
        self._conclude(mailbox)
        self._answer(200)

    def _conclude(self, mailbox: str) -> None:
        self.server.after.pop(mailbox, lambda: None)()


@contextmanager
def mailbox_api() -> Iterator[MailboxApi]:
    """Run the service for the length of the block."""
    api = MailboxApi()
    thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        api.shutdown()
        thread.join()
        api.server_close()
