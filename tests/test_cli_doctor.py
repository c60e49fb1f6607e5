"""The doctor: looks at everything, changes nothing."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from bulkops import runtime_file
from bulkops.cli import main
from bulkops.cli.doctor import judge_sqlite
from bulkops.runtime_file import RuntimeFile
from bulkops.store.instance import InstanceLock
from bulkops.store.store import open_store
from bulkops.timing import SystemClock


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "bulkops.toml"
    file.write_text("[server]\n")
    return file


def examine(config: Path) -> tuple[int, dict[str, tuple[str, str]]]:
    result = CliRunner().invoke(main, ["--config", str(config), "doctor", "--json"])
    findings = json.loads(result.stdout)["findings"]
    return result.exit_code, {found["name"]: (found["state"], found["detail"]) for found in findings}


async def make_store(folder: Path) -> None:
    lock = InstanceLock(folder / "bulkops-data")
    store = await open_store(folder / "bulkops.db", folder / "bulkops-data", SystemClock(), lock)
    await store.close()
    lock.release()


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_before_the_first_start_all_is_good_and_nothing_is_made(config: Path) -> None:
    code, found = examine(config)
    assert code == 0
    assert found["database"][1].endswith("is made by the first start")
    assert listing(config.parent) == {"bulkops.toml"}


async def test_a_database_that_is_gone_is_bad_once_there_was_one(config: Path) -> None:
    await make_store(config.parent)
    (config.parent / "bulkops.db").unlink()
    code, found = examine(config)
    assert code == 1
    assert found["database"][0] == "bad"
    assert "is missing" in found["database"][1]


async def test_a_sound_installation_is_good(config: Path) -> None:
    await make_store(config.parent)
    before = listing(config.parent)
    code, found = examine(config)
    assert code == 0
    assert "is sound" in found["database"][1]
    assert found["data directory"][0] == "good"
    wal = {"bulkops.db-wal", "bulkops.db-shm"}  # what SQLite makes to read
    assert listing(config.parent) - wal == before


async def test_a_database_of_somebody_else_is_bad(config: Path) -> None:
    with sqlite3.connect(config.parent / "bulkops.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    code, found = examine(config)
    assert code == 1
    assert found["database"][0] == "bad"
    assert "not a database of bulkops" in found["database"][1]


async def test_a_data_directory_open_to_others_is_bad_and_the_mending_is_told(config: Path) -> None:
    await make_store(config.parent)
    os.chmod(config.parent / "bulkops-data", 0o755)
    code, found = examine(config)
    assert code == 1
    assert "chmod go=" in found["data directory"][1]


async def test_a_running_instance_is_named_by_its_pid_and_left_alone(config: Path) -> None:
    lock = InstanceLock(config.parent / "bulkops-data")
    store = await open_store(
        config.parent / "bulkops.db", config.parent / "bulkops-data", SystemClock(), lock
    )
    try:
        code, found = examine(config)
        assert code == 0
        assert found["instance lock"] == ("good", f"held by pid {os.getpid()}")
    finally:
        await store.close()
        lock.release()


async def test_a_runtime_file_whose_server_does_not_answer_is_bad(config: Path) -> None:
    await make_store(config.parent)
    content = RuntimeFile(url="http://127.0.0.1:1", pid=os.getpid(), key="k", instance="i", started_at="")
    runtime_file.write(config.parent / "bulkops-data", content)
    code, found = examine(config)
    assert code == 1
    assert found["server"][0] == "bad"
    assert found["runtime file"][0] == "good"


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ((3, 36, 0), "bad"),
        ((3, 40, 1), "warning"),
        ((3, 44, 5), "warning"),
        ((3, 44, 6), "good"),
        ((3, 45, 0), "warning"),
        ((3, 50, 7), "good"),
        ((3, 51, 2), "warning"),
        ((3, 51, 3), "good"),
        ((3, 53, 0), "good"),
    ],
)
def test_known_issues_of_sqlite_are_known(version: tuple[int, ...], state: str) -> None:
    assert judge_sqlite(version, ".".join(map(str, version))).state == state


def test_the_doctor_makes_no_house_calls(config: Path) -> None:
    result = CliRunner().invoke(main, ["--config", str(config), "--url", "http://x", "doctor"])
    assert result.exit_code == 2
