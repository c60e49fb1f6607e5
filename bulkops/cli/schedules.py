"""`bulkops schedules`: what the running server starts by the calendar."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final
from urllib.parse import quote

import click

from bulkops.cli import screen
from bulkops.cli.invocation import Invocation, common_options, pass_invocation
from bulkops.cli.selection import Selected, check, read_conditions, read_options, selection_options
from bulkops.cli.watch import finish

_PATH: Final = "/api/schedules"


@click.group(invoke_without_command=True)
@common_options
@click.pass_context
def schedules(ctx: click.Context) -> None:
    """List, add, remove and run what is started by a cron line or an interval."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_schedules)


@schedules.command("list")
@click.option("--tenant", help="Only this tenant's (callers without one).")
@common_options
@pass_invocation
def list_schedules(invocation: Invocation, /, *, tenant: str | None = None) -> None:
    """List schedules: when each is due next, and what came of it last time."""
    params = {"limit": 1000} | ({"tenant": tenant} if tenant else {})
    with closing(invocation.client()) as client:
        found = client.get(_PATH, params)
    if invocation.as_json:
        screen.document(found)
        return
    screen.table(
        ["id", "name", "resource", "action", "when", "next", "last", "result"],
        [
            [
                *(each["id"], each["name"], each["resource"], each["action"]),
                _when(each),
                each["next_at"] or "never",
                *(each["last_at"], each["last_result"]),
            ]
            for each in found["items"]
        ],
    )


def _when(schedule: dict[str, Any]) -> str:
    if schedule["cron"] is None:
        return f"every {schedule['every']}"
    return f"{schedule['cron']} {schedule['timezone']}"


@schedules.command()
@click.argument("name")
@click.argument("resource")
@click.argument("action")
@selection_options
@click.option("--cron", metavar="LINE", help="When: five fields, such as '0 3 * * *'.")
@click.option("--every", metavar="TIME", help="Or how often, such as 6h (from a minute to a year).")
@click.option("--timezone", metavar="ZONE", help="Where the cron line's clock hangs (UTC).")
@click.option("--confirm", metavar="WORD", help="The word that the action wants typed, such as DELETE.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", help="An option, such as hard=true."
)
@click.option("--reason", help="Why; kept with each job.")
@click.option("--label", help="What the jobs are called; else as the schedule.")
@click.option("--tenant", help="Act for this tenant (callers without one).")
@click.option("--batch-size", type=int, metavar="N", help="Items in a transaction; else as fits.")
@click.option("--throttle-ms", type=int, metavar="N", help="Pause between batches; else as others need it.")
@click.option("--max-items", type=int, metavar="N", help="Pause each job after this many.")
@common_options
@pass_invocation
def add(
    invocation: Invocation,
    /,
    *,
    name: str,
    resource: str,
    action: str,
    options: tuple[str, ...],
    **given: Any,
) -> None:
    """Have ACTION done to the selected items of RESOURCE again and again.

    Times in conditions may be relative: --where 'closed_at<-90d' is counted anew each time.
    """
    selected = Selected(**{field: given.pop(field) for field in Selected.__struct_fields__})
    check(selected)
    extra = {field: value for field, value in given.items() if value is not None}
    body = {"name": name, "resource": resource, "action": action, **_selection(selected), **extra}
    if options:
        body["options"] = read_options(options)
    with closing(invocation.client()) as client:
        made = client.post(_PATH, body)
    if invocation.as_json:
        screen.document(made)
    else:
        click.echo(f"schedule {made['id']} is due next at {made['next_at'] or 'no time'}")


def _selection(selected: Selected) -> dict[str, Any]:
    """Build the selection: it is looked up at each start, so there is nothing to upload."""
    if selected.ids_from:
        raise click.UsageError(
            "--ids-from is about one moment; a schedule selects with --where, --all or --id"
        )
    exclude = {"exclude_ids": list(selected.exclude)} if selected.exclude else {}
    if selected.everything:
        return {"all": True, **exclude}
    if selected.where:
        return {"filter": read_conditions(selected.where), **exclude}
    return {"ids": list(selected.ids), **exclude}


@schedules.command()
@click.argument("schedule", metavar="ID")
@common_options
@pass_invocation
def remove(invocation: Invocation, /, *, schedule: str) -> None:
    """Remove a schedule; jobs that came of it go on."""
    with closing(invocation.client()) as client:
        client.delete(f"{_PATH}/{quote(schedule, safe='')}")
    if invocation.as_json:
        screen.document({"id": schedule, "removed": True})
    else:
        click.echo(f"schedule {schedule} is removed")


@schedules.command()
@click.argument("schedule", metavar="ID")
@click.option("--wait", is_flag=True, help="Follow the job to its end.")
@common_options
@pass_invocation
def run(invocation: Invocation, /, *, schedule: str, wait: bool) -> None:
    """Start a schedule's job now; when it is due next stays as it is."""
    with closing(invocation.client()) as client:
        job = client.create(f"{_PATH}/{quote(schedule, safe='')}/run", {})
        finish(invocation, client, job, wait=wait, said="accepted")
