"""One process per data directory, and what is remembered of it outside the database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bulkops.errors import StartRefused
from bulkops.store.instance import InstanceLock, Marker, last_holder, read_marker, write_marker


def test_a_second_lock_is_refused_naming_the_holder(tmp_path: Path) -> None:
    first, second = InstanceLock(tmp_path), InstanceLock(tmp_path)
    first.acquire()
    with pytest.raises(StartRefused) as raised:
        second.acquire()
    assert (raised.value.code, raised.value.extra["pid"]) == ("already_running", os.getpid())
    first.release()
    second.acquire()
    second.release()
    second.release()


def test_another_process_is_refused_and_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from bulkops.store.instance import InstanceLock\n"
        "from bulkops.errors import StartRefused\n"
        "try: InstanceLock(Path(sys.argv[1])).acquire()\n"
        "except StartRefused as error: sys.exit(error.code)\n"
        "import os; os._exit(0)"
    )
    lock = InstanceLock(tmp_path)
    lock.acquire()
    command = [sys.executable, "-c", script, str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "already_running" in refused.stderr
    lock.release()
    assert subprocess.run(command, check=False).returncode == 0
    lock.acquire()
    lock.release()


def test_one_database_named_by_two_data_directories_has_one_instance(tmp_path: Path) -> None:
    locks = [InstanceLock(tmp_path / name) for name in ("one", "two")]
    for name, lock in zip(("one", "two"), locks, strict=True):
        (tmp_path / name).mkdir()
        lock.acquire()
    locks[0].acquire_database(tmp_path / "jobs.db")
    with pytest.raises(StartRefused, match=r"jobs\.db") as raised:
        locks[1].acquire_database(tmp_path / "jobs.db")
    assert (raised.value.code, raised.value.extra["pid"]) == ("already_running", os.getpid())
    locks[0].release()
    locks[1].acquire_database(tmp_path / "jobs.db")
    locks[1].release()


def test_one_database_named_by_a_link_too_has_one_instance(tmp_path: Path) -> None:
    locks = [InstanceLock(tmp_path), InstanceLock(tmp_path)]
    (tmp_path / "alias.db").symlink_to(tmp_path / "jobs.db")
    locks[0].acquire_database(tmp_path / "jobs.db")
    with pytest.raises(StartRefused, match="uses"):
        locks[1].acquire_database(tmp_path / "alias.db")
    locks[0].release()


def test_a_snapshot_of_hard_links_does_not_keep_us_from_starting(tmp_path: Path) -> None:
    lock = InstanceLock(tmp_path)
    lock.acquire()
    lock.release()
    (tmp_path / "snapshot").hardlink_to(tmp_path / "instance.lock")
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("planted", ["link", "hard link", "dangling link", "folder", "pipe"])
def test_what_is_planted_in_the_locks_place_is_never_written_to(tmp_path: Path, planted: str) -> None:
    victim, lock = tmp_path / "victim", tmp_path / "jobs.db.lock"
    victim.write_text("precious")
    if planted == "link":
        lock.symlink_to(victim)
    elif planted == "hard link":
        lock.hardlink_to(victim)
    elif planted == "dangling link":
        lock.symlink_to(tmp_path / "nowhere")
    elif planted == "folder":
        lock.mkdir()
    else:
        os.mkfifo(lock)
    with pytest.raises(StartRefused, match="remove it") as raised:
        InstanceLock(tmp_path).acquire_database(tmp_path / "jobs.db")
    assert raised.value.code == "config"
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_the_last_holder_is_known_without_taking_the_lock(tmp_path: Path) -> None:
    assert last_holder(tmp_path) is None
    lock = InstanceLock(tmp_path)
    lock.acquire()
    assert last_holder(tmp_path) == os.getpid()
    lock.release()
    (tmp_path / "instance.lock").write_bytes(b"\xff\xfe")
    assert last_holder(tmp_path) is None


def test_a_marker_comes_back_and_its_absence_is_no_error(tmp_path: Path) -> None:
    assert read_marker(tmp_path) is None
    write_marker(tmp_path, Marker("me", 7))
    write_marker(tmp_path, Marker("me", 8))
    assert read_marker(tmp_path) == Marker("me", 8)
    assert (tmp_path / "instance.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b'{"instance": 1}', b"\xff"])
def test_a_marker_that_cannot_be_read_stops_the_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "instance.json").write_bytes(content)
    with pytest.raises(StartRefused) as raised:
        read_marker(tmp_path)
    assert raised.value.code == "db_corrupt"
