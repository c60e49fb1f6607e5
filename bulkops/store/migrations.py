"""The schema's versions: `schema.sql` is the newest, the steps lead there from every older one.

Forward only; each step is one transaction with its version inside. A database of a newer version is
refused before anything here runs.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Final

from bulkops.database import roll_back

APPLICATION_ID: Final = 0x626C6B6F  # "blko"
#: Steps from version n to n + 1, the first entry leading from version 1 to 2.
STEPS: Final[tuple[str, ...]] = ()
VERSION: Final = len(STEPS) + 1


def schema_file() -> Path:
    """Find `schema.sql`: inside the installed package, else at the top of a checkout."""
    packaged = Path(__file__).parent.parent / "schema.sql"
    return packaged if packaged.exists() else Path(__file__).parents[2] / "schema.sql"


def create(connection: sqlite3.Connection, values: dict[str, str]) -> None:
    """Lay the newest schema into an empty database, in one transaction."""
    statements = schema_file().read_text(encoding="utf-8")
    _in_transaction(
        connection,
        f"PRAGMA application_id = {APPLICATION_ID};\n{statements}\nPRAGMA user_version = {VERSION};",
        values,
    )


def migrate(connection: sqlite3.Connection, *, steps: tuple[str, ...] = STEPS) -> int:
    """Take the database to the newest version, a step a transaction; return how many steps that were."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    pending = steps[version - 1 :]
    for offset, step in enumerate(pending, start=version + 1):
        _in_transaction(connection, f"{step}\nPRAGMA user_version = {offset};", {})
    return len(pending)


def _in_transaction(connection: sqlite3.Connection, script: str, values: dict[str, str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in split(script):
            connection.execute(statement)
        connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", list(values.items()))
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def split(script: str) -> list[str]:
    """Cut a script into statements; `executescript` would commit behind our back."""
    statements, pending = [], ""
    for piece in re.split("(?<=;)", script):
        pending += piece
        if sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""
    return [*statements, pending.strip()] if pending.strip() else statements
