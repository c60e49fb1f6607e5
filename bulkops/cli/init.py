"""`bulkops init DB`: a first bulkops.toml from a database it has never seen. Only that file is written."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import click

from bulkops.cli import screen
from bulkops.cli.invocation import Invocation, common_options, pass_invocation, typed
from bulkops.errors import ConfigError


@click.command()
@click.argument("db", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace the config file that is there.")
@common_options
@pass_invocation
def init(invocation: Invocation, *, db: Path, force: bool) -> None:
    """Look at the SQLite database DB and write a commented config for it.

    The database is only read. The file is bulkops.toml in the current folder, or what --config names.
    """
    from bulkops.resources.draft import draft  # late: only this command needs it

    file = invocation.config
    text = draft(db, file.absolute().parent)
    _save(file, text, force=force)
    found = list(tomllib.loads(text)["resources"])
    if invocation.as_json:
        screen.document({"file": str(file), "resources": found})
        return
    click.echo(f"{file}: {len(found)} resources: {screen.clean(', '.join(found))}")
    screen.note(
        f"next: read it, then\n"
        f"  {typed('check --explain')}   what is wrong, and what each action would do\n"
        f"  {typed('serve          ')}   the page, the API and the jobs"
    )


def _save(file: Path, text: str, *, force: bool) -> None:
    """Write a new file, or with ``force`` put the new one in the old one's place, whole."""
    try:
        if not force:
            with open(file, "x", encoding="utf-8") as new:
                new.write(text)
            return
        beside = file.with_name(f"{file.name}.new")
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, file)
    except FileExistsError:
        raise ConfigError(str(file), "exists; --force replaces it") from None
    except OSError as error:
        raise ConfigError(str(file), f"cannot be written: {error.strerror}") from error
