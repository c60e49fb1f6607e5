"""A real server over the demo's data, in a process of its own that may be killed and comes back to its port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from bulkops.demo import prepare


class DemoServer:
    """Serves the demo in ``folder``; a context manager. ``key`` is an owner's and outlives restarts."""

    def __init__(self, folder: Path) -> None:
        prepare(folder)
        self.folder = folder
        self.port = 0
        self.key = ""
        self.login_url = ""
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        runtime = json.loads((self.folder / "bulkops-data" / "runtime.json").read_text())
        self.key = runtime["key"]
        self.key = self.ask("POST", "/api/keys", {"user": "demo", "role": "owner"})["key"]
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, at the port of the last time, and wait until it answers."""
        command = [sys.executable, "-m", "bulkops", "serve", "--json", "--port", str(self.port)]
        command += ["--config", str(self.folder / "bulkops.toml")]
        log = (self.folder / "server.log").open("a")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.folder / "server.log").read_text()
        told = json.loads(line)
        self.port = int(told["url"].rpartition(":")[2])
        self.login_url = told["login_url"]

    def kill(self) -> None:
        """SIGKILL: nothing is said, nothing is saved."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; stopping twice is fine."""
        if self._process is not None and self._process.poll() is None:
            self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
        self._process.wait(20)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API with the key."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-API-Key": self.key, "Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def delete_receipts(self, tenant: str, **more: Any) -> Any:
        """Start a job of some seconds: 50 receipts at a time, with a pause between."""
        body = {"all": True, "tenant": tenant, "confirm": "DELETE", **more}
        return self.ask("POST", "/api/bulk/receipts/delete", body)

    def story(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """Read all that the log has of a job after its start."""
        since, found = job["cursor"], list[dict[str, Any]]()
        while True:
            page = self.ask("GET", f"/api/events?topic=job:{job['id']}&since={since}")
            found += page["items"]
            if page["cursor"] == since or not page["items"]:
                return found
            since = page["cursor"]


def until(holds: Callable[[], Any], *, within_s: float = 60) -> Any:
    """Wait until something of another process holds, and return it."""
    deadline = time.monotonic() + within_s
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.05)  # other processes ring no bell here
