"""`bulkops tune`: turn the knobs of a job while it runs; what is not named stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from typing import Any

import click

from bulkops.cli import screen
from bulkops.cli.desk import job_path
from bulkops.cli.invocation import Invocation, common_options, pass_invocation


class _None:
    """What a knob is set to by its word; told apart from an option that was not given."""


def _number_or(
    word: str, kind: type[int | float]
) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Read a number, or the word that stands for none, which is sent as null."""

    def read(_: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        if text is None:
            return None
        if text == word:
            return _None()
        try:
            number = kind(text)
            finite = math.isfinite(number)
        except (ValueError, OverflowError):
            finite = False
        if not finite:
            raise click.BadParameter(f"{text!r} is neither a number nor {word!r}", param=parameter)
        return number

    return read


@click.command()
@click.argument("job")
@click.option("--priority", type=int, metavar="N", help="Higher goes first; 100 is a person's.")
@click.option(
    "--speed",
    "max_items_per_second",
    callback=_number_or("full", float),
    metavar="N|full",
    help="At most N items a second, or as fast as it goes.",
)
@click.option(
    "--batch-size",
    callback=_number_or("auto", int),
    metavar="N|auto",
    help="Items in a transaction, or as fits.",
)
@common_options
@pass_invocation
def tune(invocation: Invocation, /, *, job: str, **knobs: Any) -> None:
    """Change priority, speed or batch size of JOB; heeded after its current batch."""
    body = {
        name: None if isinstance(value, _None) else value
        for name, value in knobs.items()
        if value is not None
    }
    if not body:
        raise click.UsageError("say what to change: --priority, --speed or --batch-size")
    with closing(invocation.client()) as client:
        found = client.patch(job_path(job), body)
    if invocation.as_json:
        screen.document(found)
    else:
        click.echo(f"{found['id']} {found['status']}: {_knobs(found)}")


def _knobs(job: dict[str, Any]) -> str:
    speed = job["max_items_per_second"]
    paced = "full speed" if speed is None else f"at most {speed:g} items a second"
    return f"priority {job['priority']}, {paced}, batches of {job['batch_size'] or 'automatic size'}"
