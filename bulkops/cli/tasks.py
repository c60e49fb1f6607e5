"""`bulkops task` and `bulkops tasks`: start what takes several jobs, one after another, and look at how it stands.

What comes in: a type of task and a project; what goes out: the accepted task, or with `--wait` its jobs followed
one by one to the end of the last. Ctrl-C while following never touches them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import quote

import click

from bulkops.cli import exits, screen
from bulkops.cli.desk import job_path
from bulkops.cli.invocation import Invocation, common_options, pass_invocation, typed
from bulkops.cli.progress import View, follow, open_view
from bulkops.cli.selection import read_options
from bulkops.client import Client

_ENDED = frozenset({"completed", "failed", "cancelled"})


@click.command()
@click.argument("task_type", metavar="TYPE")
@click.option("--project", required=True, help="The project, a folder of the resource's root.")
@click.option("--file", "files", multiple=True, metavar="NAME", help="Only photos that this file belongs to.")
@click.option("--resource", help="Which resource, where several have such tasks.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of the first job.")
@click.option("--confirm", metavar="WORD", help="The word that the first job's action wants typed.")
@click.option("--expect", "expected_count", type=int, metavar="N", help="Refuse unless N items match.")
@click.option("--reason", help="Why; kept with the first job.")
@click.option("--tenant", help="Act for this tenant (callers without one).")
@click.option("--wait", is_flag=True, help="Follow the task to its end.")
@common_options
@pass_invocation
def task(
    invocation: Invocation,
    /,
    *,
    task_type: str,
    files: tuple[str, ...],
    options: tuple[str, ...],
    wait: bool,
    **given: Any,
) -> None:
    """Start a task of TYPE, such as change_commit, on a project.

    With --wait the exit code is the task's: 0 all went well, 3 partly, 4 failed, 5 cancelled.
    """
    body = {**given, "files": list(files) or None, "options": read_options(options) or None}
    body = {name: value for name, value in body.items() if value is not None}
    with closing(invocation.client()) as client:
        found = client.create(f"/api/tasks/{quote(task_type, safe='')}", body)
        if wait:
            found = _wait_for(client, found, as_json=invocation.as_json)
    if invocation.as_json:
        screen.document(found)
    elif wait:
        click.echo(_summary(found))
    else:
        click.echo(f"{found['id']} accepted")
    if wait:
        click.get_current_context().exit(_exit_of(found))


def _wait_for(client: Client, found: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    try:
        with open_view(as_json=as_json) as view:
            return follow_task(client, found, lambda: view)
    except KeyboardInterrupt:
        screen.note(f"\ntask {found['id']} goes on; look at it with: {typed('tasks')}")
        raise click.exceptions.Exit(exits.INTERRUPTED) from None


def follow_task(client: Client, found: dict[str, Any], next_view: Callable[[], View]) -> dict[str, Any]:
    """Follow the jobs of a task in turn, each in the next view; those that a job's end begins are there at once.

    Raises:
        Refusal, NoServer: as `follow` does.

    """
    followed: set[str] = set()
    while True:
        job = next((job for job in found["jobs"] if job["id"] not in followed), None)
        if job is not None:
            followed.add(job["id"])
            follow(client, client.get(job_path(job["id"])), next_view())
        elif found["status"] in _ENDED:
            return found
        else:
            # What is left is the installation's, and not for this caller to see, or was begun anew.
            client.poll(f"task:{found['id']}", found["cursor"])
        found = client.get(f"/api/tasks/{found['id']}")


def _summary(found: dict[str, Any]) -> str:
    lines = [f"{found['id']} {found['label']}: {found['status']}"]
    for job in found["jobs"]:
        ended = job["status"] if job["outcome"] in (None, "ok") else f"{job['status']}, {job['outcome']}"
        failed = f", {job['failed']:,} failed" if job["failed"] else ""
        lines.append(
            f"  {job['id']} {screen.clean(job['label'])}: {ended}, {job['processed']:,} done{failed}"
        )
    return "\n".join(lines)


def _exit_of(found: dict[str, Any]) -> int:
    outcome = "partial" if found["failed"] else "ok"
    return exits.of_job({"status": found["status"], "outcome": outcome})


@click.command()
@click.option("--type", "type_", help="Only tasks of this type.")
@click.option("--project", help="Only tasks on this project.")
@click.option("--show-maintenance", is_flag=True, help="The installation's own tasks too.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--page", help="The `next` token of the page before.")
@common_options
@pass_invocation
def tasks(invocation: Invocation, /, *, type_: str | None, show_maintenance: bool, **filters: Any) -> None:
    """List tasks, newest first."""
    params = {name: value for name, value in {**filters, "type": type_}.items() if value is not None}
    if show_maintenance:
        params["show_maintenance"] = "true"
    with closing(invocation.client()) as client:
        page = client.get("/api/tasks", params)
    if invocation.as_json:
        screen.document(page)
        return
    screen.table(
        ["task", "what", "project", "status", "done", "total", "failed", "by", "created"],
        [_row(found) for found in page["items"]],
        right=frozenset({4, 5, 6}),
    )
    if not page["items"]:
        screen.note("no tasks")
    if page["next"]:
        screen.note(f"more: --page {page['next']}")


def _row(found: dict[str, Any]) -> list[Any]:
    names = ("id", "label", "project", "status", "processed", "total", "failed", "requested_by", "created_at")
    return [found[name] for name in names]
