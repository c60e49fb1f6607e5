"""`bulkops trash`: what can be put back, each with the command that does; with or without a server."""

from __future__ import annotations

import shlex
from typing import Any, Final

import click

from bulkops.cli import screen
from bulkops.cli.desk import Desk, open_desk
from bulkops.cli.invocation import Invocation, common_options, pass_invocation, typed

_MAX_LABEL: Final = 60
_ESCAPED: Final = {"'": "\\'", "\\": "\\\\"}


@click.command()
@click.option("--query", metavar="TEXT", help="Only what has this in its label or id.")
@click.option("--tenant", help="Only this tenant's (callers without one).")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--page", help="The `next` token of the page before.")
@common_options
@pass_invocation
def trash(invocation: Invocation, /, *, query: str | None, **filters: Any) -> None:
    """List what is in the trash, newest first, and how to put it back.

    Several things of one job come back together: `bulkops undo JOB --id A --id B`; without --id all of them.
    """
    params = {name: value for name, value in {"q": query, **filters}.items() if value is not None}
    with open_desk(invocation) as desk:
        page = _ask(desk, params)
    if invocation.as_json:
        screen.document(page)
        return
    screen.table(
        ["deleted", "resource", "item", "tenant", "until", "put back with"],
        [_row(each) for each in page["items"]],
        fold=False,
    )
    if not page["items"]:
        screen.note("nothing in the trash has that in its label or id" if query else "the trash is empty")
    if page["next"]:
        screen.note(f"more: --page {page['next']}")


def _ask(desk: Desk, params: dict[str, Any]) -> dict[str, Any]:
    """Read a page; one that is empty only because the server looked for long enough is read on."""
    page = desk.trash(params)
    while page["next"] and not page["items"]:
        page = desk.trash({**params, "page": page["next"]})
    return page


def _row(each: dict[str, Any]) -> list[Any]:
    label = each["label"] if len(each["label"]) <= _MAX_LABEL else f"{each['label'][: _MAX_LABEL - 1]}…"
    told = (each["deleted_at"], each["resource"], label, each["tenant"], each["undo_until"])
    return [*told, command_for(each["job"], each["id"])]


def command_for(job: str, item: str) -> str:
    """Write the command that puts one item back, as a shell reads it.

    What a terminal must not be shown stands as `$'…'` escapes, which bash and zsh read back; an id with a NUL,
    which no argument can have, leaves only the whole job.
    """
    if "\0" in item:
        return typed("undo", job)
    return typed("undo", job, f"--id {_quoted(item)}")


def _quoted(text: str) -> str:
    if screen.clean(text) == text:
        return shlex.quote(text)
    return f"$'{''.join(_escaped(character) for character in text)}'"


def _escaped(character: str) -> str:
    if screen.clean(character) == character:
        return _ESCAPED.get(character, character)
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogatepass"))
