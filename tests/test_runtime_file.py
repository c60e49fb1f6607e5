"""The file that says where a server runs: private, replaced whole, never believed when stale."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from bulkops import runtime_file
from bulkops.runtime_file import RuntimeFile


class _Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        assert self.path == "/healthz"
        assert "X-API-Key" not in self.headers
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Sick(_Health):
    status = 500


@contextmanager
def listening(handler: type[_Health]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def content(url: str = "http://127.0.0.1:1", pid: int | None = None) -> RuntimeFile:
    return RuntimeFile(
        url=url, pid=pid or os.getpid(), key="k" * 43, instance="i", started_at="2026-01-01T00:00:00.000Z"
    )


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_file_is_private_from_its_first_byte_on(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        runtime_file.write(tmp_path, content())
    finally:
        os.umask(before)
    assert stat.S_IMODE(runtime_file.path_of(tmp_path).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["runtime.json"]


def test_what_was_written_is_read_and_writing_again_replaces_it(tmp_path: Path) -> None:
    runtime_file.write(tmp_path, content("http://127.0.0.1:1"))
    runtime_file.write(tmp_path, content("http://127.0.0.1:2"))
    assert runtime_file.read(tmp_path) == content("http://127.0.0.1:2")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"url": 1}', b"\xff"])
def test_a_file_that_makes_no_sense_is_no_file(tmp_path: Path, text: bytes) -> None:
    runtime_file.path_of(tmp_path).write_bytes(text)
    assert runtime_file.read(tmp_path) is None
    assert runtime_file.find_running(tmp_path) is None


def test_a_server_that_lives_and_answers_is_found_without_showing_it_the_key(tmp_path: Path) -> None:
    with listening(_Health) as url:
        runtime_file.write(tmp_path, content(url))
        assert runtime_file.find_running(tmp_path) == content(url)


def test_a_dead_pid_is_stale_although_somebody_answers_there(tmp_path: Path) -> None:
    with listening(_Health) as url:
        runtime_file.write(tmp_path, content(url, dead_pid()))
        assert runtime_file.find_running(tmp_path) is None


def test_a_living_pid_is_stale_when_nobody_or_something_sick_answers(tmp_path: Path) -> None:
    runtime_file.write(tmp_path, content("http://127.0.0.1:1"))
    assert runtime_file.find_running(tmp_path) is None
    with listening(_Sick) as url:
        runtime_file.write(tmp_path, content(url))
        assert runtime_file.find_running(tmp_path) is None


def test_without_a_file_nothing_runs(tmp_path: Path) -> None:
    assert runtime_file.find_running(tmp_path / "absent") is None


def test_only_its_own_process_removes_the_file(tmp_path: Path) -> None:
    runtime_file.write(tmp_path, content(pid=os.getpid() + 1))
    runtime_file.remove(tmp_path, pid=os.getpid())
    assert runtime_file.path_of(tmp_path).exists()
    runtime_file.remove(tmp_path, pid=os.getpid() + 1)
    assert not runtime_file.path_of(tmp_path).exists()
    runtime_file.remove(tmp_path, pid=1)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_another_users_file_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_file.write(tmp_path, content())
    os.chown(runtime_file.path_of(tmp_path), 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert runtime_file.read(tmp_path) is None


def test_the_file_holds_exactly_what_a_client_needs(tmp_path: Path) -> None:
    runtime_file.write(tmp_path, content())
    found = msgspec.json.decode(runtime_file.path_of(tmp_path).read_bytes())
    assert set(found) == {"url", "pid", "key", "instance", "started_at"}
