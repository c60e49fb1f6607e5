"""`bulkops download`: a file that a job made, checked against its recorded hash; with or without a server."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import click

from bulkops.cli import exits, screen
from bulkops.cli.desk import Desk, open_desk
from bulkops.cli.invocation import Invocation, common_options, pass_invocation
from bulkops.errors import Refusal


@click.command()
@click.argument("made", metavar="JOB|ARTIFACT")
@click.option(
    "--output", metavar="FILE", help="A new file, or - for standard output; else the file's own name."
)
@common_options
@pass_invocation
def download(invocation: Invocation, *, made: str, output: str | None) -> None:
    """Download what JOB made, or one ARTIFACT."""
    with open_desk(invocation) as desk:
        artifact = find(desk, made)
        chunks = desk.download(artifact["id"])
        if output == "-":
            whole = copy(chunks, sys.stdout.buffer, artifact)
            path = None
        else:
            path = Path(output or artifact["name"])
            whole = _save(chunks, path, artifact)
    if not whole:
        screen.note("what came is not what was made: its hash is another; nothing was kept")
        click.get_current_context().exit(exits.FAILED)
    if invocation.as_json and path is not None:
        screen.document({**artifact, "path": str(path)})
    elif path is not None:
        click.echo(f"{path}  {artifact['bytes']:,} bytes, {artifact['rows']:,} rows")


def find(desk: Desk, made: str) -> dict[str, Any]:
    """Return the artifact of that id, or the first that is ready of the job of that id.

    Raises:
        Refusal: there is neither, or the job made nothing that can be had.
    """
    try:
        return desk.artifact(made)
    except Refusal as refusal:
        if refusal.code != "NOT_FOUND":
            raise
    job = desk.job(made)
    ready: list[dict[str, Any]] = [each for each in job["artifacts"] if each["status"] == "ready"]
    if ready:
        return ready[0]
    states = ", ".join(each["status"] for each in job["artifacts"]) or "none was made"
    raise Refusal("NOT_FOUND", f"job {made} has no file to download ({states})")


def copy(chunks: Iterable[bytes], file: BinaryIO, artifact: dict[str, Any]) -> bool:
    """Write the file as it comes; say whether it was the one that was recorded."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    return bool(digest.hexdigest() == artifact["sha256"])


def _save(chunks: Iterable[bytes], path: Path, artifact: dict[str, Any]) -> bool:
    chunks = iter(chunks)
    first = next(chunks, b"")  # a refusal leaves no empty file behind
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.UsageError(f"--output {path}: {os.strerror(error.errno or 0)}") from error
    whole = False
    try:
        with os.fdopen(fd, "wb") as file:
            whole = copy(_all(first, chunks), file, artifact)
    finally:
        if not whole:
            path.unlink(missing_ok=True)
    return whole


def _all(first: bytes, rest: Iterable[bytes]) -> Iterable[bytes]:
    yield first
    yield from rest
