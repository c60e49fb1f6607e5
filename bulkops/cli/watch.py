"""`bulkops watch`, and the end of every command that makes a job: follow it, sum it up, exit by it.

Ctrl-C while following never touches the job.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from bulkops.cli import exits, screen
from bulkops.cli.desk import job_path
from bulkops.cli.invocation import Invocation, common_options, pass_invocation, typed
from bulkops.cli.progress import follow, open_view
from bulkops.client import Client
from bulkops.timing import parse_rfc3339


@click.command()
@click.argument("job")
@common_options
@pass_invocation
def watch(invocation: Invocation, *, job: str) -> None:
    """Follow JOB to its end; the exit code is the job's."""
    with closing(invocation.client()) as client:
        finish(invocation, client, client.get(job_path(job)), wait=True)


def finish(
    invocation: Invocation, client: Client, job: dict[str, Any], *, wait: bool, said: str = ""
) -> None:
    """Print an accepted job, or follow it to its end and exit as it ended."""
    if wait:
        job = _wait_for(client, job, as_json=invocation.as_json)
    if invocation.as_json:
        screen.document(job)
    elif wait:
        click.echo(summary(job))
    else:
        click.echo(f"{job['id']} {said or job['status']}")
        screen.note(f"follow it with: {typed('watch', job['id'])}")
    if wait:
        click.get_current_context().exit(exits.of_job(job))


def _wait_for(client: Client, job: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Follow a job in the view that fits; Ctrl-C says how to come back and exits, the job is left as it is.

    Raises:
        Refusal, NoServer: as `follow` does.

    """
    try:
        with open_view(as_json=as_json) as view:
            return follow(client, job, view)
    except KeyboardInterrupt:
        screen.note(f"\njob {job['id']} goes on; come back with: {typed('watch', job['id'])}")
        raise click.exceptions.Exit(exits.INTERRUPTED) from None


def summary(job: dict[str, Any]) -> str:
    """Sum up a job in one line, and what to do next in others."""
    counts = [f"{job[name]:,} {name}" for name in ("succeeded", "failed", "skipped") if job[name]]
    ended = job["status"] if job["outcome"] in (None, "ok") else f"{job['status']}, {job['outcome']}"
    lines = [f"{job['id']} {ended}: {', '.join(counts) or 'nothing to do'}{_took(job)}"]
    if job["error"]:
        lines.append(f"  {job['error']['code']}: {screen.clean(job['error']['message'])}")
    if job["failed"]:
        lines.append(f"  what failed: {typed('report', job['id'], '--outcome failed')}")
    if job["skipped"]:
        lines.append(f"  what was skipped: {typed('report', job['id'], '--outcome skipped')}")
    if "undo" in job["allowed_actions"]:
        lines.append(f"  put back with: {typed('undo', job['id'])}  (until {job['undo_until']})")
    lines += [_made(made) for made in job["artifacts"]]
    return "\n".join(lines)


def _made(made: dict[str, Any]) -> str:
    said = f"  made {screen.clean(made['name'])}"
    if made["status"] != "ready":
        return f"{said}: {made['status']}"
    return f"{said}, {made['bytes']:,} bytes: {typed('download', made['id'])}  (until {made['expires_at']})"


def _took(job: dict[str, Any]) -> str:
    if not job["started_at"] or not job["finished_at"]:
        return ""
    took_s = (parse_rfc3339(job["finished_at"]) - parse_rfc3339(job["started_at"])) / 1000
    return f" in {took_s:,.1f} s"
