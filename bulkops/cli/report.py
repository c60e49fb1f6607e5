"""`bulkops report`: what became of each item of a job, as a stream; with or without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from bulkops.cli.desk import open_desk
from bulkops.cli.invocation import Invocation, common_options, pass_invocation


@click.command()
@click.argument("job")
@click.option(
    "--outcome",
    type=click.Choice(["succeeded", "failed", "skipped", "unprocessed"]),
    help="Only these items.",
)
@click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), help="csv; ndjson with --json.")
@click.option("--output", type=click.Path(path_type=Path), help="A new file instead of standard output.")
@common_options
@pass_invocation
def report(
    invocation: Invocation, *, job: str, outcome: str | None, form: str | None, output: Path | None
) -> None:
    """Print what became of each item of JOB."""
    form = form or ("ndjson" if invocation.as_json else "csv")
    with open_desk(invocation) as desk:
        chunks = desk.report(job, form=form, outcome=outcome)
        if output is None:
            for chunk in chunks:
                click.echo(chunk, nl=False)
        else:
            _save(chunks, output)


def _save(chunks: Iterator[bytes], output: Path) -> None:
    first = next(chunks, b"")  # a refusal leaves no empty file behind
    try:
        output.touch(exist_ok=False)
    except OSError as error:
        raise click.UsageError(f"--output {output}: {error.strerror}") from error
    with output.open("wb") as file:
        file.write(first)
        file.writelines(chunks)
