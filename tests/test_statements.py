"""Every SQL statement on our tables: it goes through an index, and takes its order from one."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sqlite3
from collections.abc import Iterator

import pytest

import bulkops.store
from bulkops.store import migrations

#: Steps that read or sort little, whatever the tables hold.
SMALL = re.compile(
    r"SCAN json_each VIRTUAL.*|SCAN (grouped|CONSTANT).*"
    r"|SCAN (line|family)"  # a credential and what came of it
    r"|SCAN jobs USING INDEX jobs_line"  # holds the jobs in line, and no other
    r"|SCAN webhooks USING INDEX webhooks_turn"  # ten a tenant, of which one is to be served
    r"|USE TEMP B-TREE FOR RIGHT PART OF ORDER BY"  # only what is of the same instant
)
#: Statements that walk or sort all the same, and why they may.
ALLOWED = {
    "artifacts._FORGET": "there are no more files than may be kept, and the janitor asks once a round",
    "census._JOBS": "all jobs are counted, from the index alone",
    "claims._DUE_SCHEDULED": "only what is due is sorted",
    "claims._HELD": "once a start",
    "jobs._UNFINISHED": "once a start",
    "outcomes._GROUPS": "only one job's failures are grouped",
    "schedules._UNDECLARED": "once a start",
    "tasks._SUMS": "only one task's jobs are grouped",
}


def _statements() -> Iterator[tuple[str, str]]:
    for found in pkgutil.iter_modules(bulkops.store.__path__):
        module = importlib.import_module(f"bulkops.store.{found.name}")
        for name, value in vars(module).items():
            many = value.items() if isinstance(value, dict) and name.isupper() else [("", value)]
            for key, text in many:
                if isinstance(text, str) and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", text):
                    yield f"{found.name}.{name}{f'[{key}]' if key else ''}", text


STATEMENTS = dict(_statements())


@pytest.fixture(scope="module")
def empty() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrations.create(connection, {})
    # An upload's own scratch table, which no schema has.
    connection.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID")
    yield connection
    connection.close()


def _heavy_steps(connection: sqlite3.Connection, statement: str) -> list[str]:
    text = statement.replace("IN :from", "IN ('queued')")  # a move names its statuses when it runs
    named = dict.fromkeys(re.findall(r":(\w+)", text))
    plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", named or [None] * text.count("?"))
    steps = [row[3] for row in plan]
    return [step for step in steps if step.startswith(("SCAN", "USE TEMP")) and not SMALL.fullmatch(step)]


def test_all_statements_are_looked_at() -> None:
    assert len(STATEMENTS) > 180
    assert len({name.partition(".")[0] for name in STATEMENTS}) >= 20


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_a_statement_walks_and_sorts_no_table(empty: sqlite3.Connection, name: str) -> None:
    steps = _heavy_steps(empty, STATEMENTS[name])
    assert bool(steps) is (name in ALLOWED), steps or "it may walk or sort, and does not"


def test_a_walk_and_a_sort_would_be_noticed(empty: sqlite3.Connection) -> None:
    assert _heavy_steps(empty, "SELECT id FROM jobs WHERE label = :label") == ["SCAN jobs"]
    assert _heavy_steps(empty, "SELECT id FROM jobs WHERE status = 'paused' ORDER BY label") != []
