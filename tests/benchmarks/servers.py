"""A real `bulkops serve` in its own process, and a plain client of it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import msgspec

from bulkops import runtime_file


@dataclass
class Server:
    """A running server, and one keep-alive connection to it."""

    pid: int
    port: int
    key: str
    connection: http.client.HTTPConnection

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            RuntimeError: it was refused.
        """
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        self.connection.request(method, path, None if body is None else msgspec.json.encode(body), headers)
        response = self.connection.getresponse()
        text = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {text.decode()}")
        answer: dict[str, Any] = msgspec.json.decode(text)
        return answer

    def start(self, resource: str, action: str, **body: Any) -> str:
        """Start a job; return its id."""
        return str(self.ask("POST", f"/api/bulk/{resource}/{action}", body)["id"])

    def wait(self, job: str) -> dict[str, Any]:
        """Wait until a job has ended; return its last view."""
        while True:
            view = self.ask("GET", f"/api/jobs/{job}?wait=20")
            if view["terminal"]:
                return view

    def rss_mb(self) -> float:
        """Return the memory that the server holds now, in MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024

    def another(self) -> Server:
        """Return the same server with a connection of its own, for another thread."""
        return Server(self.pid, self.port, self.key, http.client.HTTPConnection("127.0.0.1", self.port))


def read_line(stream: IO[bytes] | None) -> bytes:
    """Return the first line a child writes.

    Raises:
        RuntimeError: it ended without one.
    """
    assert stream is not None
    line = stream.readline()
    if not line:
        raise RuntimeError("the server did not start")
    return line


@contextmanager
def serving(config: Path) -> Iterator[Server]:
    """Run `bulkops serve` while the block runs."""
    command = [sys.executable, "-m", "bulkops", "--config", str(config), "serve", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            url = msgspec.json.decode(read_line(process.stdout))["url"]
            found = runtime_file.read(config.parent / "bulkops-data")
            assert found is not None
            port = urlsplit(url).port
            assert port is not None
            connection = http.client.HTTPConnection("127.0.0.1", port)
            yield Server(process.pid, port, found.key, connection)
            connection.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def settle(seconds: float = 1.0) -> None:
    """Let a server finish what it does after an answer; only memory and idle measurements need this."""
    time.sleep(seconds)
