"""A sidecar in a process of its own: the handshake, what keeps it from starting, and where its token is not."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bulkops
from tests.sidecar.ground import ask, ended_exactly, is_free, lay, start_job
from tests.sidecar.host import ROOT, TOKEN, Host, command, start_line, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux' /proc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay(tmp_path / "data")


def test_ready_says_all_of_it_once_requests_are_answered(folder: Path) -> None:
    with Host(command(folder)) as host:
        ready = host.ready()
        status, _, me = ask(ready, "GET", "/api/me")
        port = ready["port"]
        assert ready == {
            "type": "ready",
            "v": 1,
            "host": "127.0.0.1",
            "port": port,
            "http": f"http://127.0.0.1:{port}",
            "ws": f"ws://127.0.0.1:{port}/ws",
            "pid": host.child.pid,
            "instance": ready["instance"],
            "epoch": ready["epoch"],
            "version": bulkops.__version__,
        }
        assert (status, me["tenant"], me["roles"]) == (200, None, ["owner"])
        host.say("ping")
        assert host.hear("pong") == {"type": "pong"}
        host.say("shutdown", grace_ms=5000)
        assert host.exits() == 0
        assert host.said() == ["ready", "pong", "stopping", "stopped"]
        assert host.hear("stopping") == {"type": "stopping", "reason": "shutdown"}
        assert host.stderr() == ""


def test_without_a_token_one_is_made_and_told(folder: Path) -> None:
    with Host(command(folder)) as host:
        ready = host.ready(token=None)
        assert re.fullmatch(r"[A-Za-z0-9_-]{43,}", ready["token"])
        assert ask(ready, "GET", "/api/me", token=ready["token"])[0] == 200
        assert ask(ready, "GET", "/api/me", token=TOKEN)[0] == 401


def test_lines_that_nobody_knows_are_passed_over(folder: Path) -> None:
    with Host(command(folder)) as host:
        host.ready(newer_member={"any": "thing"})
        for line in (
            b"\n",
            b"no json\n",
            b"[1]\n",
            b'{"type":"dance"}\n',
            b"\xff\xfe\n",
            b"[" * 9000 + b"\n",
        ):
            host.send(line)
        host.send(b"x" * 1_000_000 + b"\n")
        host.send(start_line())
        host.say("ping")
        host.hear("pong")
        host.send(b'{"type":"shutdown","grace_ms":"soon"}')  # without an end it is no line
        host.say("ping")
        host.send(b'{"type":"shutdown","grace_ms":"soon"}\r\n')
        assert host.exits() == 0
        assert host.said() == ["ready", "pong", "stopping", "stopped"]


BAD = {
    "no json": b"hello\n",
    "no object": b"[]\n",
    "empty": b"\n",
    "another type": b'{"type":"ping"}\n',
    "a member twice": b'{"type":"start","token":null,"token":null}\n',
    "a short token": start_line(token="short"),
    "a token with blanks": start_line(token="a b" * 20),
    "a token that is a number": start_line(token=7),
    "a token like a key": start_line(token=f"bk_{'0' * 26}_{'x' * 43}"),
    "a wildcard": start_line(origins=["https://*.example"]),
    "an origin with a path": start_line(origins=["https://a.example/"]),
    "the null origin": start_line(origins=["null"]),
    "an origin that is no list": start_line(origins="tauri://localhost"),
    "a pid below zero": start_line(host_pid=-1),
    "a pid that is true": start_line(host_pid=True),
    "a giant": b'{"type":"start","token":"' + b"a" * 200_000,
}


@pytest.mark.parametrize("line", BAD.values(), ids=BAD.keys())
def test_a_bad_start_line_is_fatal(tmp_path: Path, line: bytes) -> None:
    with Host(command(tmp_path / "data")) as host:
        host.send(line)
        fatal = host.hear("fatal")
        assert (fatal["code"], fatal["pid"]) == ("bad_start", host.child.pid)
        assert not any(secret in fatal["message"] for secret in ("short", "a b", "xxx", "aaa", "*.example"))
        assert host.exits() == 3
        assert host.said() == ["fatal"]
        assert not (tmp_path / "data").exists()


def test_no_start_line_is_fatal_after_five_seconds(tmp_path: Path) -> None:
    with Host(command(tmp_path / "data")) as host:
        assert host.hear("fatal", within_s=8)["code"] == "bad_start"
        assert 4.5 < time.monotonic() - host.began < 7.5
        assert host.exits() == 3


def test_an_end_before_the_start_line_is_fatal_at_once(tmp_path: Path) -> None:
    with Host(command(tmp_path / "data")) as host:
        host.close_stdin()
        assert "stdin ended" in host.hear("fatal")["message"]
        assert host.exits() == 3


def test_a_host_that_says_all_it_will_say_still_learns_how_the_start_went(folder: Path) -> None:
    done = subprocess.run(command(folder), cwd=ROOT, input=start_line(), capture_output=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["ready", "stopping", "stopped"]
    assert lines[1]["reason"] == "stdin_eof"
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("options", [[], ["--data-dir"], ["--data-dir", "x", "--token", "y"]])
def test_wrong_usage_is_exit_2_and_no_line(tmp_path: Path, options: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bulkops", "sidecar", *options],
        cwd=ROOT, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "--" in done.stderr


# --- What keeps it from starting -------------------------------------------------------------------------


def fatal_of(argv: list[str]) -> tuple[dict[str, Any], int]:
    done = subprocess.run(argv, cwd=ROOT, input=start_line(), capture_output=True, check=False, timeout=20)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["fatal"], lines
    assert done.stderr == b""
    return lines[0], done.returncode


def test_a_second_start_waits_and_says_who_runs(folder: Path) -> None:
    with Host(command(folder)) as first:
        ready = first.ready()
        began = time.monotonic()
        with Host(command(folder)) as second:
            second.send(start_line())
            fatal = second.hear("fatal")
            assert time.monotonic() - began > 3
            assert (fatal["code"], fatal["pid"], fatal["port"]) == (
                "already_running", ready["pid"], ready["port"],
            )  # fmt: skip
            assert second.exits() == 10
        assert ask(ready, "GET", "/api/me")[0] == 200


def test_a_second_start_gets_the_lock_that_is_left_meanwhile(folder: Path) -> None:
    with Host(command(folder)) as first, Host(command(folder)) as second:
        ready = first.ready()
        second.send(start_line())
        until(lambda: (Path(f"/proc/{second.child.pid}/task")).exists(), within_s=2)
        first.say("shutdown")
        assert second.hear("ready")["instance"] == ready["instance"]
        assert first.exits() == 0


def test_a_relaunch_right_after_a_force_quit_works_with_another_token(folder: Path) -> None:
    with Host(command(folder, bootloader=True)) as first:
        ready = first.ready()
        first.kill()
        with Host(command(folder, bootloader=True)) as second:
            again = second.ready(token="another-" + "y" * 40)
            assert again["instance"] == ready["instance"]
            assert ask(again, "GET", "/api/me", token="another-" + "y" * 40)[0] == 200
            assert ask(again, "GET", "/api/me", token=TOKEN)[0] == 401


def test_a_taken_port_is_fatal_and_no_neighbour_is_taken(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        fatal, code = fatal_of(command(folder, "--port", str(taken.getsockname()[1])))
    assert (fatal["code"], code) == ("bind", 3)


@pytest.mark.parametrize("damage", [b"no database at all, " * 400, b""])
def test_a_corrupt_database_is_fatal(folder: Path, damage: bytes) -> None:
    (folder / "bulkops.db").write_bytes(damage)
    fatal, code = fatal_of(command(folder))
    assert (fatal["code"], code) == ("db_corrupt", 11)
    assert (folder / "bulkops.db").read_bytes() == damage
    assert is_free(folder)


@pytest.mark.parametrize("config", ["[server", "[server]\nprot = 1\n", "[resources.x]\nkind = 'cloud'\n"])
def test_a_wrong_config_is_fatal(folder: Path, config: str) -> None:
    (folder / "bulkops.toml").write_text(config)
    fatal, code = fatal_of(command(folder))
    assert (fatal["code"], code) == ("config", 3)
    assert "bulkops.toml" in fatal["message"]


def test_a_config_that_was_named_has_to_be_there(folder: Path) -> None:
    fatal, code = fatal_of(command(folder, "--config", str(folder / "none.toml")))
    assert (fatal["code"], code) == ("config", 3)


def test_a_data_directory_that_cannot_be_one_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fatal, code = fatal_of(command(tmp_path / "file" / "data"))
    assert (fatal["code"], code) == ("config", 3)


def test_a_first_start_makes_its_data_directory_and_needs_no_config(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with Host(command(folder)) as host:
        ready = host.ready()
        assert ask(ready, "GET", "/api/resources")[0] == 200
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / "bulkops.db").exists()
        assert (folder / "logs" / "bulkops.log").exists()


def test_a_config_among_the_applications_files_keeps_the_data_where_it_belongs(tmp_path: Path) -> None:
    program = lay(tmp_path / "program")
    with Host(command(tmp_path / "data", "--config", str(program / "bulkops.toml"))) as host:
        ready = host.ready()
        job = start_job(ready, begun=False)
        ended_exactly(ready, program, job)
    assert sorted(each.name for each in program.iterdir() if "app.db" not in each.name) == ["bulkops.toml"]
    assert (tmp_path / "data" / "bulkops.db").exists()


# --- Secrets ---------------------------------------------------------------------------------------------


def test_the_token_is_nowhere_but_in_memory(folder: Path) -> None:
    with Host(command(folder)) as host:
        ready = host.ready()
        job = start_job(ready)
        ask(ready, "GET", f"/api/jobs/{job}?token={TOKEN}")
        for name in ("cmdline", "environ"):
            assert TOKEN.encode() not in Path(f"/proc/{host.child.pid}/{name}").read_bytes()
        assert TOKEN not in json.dumps(host.lines)
        for file in folder.rglob("*"):
            if file.is_file():
                assert TOKEN.encode() not in file.read_bytes(), file
                assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0 or file.name.startswith(
                    ("app", "bulkops.toml")
                )
        host.say("shutdown")
        host.exits()
    assert not any(TOKEN.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_the_command_finds_the_sidecar_of_a_data_directory(folder: Path) -> None:
    with Host(command(folder)) as host:
        host.ready()
        argv = [
            sys.executable,
            "-m",
            "bulkops",
            "--json",
            "--config",
            str(folder / "bulkops.toml"),
            "resources",
        ]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == 0, done.stderr
        assert "notes" in done.stdout
        host.say("shutdown")
        host.exits()
    assert not (folder / "runtime.json").exists()
    assert not (folder / "bulkops-data").exists()
