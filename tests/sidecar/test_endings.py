"""Every way a sidecar may end: nothing of it is left, the exit code is right, and jobs go on exactly."""

from __future__ import annotations

import random
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.sidecar.ground import ROWS, ask, change, deleted, ended_exactly, is_free, lay, start_job
from tests.sidecar.host import FarHost, Host, command, start_line, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux' /proc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay(tmp_path / "data")


class Way(NamedTuple):
    """How a host, or fate, ends a sidecar; the exit code, and what is told."""

    act: Callable[[Host], object]
    code: int = 0
    said: tuple[str, ...] = ("stopping", "stopped")
    reason: str | None = None


def send(number: int) -> Callable[[Host], None]:
    return lambda host: host.child.send_signal(number)


def say_much_and_hear_nothing(host: Host) -> None:
    host.stop_draining()
    for _ in range(3000):
        host.say("ping")
    host.close_stdin()


WAYS = {
    "SIGTERM": Way(send(signal.SIGTERM), reason="signal"),
    "SIGINT": Way(send(signal.SIGINT), reason="signal"),
    "SIGHUP": Way(send(signal.SIGHUP), reason="signal"),
    "shutdown": Way(lambda host: host.say("shutdown", grace_ms=1000), reason="shutdown"),
    "no grace": Way(lambda host: host.say("shutdown", grace_ms=0), reason="shutdown"),
    "stdin closed": Way(Host.close_stdin, reason="stdin_eof"),
    "SIGKILL": Way(Host.kill, code=-signal.SIGKILL, said=()),
    "nobody listens": Way(say_much_and_hear_nothing, said=()),
}


def end(way: Way, host: Host) -> None:
    """Let it happen: two seconds later nothing is left, and what was told was right."""
    way.act(host)
    host.leaves_nothing()
    host.go_on_draining()
    assert host.exits() == way.code
    said = host.said()
    assert said[len(said) - len(way.said) :] == list(way.said)
    if way.reason is not None:
        assert host.hear("stopping")["reason"] == way.reason
    assert host.stderr() == ""


def come_back(folder: Path, job: str) -> None:
    """Start again: the job goes on without anyone asking, and ends exactly."""
    assert is_free(folder)
    assert len(deleted(folder)) < ROWS, "the job ended before the sidecar did"
    with Host(command(folder)) as host:
        ready = host.ready()
        ended_exactly(ready, folder, job)
        host.say("shutdown")
        assert host.exits() == 0


def live_and_end(folder: Path, way: Way, *, bootloader: bool) -> None:
    with Host(command(folder, bootloader=bootloader)) as host:
        job = start_job(host.ready())
        end(way, host)
    come_back(folder, job)


@pytest.mark.parametrize("way", WAYS)
def test_ended_in_any_way_nothing_is_left_and_jobs_go_on(folder: Path, way: str) -> None:
    live_and_end(folder, WAYS[way], bootloader=False)


@pytest.mark.parametrize("way", ["SIGTERM", "stdin closed", "SIGKILL"])
def test_behind_a_bootloader_it_is_the_same(folder: Path, way: str) -> None:
    live_and_end(folder, WAYS[way], bootloader=True)


@pytest.mark.parametrize("bootloader", [False, True], ids=["direct", "bootloader"])
def test_the_host_killed_nothing_is_left_and_jobs_go_on(folder: Path, bootloader: bool) -> None:
    with FarHost(folder, bootloader=bootloader) as host:
        job = start_job(host.ready())
        host.kill()
        host.leaves_nothing()
    come_back(folder, job)


def test_a_host_that_dies_while_another_holds_its_pipe_is_missed(folder: Path) -> None:
    dying = subprocess.Popen(["sleep", "60"])
    with Host(command(folder)) as host:
        host.ready(host_pid=dying.pid)
        dying.kill()  # a zombie by now, its pid still taken
        assert host.hear("stopping", within_s=2)["reason"] == "host_died"
        host.leaves_nothing()
        dying.wait()


def test_a_bootloader_that_dies_while_the_host_holds_the_pipe_is_missed(folder: Path) -> None:
    with Host(command(folder, bootloader=True)) as host:
        host.ready()
        host.kill(keep_stdin=True)
        host.leaves_nothing()
        assert host.hear("stopping")["reason"] == "host_died"


def test_the_host_named_on_the_command_line_is_watched_too(folder: Path) -> None:
    dying = subprocess.Popen(["sleep", "60"])
    with Host(command(folder, "--host-pid", str(dying.pid))) as host:
        host.ready(host_pid=None)
        dying.kill()
        dying.wait()
        assert host.hear("stopping", within_s=2)["reason"] == "host_died"
        assert host.exits() == 0


