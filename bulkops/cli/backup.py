"""`bulkops backup FILE`: a consistent copy of our database, with or without a running server.

The file must not exist. Only our own database is copied; the application's is the application's to back up.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import click

from bulkops.cli import screen
from bulkops.cli.invocation import Invocation, common_options, pass_invocation
from bulkops.errors import StartRefused
from bulkops.timing import SystemClock


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@common_options
@pass_invocation
def backup(invocation: Invocation, *, file: Path) -> None:
    """Copy bulkops' own database to FILE, which must not exist."""
    if invocation.url is not None:
        raise click.UsageError("a backup is made on the machine of the database, without --url")
    settings = invocation.settings()
    _copy(settings.database, file)
    size = file.stat().st_size
    if invocation.as_json:
        screen.document({"file": str(file), "bytes": size})
    else:
        click.echo(f"{file}: {size:,} bytes")


def _copy(database: Path, file: Path) -> None:
    """Copy, and leave nothing half-made behind.

    Raises:
        StartRefused: the database is missing or cannot be read, or the file is there or cannot be made.

    """
    import anyio  # late: the store is slow to import

    from bulkops.store.store import copy_database

    if not database.is_file():
        raise StartRefused("db_corrupt", f"{database} does not exist; there is nothing to back up")
    try:
        anyio.run(copy_database, database, file, SystemClock().now_ms())
    except FileExistsError as error:
        raise StartRefused("exists", f"{file} exists; a backup never replaces a file") from error
    except BaseException as error:
        with suppress(OSError):
            file.unlink()
        if isinstance(error, OSError | sqlite3.Error):
            raise StartRefused("backup", f"{database} cannot be copied to {file}: {error}") from error
        raise
