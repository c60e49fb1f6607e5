"""Whether the very process that was seen first is still alive."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bulkops.sidecar import watched
from bulkops.sidecar.watched import Watched

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux' /proc")


def test_we_are_alive_and_a_zombie_is_not() -> None:
    assert Watched(os.getpid()).is_alive()
    with subprocess.Popen(["sleep", "60"]) as child:
        one = Watched(child.pid)
        assert one.is_alive()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}").exists()
        assert not one.is_alive()
        child.wait()
        assert not one.is_alive()


def test_one_that_was_gone_at_first_sight_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert not Watched(child.pid).is_alive()


def test_another_process_with_the_same_pid_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Watched(os.getpid())
    began = watched._began(os.getpid())
    assert began is not None
    monkeypatch.setattr(watched, "_began", lambda _: str(int(began) + 1))
    assert not one.is_alive()


def test_a_name_with_brackets_does_not_confuse_it(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "60"]) as child:
        one = Watched(child.pid)
        assert one.is_alive()
        child.kill()
        child.wait()
        assert not one.is_alive()
