"""`bulkops start` and `bulkops validate`: look at what an action would do, then make a job of it.

What comes in: resource, action, selection; what goes out: a preview, or the accepted job, followed to its
end with `--wait`. A word that must be typed is asked for only after the preview was shown, and the start
that follows is bound to the number of items that stood there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, TypeVar
from urllib.parse import quote

import click

from bulkops.cli import exits, screen
from bulkops.cli.invocation import Invocation, common_options, pass_invocation
from bulkops.cli.selection import Selected, body_of, check, read_options, selection_options
from bulkops.cli.watch import finish
from bulkops.client import Client
from bulkops.errors import Refusal

F = TypeVar("F", bound=Callable[..., Any])

_SAMPLE: Final = 5


def _path(resource: str, action: str) -> str:
    return f"/api/bulk/{quote(resource, safe='')}/{quote(action, safe='')}"


@click.command()
@click.argument("resource")
@click.argument("action")
@selection_options
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of the action.")
@click.option("--atomic", is_flag=True, help="All or nothing.")
@click.option("--expect", "expected_count", type=int, metavar="N", help="Warn unless N items match.")
@click.option("--tenant", help="Act for this tenant (callers without one).")
@common_options
@pass_invocation
def validate(
    invocation: Invocation,
    /,
    *,
    resource: str,
    action: str,
    options: tuple[str, ...],
    atomic: bool,
    expected_count: int | None,
    tenant: str | None,
    **selected: Any,
) -> None:
    """Show what ACTION would do to the selected items of RESOURCE; changes nothing."""
    wanted = Selected(**selected)
    check(wanted)
    extra = {"options": read_options(options), "expected_count": expected_count, "tenant": tenant}
    with closing(invocation.client()) as client:
        body = body_of(wanted, client.upload_ids)
        preview = client.post(
            _path(resource, "validate"), {"action": action, "atomic": atomic, **body, **_given(extra)}
        )
    if invocation.as_json:
        screen.document(preview)
    else:
        show_preview(resource, preview)


@click.command()
@click.argument("resource")
@click.argument("action")
@selection_options
@click.option("--confirm", metavar="WORD", help="The word that the action wants typed, such as DELETE.")
@click.option("--expect", "expected_count", type=int, metavar="N", help="Refuse unless N items match.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", help="An option, such as hard=true."
)
@click.option("--reason", help="Why; kept with the job.")
@click.option("--tenant", help="Act for this tenant (callers without one).")
@click.option("--label", help="A name for the job.")
@click.option("--atomic", is_flag=True, help="All or nothing.")
@click.option("--priority", type=int, metavar="N", help="Higher goes first; 100 is a person's.")
@click.option("--run-at", metavar="TIME", help="Start at this time (RFC 3339).")
@click.option("--batch-size", type=int, metavar="N", help="Items in a transaction; else as fits.")
@click.option("--throttle-ms", type=int, metavar="N", help="Pause between batches; else as others need it.")
@click.option("--max-items-per-second", type=float, metavar="N", help="No faster than this.")
@click.option("--max-items", type=int, metavar="N", help="Pause after this many.")
@click.option("--canary", type=int, metavar="N", help="Do N, then pause for a look.")
@click.option("--wait", is_flag=True, help="Follow the job to its end.")
@common_options
@pass_invocation
def start(
    invocation: Invocation,
    /,
    *,
    resource: str,
    action: str,
    wait: bool,
    options: tuple[str, ...],
    **given: Any,
) -> None:
    """Start ACTION on the selected items of RESOURCE.

    With --wait the exit code is the job's: 0 all went well, 3 partly, 4 failed or nothing went well,
    5 cancelled.
    """
    selected = Selected(**{name: given.pop(name) for name in Selected.__struct_fields__})
    check(selected)
    extra = _given({**given, "options": read_options(options)})
    with closing(invocation.client()) as client:
        body = {**body_of(selected, client.upload_ids), **extra}
        job = _start(client, resource, action, body, may_ask=_may_ask(invocation))
        finish(invocation, client, job, wait=wait, said="accepted")


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in (None, False, {})}


def _may_ask(invocation: Invocation) -> bool:
    return not invocation.as_json and sys.stdin.isatty() and sys.stderr.isatty()


def _start(
    client: Client, resource: str, action: str, body: dict[str, Any], *, may_ask: bool
) -> dict[str, Any]:
    try:
        job: dict[str, Any] = client.create(_path(resource, action), body)
    except Refusal as refused:
        if refused.code != "CONFIRMATION_REQUIRED" or not may_ask or "confirm" in body:
            raise
        job = client.create(_path(resource, action), _confirmed(client, resource, action, body))
    return job


def _confirmed(client: Client, resource: str, action: str, body: dict[str, Any]) -> dict[str, Any]:
    """Show the preview and ask for the word; the start is bound to the count that was shown."""
    asked = {name: value for name, value in body.items() if name in _PREVIEWED}
    preview = client.post(_path(resource, "validate"), {"action": action, **asked})
    show_preview(resource, preview, err=True)
    word = preview["confirm"]
    typed = click.prompt(
        f"Type {word} to {action} them, anything else to leave", default="", show_default=False, err=True
    )
    if typed != word:
        screen.note("nothing was started")
        raise click.exceptions.Exit(exits.REFUSED)
    count = {} if preview["matched"] is None else {"expected_count": preview["matched"]}
    return {**count, **body, "confirm": word}


_PREVIEWED: Final = frozenset(
    {
        "ids",
        "filter",
        "all",
        "selection_id",
        "exclude_ids",
        "tenant",
        "options",
        "atomic",
        "expected_count",
        "max_items",
    }
)


def show_preview(resource: str, preview: dict[str, Any], *, err: bool = False) -> None:
    """Print a preview for people."""
    for line in _preview_lines(resource, preview):
        click.echo(line, err=err)


def _preview_lines(resource: str, preview: dict[str, Any]) -> list[str]:
    def count(value: int | None) -> str:
        return "an unknown number of" if value is None else f"{value:,}"

    eligible, not_eligible = count(preview["eligible_count"]), count(preview["ineligible_count"])
    what = f"{preview['action']} {count(preview['matched'])} {resource}"
    lines = [f"{what}: {eligible} eligible, {not_eligible} not"]
    impact = preview["impact"]
    goes = [f"{count(n)} rows of {screen.clean(table)}" for table, n in impact["rows"].items()]
    if impact["files"]:
        size = "" if impact["bytes"] is None else f" ({_size(impact['bytes'])})"
        goes.append(f"{count(impact['files'])} files{size}")
    if goes:
        lines.append(f"touches {', '.join(goes)}")
    if preview["estimated_seconds"] is not None:
        seconds = preview["estimated_seconds"]
        lines.append("takes less than a second" if seconds < 1 else f"takes about {seconds:,.0f} s")
    if preview["duplicates"]:
        lines.append(f"{preview['duplicates']:,} ids were given more than once and count once")
    lines += [
        f"not {screen.clean(item['id'])}: {item['code']}, {screen.clean(item['reason'])}"
        for item in preview["ineligible"][:_SAMPLE]
    ]
    return lines + [f"warning {w['code']}: {screen.clean(w['detail'])}" for w in preview["warnings"]]


def _size(size: int) -> str:
    value, unit = float(size), "bytes"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, bigger
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
