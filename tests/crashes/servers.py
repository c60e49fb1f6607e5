"""The real server in a process of its own: started, asked, stopped and killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

_ROOT: Final = Path(__file__).resolve().parents[2]
TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})


def command(folder: Path) -> list[str]:
    """Return the command that serves a folder's config."""
    config = str(folder / "bulkops.toml")
    return [sys.executable, "-m", "bulkops", "--json", "--config", config, "serve", "--port", "0"]


def refused(folder: Path, *, timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
    """Start a server that must not start; return how it ended."""
    done = subprocess.run(
        command(folder), cwd=_ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode not in (0, -9), f"it started: {done.stdout}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def until(holds: Callable[[], Any], *, within_s: float = 20, every_s: float = 0.01, what: str = "") -> Any:
    """Ask until the answer is true, return it; fail at the deadline."""
    end = time.monotonic() + within_s
    while True:
        answer = holds()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {within_s} s: {what or holds}"
        time.sleep(every_s)


class Server:
    """One life of a server, and the owner's way to ask it."""

    def __init__(
        self, folder: Path, *, around: list[str] | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        with (folder / "server.err").open("a") as trouble:
            self.process = subprocess.Popen(
                [*(around or []), *command(folder)],
                cwd=_ROOT,
                stdout=subprocess.PIPE,
                stderr=trouble,
                text=True,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise AssertionError(f"it did not start:\n{(folder / 'server.err').read_text()[-3000:]}")
        self.url: str = json.loads(line)["url"]
        runtime = json.loads((folder / "bulkops-data" / "runtime.json").read_text())
        self.pid: int = runtime["pid"]
        self._key = runtime["key"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ask(self, method: str, path: str, body: Any = None, *, timeout_s: float = 15) -> tuple[int, Any]:
        """Send one request; return status and JSON."""
        host = self.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=timeout_s)
        try:
            headers = {"Authorization": f"Bearer {self._key}"}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, found = self.ask("GET", path)
        assert status == 200, (status, found)
        return found

    def start(self, resource: str, action: str = "delete", **body: Any) -> str:
        """Start a job and return its id."""
        status, found = self.ask("POST", f"/api/bulk/{resource}/{action}", body)
        assert status == 202, (status, found)
        return str(found["id"])

    def verb(self, job: str, verb: str, **body: Any) -> dict[str, Any]:
        status, found = self.ask("POST", f"/api/jobs/{job}/{verb}", body)
        assert status in (200, 202), (status, found)
        return dict(found)

    def job(self, job: str) -> dict[str, Any]:
        return dict(self.get(f"/api/jobs/{job}"))

    def reach(self, job: str, *statuses: str, within_s: float = 60) -> dict[str, Any]:
        """Wait until a job has one of the statuses; return it."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.job(job))
            return seen["status"] in statuses

        try:
            until(there, within_s=within_s)
        except AssertionError:
            raise AssertionError(
                f"job is {seen.get('status')} {seen.get('status_reason')}, not {statuses}"
            ) from None
        return seen

    def end(self, job: str, *, within_s: float = 60) -> dict[str, Any]:
        return self.reach(job, *TERMINAL, within_s=within_s)

    def rss_kib(self) -> int:
        """Return the server's resident memory in KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it as the kernel does when memory runs out, and whatever stands around it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, *, within_s: float = 15) -> int:
        """Ask it to end; return its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(within_s)
