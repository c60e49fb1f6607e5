"""`bulkops pause resume cancel retry undo`: what can be done to a job.

Each prints the job it acted on, or the new job that retry and undo make, and follows that with `--wait`.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from bulkops.cli import screen
from bulkops.cli.desk import job_path
from bulkops.cli.invocation import Invocation, common_options, pass_invocation
from bulkops.cli.watch import finish

_wait = click.option("--wait", is_flag=True, help="Follow the job to its end; exit as it ends.")


@click.command()
@click.argument("job")
@common_options
@pass_invocation
def pause(invocation: Invocation, *, job: str) -> None:
    """Pause JOB after its current batch."""
    _say(invocation, job, "pause", {})


@click.command()
@click.argument("job")
@_wait
@common_options
@pass_invocation
def resume(invocation: Invocation, *, job: str, wait: bool) -> None:
    """Let a paused or failed JOB go on."""
    _say(invocation, job, "resume", {}, wait=wait)


@click.command()
@click.argument("job")
@click.option("--force", is_flag=True, help="End a job whose target is gone (owners).")
@common_options
@pass_invocation
def cancel(invocation: Invocation, *, job: str, force: bool) -> None:
    """End JOB after its current batch; what it did stays done."""
    _say(invocation, job, "cancel", {"force": True} if force else {})


@click.command()
@click.argument("job")
@click.option(
    "--code", "codes", multiple=True, help="Only items that failed with this code; may be repeated."
)
@_wait
@common_options
@pass_invocation
def retry(invocation: Invocation, *, job: str, codes: tuple[str, ...], wait: bool) -> None:
    """Start a job of the items of JOB that failed."""
    _say(invocation, job, "retry", {"codes": list(codes)} if codes else {}, wait=wait)


@click.command()
@click.argument("job")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this item; may be repeated.")
@_wait
@common_options
@pass_invocation
def undo(invocation: Invocation, *, job: str, ids: tuple[str, ...], wait: bool) -> None:
    """Start a job that puts back what JOB took."""
    _say(invocation, job, "undo", {"ids": list(ids)} if ids else {}, wait=wait)


def _say(invocation: Invocation, job: str, verb: str, body: dict[str, Any], *, wait: bool = False) -> None:
    with closing(invocation.client()) as client:
        answer = client.create(job_path(job, verb), body)
        if answer["id"] != job and not invocation.as_json:
            screen.note(f"{verb} of {job} is job {answer['id']}")
        finish(invocation, client, answer, wait=wait)
