"""`bulkops audit`: who did what, newest first, to look at or to hand on; with or without a server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

import click
import msgspec

from bulkops import cells
from bulkops.cli import screen
from bulkops.cli.desk import Desk, open_desk
from bulkops.cli.invocation import Invocation, common_options, pass_invocation

_PAGE: Final = 1000
_SHOWN: Final = 50
_COLUMNS: Final = ("seq", "at", "user", "tenant", "verb", "job", "resource", "detail")


@click.command()
@click.option("--job", help="Only what concerns this job.")
@click.option("--tenant", help="Only this tenant's (callers without one).")
@click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), help="A file instead of a table.")
@click.option(
    "--limit", type=click.IntRange(1), help=f"At most so many: {_SHOWN} as a table, else every one."
)
@click.option("--page", help="The `next` token of the page before.")
@common_options
@pass_invocation
def audit(invocation: Invocation, /, *, form: str | None, limit: int | None, **filters: Any) -> None:
    """List who did what, newest first (admins)."""
    params = {name: value for name, value in filters.items() if value is not None}
    with open_desk(invocation) as desk:
        if form is not None:
            _write(form, _entries(desk, params, limit))
        else:
            _show(invocation, *_collect(desk, params, limit or _SHOWN), job=params.get("job"))


def _pages(desk: Desk, params: dict[str, Any], limit: int | None) -> Iterator[dict[str, Any]]:
    """Read page after page, until there is no more or ``limit`` entries came."""
    left = limit
    while left is None or left > 0:
        page = desk.audit({**params, "limit": _PAGE if left is None else min(left, _PAGE)})
        yield page
        left = left and left - len(page["items"])
        if page["next"] is None:
            return
        params = {**params, "page": page["next"]}


def _entries(desk: Desk, params: dict[str, Any], limit: int | None) -> Iterator[dict[str, Any]]:
    return chain.from_iterable(page["items"] for page in _pages(desk, params, limit))


def _collect(desk: Desk, params: dict[str, Any], limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Return the newest entries and where the next begin."""
    found: list[dict[str, Any]] = []
    following: str | None = None
    for page in _pages(desk, params, limit):
        found += page["items"]
        following = page["next"]
    return found, following


def _show(
    invocation: Invocation, found: list[dict[str, Any]], following: str | None, *, job: str | None
) -> None:
    if invocation.as_json:
        screen.document({"items": found, "next": following})
        return
    screen.table(list(_COLUMNS[1:]), [_row(each) for each in found], fold=False)
    if not found:
        screen.note(f"nothing is noted about {screen.clean(job)}" if job else "nothing is noted yet")
    if following:
        screen.note(f"more: --page {following}")


def _row(entry: dict[str, Any]) -> list[Any]:
    told = [
        f"{name}={screen.clean(value)}" for name, value in entry["detail"].items() if value not in ({}, [])
    ]
    return [*(entry[name] for name in _COLUMNS[1:-1]), " ".join(told)]


def _write(form: str, entries: Iterator[dict[str, Any]]) -> None:
    """Write entries as they come; text that a spreadsheet would take for a formula is defused."""
    lines = (_line(form, each) for each in entries)
    first = next(lines, b"")  # asked before the head is written: a refusal leaves no half a file behind
    if form == "csv":
        click.echo(cells.line(_COLUMNS).encode(), nl=False)
    for line in chain([first], lines):
        click.echo(line, nl=False)


def _line(form: str, entry: dict[str, Any]) -> bytes:
    if form == "ndjson":
        return msgspec.json.encode(entry) + b"\n"
    detail = msgspec.json.encode(entry["detail"]).decode()
    return cells.line([*(entry[name] for name in _COLUMNS[:-1]), detail]).encode("utf-8", "backslashreplace")
