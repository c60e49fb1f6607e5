"""`bulkops jobs` and `bulkops show`: the list of jobs, and everything about one; with or without a server."""

from __future__ import annotations

from typing import Any

import click

from bulkops.cli import screen
from bulkops.cli.desk import open_desk
from bulkops.cli.invocation import Invocation, common_options, pass_invocation


@click.command()
@click.option("--status", help="Only jobs in this status.")
@click.option("--resource", help="Only jobs of this resource.")
@click.option("--action", help="Only jobs of this action.")
@click.option("--show-maintenance", is_flag=True, help="The installation's own jobs too.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--page", help="The `next` token of the page before.")
@common_options
@pass_invocation
def jobs(invocation: Invocation, /, *, show_maintenance: bool, **filters: Any) -> None:
    """List jobs, newest first."""
    params = {name: value for name, value in filters.items() if value is not None}
    if show_maintenance:
        params["show_maintenance"] = "true"
    with open_desk(invocation) as desk:
        page = desk.jobs(params)
    if invocation.as_json:
        screen.document(page)
        return
    screen.table(
        ["job", "what", "status", "done", "total", "failed", "by", "created"],
        [_row(job) for job in page["items"]],
        right=frozenset({3, 4, 5}),
    )
    if not page["items"]:
        screen.note("no jobs")
    if page["next"]:
        screen.note(f"more: --page {page['next']}")


def _row(job: dict[str, Any]) -> list[Any]:
    ended = job["outcome"] if job["outcome"] not in (None, "ok") else ""
    return [
        job["id"],
        f"{job['resource']} {'undo of ' if job['undo_of'] else ''}{job['action']}",
        f"{job['status']} {ended}".strip(),
        job["processed"],
        job["total"],
        job["failed"],
        job["requested_by"],
        job["created_at"],
    ]


@click.command()
@click.argument("job")
@common_options
@pass_invocation
def show(invocation: Invocation, *, job: str) -> None:
    """Show everything about JOB, and why items of it failed."""
    with open_desk(invocation) as desk:
        found = desk.job(job)
        errors = desk.job_errors(job) if found["failed"] else []
    if invocation.as_json:
        screen.document({**found, "errors": errors})
        return
    screen.facts([(name, _told(found[name])) for name in _SHOWN if name in found])
    if errors:
        click.echo()
    screen.table(
        ["code", "items", "first", "message"],
        [[e["code"], e["count"], e["first_item"], e["sample_message"]] for e in errors],
        right=frozenset({1}),
    )


_SHOWN = (
    "id",
    "resource",
    "action",
    "label",
    "status",
    "outcome",
    "status_reason",
    "error",
    "allowed_actions",
    "tenant",
    "requested_by",
    "reason",
    "source",
    "task_type",
    "task_id",
    "project",
    "selection",
    "options",
    "total",
    "processed",
    "succeeded",
    "failed",
    "skipped",
    "percent",
    "items_per_second",
    "eta_seconds",
    "active_seconds",
    "batch_size",
    "max_items_per_second",
    "throttle",
    "priority",
    "last_error",
    "artifacts",
    "retry_of",
    "undo_of",
    "undo_until",
    "created_at",
    "run_at",
    "started_at",
    "finished_at",
)


def _told(value: Any) -> Any:
    """Write reasons as `CODE: message`; everything else stays."""
    if isinstance(value, dict) and {"code", "message"} <= value.keys():
        item = f" ({value['item']})" if value.get("item") else ""
        return f"{value['code']}: {value['message']}{item}"
    return value