def test_a_signal_before_the_start_line_ends_it_in_order(folder: Path) -> None:
    with Host(command(folder)) as host:
        # It listens to signals before it listens to lines.
        until(lambda: sigcgt(host.child.pid), within_s=5)
        host.child.send_signal(signal.SIGTERM)
        assert host.exits() == 0
        assert host.said() == ["stopping", "stopped"]


def sigcgt(pid: int) -> bool:
    """Say whether a process catches SIGHUP, which Python by itself does not."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGHUP - 1))


def test_who_prints_into_pipes_that_nobody_reads_is_not_held_up(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Python itself tells of every module it loads: far more than a pipe takes.
    with Host(command(folder, "--port", str(port)), environ={"PYTHONVERBOSE": "1"}) as host:
        host.stop_draining()
        host.send(start_line())
        ready = {"host": "127.0.0.1", "port": port}
        until(lambda: answers(port), within_s=15, what="an answer")
        job = start_job(ready)
        host.close_stdin()
        host.leaves_nothing()
        host.go_on_draining()
        assert host.exits() == 0
    come_back(folder, job)


def answers(port: int) -> bool:
    try:
        return ask({"host": "127.0.0.1", "port": port}, "GET", "/healthz", token=None)[0] == 200
    except OSError:
        return False


def test_a_database_that_somebody_holds_holds_up_nobody(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "app.db", isolation_level=None)) as other:
        with Host(command(folder)) as host:
            ready = host.ready()
            other.execute("BEGIN IMMEDIATE")
            job = start_job(ready, begun=False)
            until(lambda: ask(ready, "GET", f"/api/jobs/{job}")[2]["status"] == "running", within_s=5)
            end(WAYS["shutdown"], host)
        other.execute("ROLLBACK")
    come_back(folder, job)


ENDLESS = """
CREATE TRIGGER endless BEFORE DELETE ON notes WHEN old.id = 1 BEGIN
  SELECT (WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n);
END
"""


def start_endless(ready: dict[str, Any], folder: Path) -> str:
    """Start a job whose first batch never ends; return when that batch is under way."""
    job = start_job(ready, begun=False)

    def is_held() -> bool:
        with closing(sqlite3.connect(folder / "app.db", timeout=0, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    until(is_held, within_s=10)
    return job


def test_a_batch_that_does_not_end_is_ended_by_force(folder: Path) -> None:
    change(folder, ENDLESS)
    with Host(command(folder)) as host:
        job = start_endless(host.ready(), folder)
        asked = time.monotonic()
        host.say("shutdown", grace_ms=300)
        assert host.exits() == 70
        assert 3.2 < time.monotonic() - asked < 4.5
        assert host.said() == ["ready", "stopping"]
        assert host.stderr() == ""
        assert not host.left()
    change(folder, "DROP TRIGGER endless")
    come_back(folder, job)


def test_when_the_host_is_gone_nothing_waits_for_such_a_batch(folder: Path) -> None:
    change(folder, ENDLESS)
    with FarHost(folder, bootloader=True) as host:
        job = start_endless(host.ready(), folder)
        host.kill()
        host.leaves_nothing()
    change(folder, "DROP TRIGGER endless")
    come_back(folder, job)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_fifty_launches_in_a_row_on_one_directory_lose_and_double_nothing(folder: Path) -> None:
    chance = random.Random(7)
    for _ in range(50):
        lay(folder, afresh=True)
        bootloader = chance.random() < 0.5
        if chance.random() < 0.2:
            with FarHost(folder, bootloader=bootloader) as far:
                job = start_job(far.ready())
                time.sleep(chance.random() * 0.2)
                far.kill()
                far.leaves_nothing()
        else:
            way = chance.choice(list(WAYS.values()))
            with Host(command(folder, bootloader=bootloader)) as host:
                job = start_job(host.ready())
                time.sleep(chance.random() * 0.2)
                end(way, host)
        come_back(folder, job)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_killed_at_any_moment_of_its_start_the_next_start_works(tmp_path: Path) -> None:
    chance = random.Random(8)
    folder = lay(tmp_path / "data")
    for _ in range(50):
        with Host(command(folder, bootloader=chance.random() < 0.5)) as host:
            host.send(start_line())
            time.sleep(chance.random() * 0.4)
            chance.choice([Host.kill, Host.close_stdin, send(signal.SIGTERM)])(host)
            host.leaves_nothing(within_s=3)
    with Host(command(folder)) as host:
        host.ready()
