"""Opening files on this system, and on one that has none of the flags and no folder handles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bulkops import handles
from tests.engine_house import make_database

#: What Python has under POSIX only; without it the modules must still load and tables still work.
ABSENT = (
    "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "pread", "fchmod", "geteuid", "getuid", "fork",
    "fdatasync",
)  # fmt: skip
ELSEWHERE = f"""
import os
for name in {ABSENT!r}:
    if hasattr(os, name):
        delattr(os, name)
os.supports_dir_fd = set()
"""
EVERYTHING = """
import importlib, pkgutil, bulkops
for module in pkgutil.walk_packages(bulkops.__path__, "bulkops."):
    if not module.name.endswith("__main__") and module.name not in {"bulkops.binary"}:
        importlib.import_module(module.name)
"""
A_JOB = """
import anyio, sys
from pathlib import Path
from bulkops.models import Caller, StartBody
from bulkops.runtime import open_runtime
from bulkops.configuration import from_dict

async def main(folder):
    resource = {"kind": "table", "database": "app.db", "table": "t", "id": "id", **RESOURCE}
    async with open_runtime(from_dict({"resources": {"t": resource}}, folder, {})) as runtime:
        owner = Caller(user="o", roles=frozenset({"owner"}))
        for action in ("export", "delete"):
            job = await runtime.service.start(owner, "t", action, StartBody(all=True))
            job = await runtime.service.job(owner, job.id, wait_s=30)
            print(job.status, job.outcome, job.succeeded)

anyio.run(main, Path(sys.argv[1]))
"""


def elsewhere(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ELSEWHERE + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_module_loads_where_there_are_no_folder_handles() -> None:
    done = elsewhere(EVERYTHING)
    assert done.returncode == 0, done.stderr


def test_tables_are_exported_and_deleted_there(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2);"
    )
    done = elsewhere("RESOURCE = {}\n" + A_JOB, str(tmp_path))
    assert done.stdout.splitlines() == ["completed ok 2"] * 2, done.stderr


def test_files_are_refused_there_before_anything_happens(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, path TEXT);")
    (tmp_path / "files").mkdir()
    done = elsewhere("RESOURCE = {'file': 'path', 'root': 'files'}\n" + A_JOB, str(tmp_path))
    assert "resources.t.root: files cannot be moved safely here" in done.stderr, done.stderr


def test_a_link_is_not_followed_and_a_part_is_read_where_it_is(tmp_path: Path) -> None:
    assert handles.FOLDER_HANDLES
    (tmp_path / "file").write_bytes(b"abcdef")
    fd = os.open(tmp_path / "file", handles.READ)
    try:
        assert handles.read_at(fd, 3, 2) == b"cde"
        assert handles.read_at(fd, 3, 6) == b""
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    try:
        os.close(os.open(tmp_path / "link", handles.READ))
    except OSError:
        return
    raise AssertionError("a link was followed")
