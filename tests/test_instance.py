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
