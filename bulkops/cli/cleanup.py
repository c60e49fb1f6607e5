"""`bulkops cleanup-files`: work off the file deletion queue, for cron, or look at it and steer it.

With or without a server. Without an option of the second kind it works the queue off; with one it does only that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import click
from click.core import ParameterSource

from bulkops.cli import exits, screen
from bulkops.cli.desk import Desk, open_desk
from bulkops.cli.invocation import Invocation, common_options, pass_invocation
from bulkops.errors import Refusal

_EVERY_DEAD: Final = "all"
_PAGE: Final = 1000
#: Which options have a say in which way of asking; the others are refused there, not overlooked.
_OF_RUN: Final = {"batch_size": "--batch-size", "max_attempts": "--max-attempts"}
_OF_LIST: Final = {"limit": "--limit", "page": "--page"}


@click.command("cleanup-files")
@click.option(
    "--batch-size", type=click.IntRange(1, 1000), default=100, show_default=True, help="Files at a time."
)
@click.option(
    "--max-attempts",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="A file that failed so often is dead: --list shows it, --requeue tries it again.",
)
@click.option("--stats", is_flag=True, help="Count the queue instead.")
@click.option("--list", "listing", is_flag=True, help="List what waits or ended badly instead.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="With --list.")
@click.option("--page", help="With --list: the `next` token of the page before.")
@click.option(
    "--requeue",
    multiple=True,
    metavar="ID",
    help="Try an entry that ended badly again instead; may be repeated; `all`: every dead one.",
)
@click.option(
    "--drop",
    multiple=True,
    metavar="ID",
    help="Forget an entry instead, its file stays where it is; may be repeated.",
)
@common_options
@pass_invocation
def cleanup_files(
    invocation: Invocation,
    /,
    *,
    stats: bool,
    listing: bool,
    requeue: tuple[str, ...],
    drop: tuple[str, ...],
    **given: Any,
) -> None:
    """Work off the file deletion queue until nothing that is due is left.

    Exits with 3 when files could not be deleted. --stats, --list, --requeue and --drop do something else with the
    queue, one at a time, and leave its files alone.
    """
    _check_ways({"--stats": stats, "--list": listing, "--requeue": requeue, "--drop": drop})
    _check_all(requeue)
    again, gone = _entries("--requeue", requeue), _entries("--drop", drop)
    with open_desk(invocation) as desk:
        if stats:
            _show_stats(invocation, desk.cleanup_stats())
        elif listing:
            _show_list(invocation, desk.cleanup_items(limit=given["limit"], page=given["page"]))
        elif requeue:
            found = list(_dead(desk)) if requeue[0] == _EVERY_DEAD else again
            _steer(invocation, found, desk.cleanup_requeue, done="requeued", said="is in line again")
        elif drop:
            _steer(invocation, gone, desk.cleanup_drop, done="dropped", said="is forgotten, its file stays")
        else:
            _run(invocation, desk, batch_size=given["batch_size"], max_attempts=given["max_attempts"])


def _check_ways(ways: dict[str, Any]) -> None:
    """Judge what goes together.

    Raises:
        click.UsageError: two ways at once, or an option that has no say in the way that is meant.

    """
    meant = [option for option, value in ways.items() if value]
    if len(meant) > 1:
        raise click.UsageError(f"{' and '.join(meant)} are two things to do; ask for one at a time")
    idle = {**({} if meant == ["--list"] else _OF_LIST), **(_OF_RUN if meant else {})}
    context = click.get_current_context()
    for name, option in idle.items():
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{option} has no say {f'with {meant[0]}' if meant else 'without --list'}")


def _check_all(requeue: tuple[str, ...]) -> None:
    if _EVERY_DEAD in requeue and len(requeue) > 1:
        raise click.UsageError("--requeue all is every dead entry; it stands alone")


def _entries(option: str, given: tuple[str, ...]) -> list[int]:
    """Read the numbers of entries, each once; `all` is read elsewhere.

    Raises:
        click.UsageError: something else than a number.

    """
    if option == "--requeue" and given == (_EVERY_DEAD,):
        return []
    for text in given:
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise click.UsageError(f"{option} {text!r} is no number as --list shows them")
    return list(dict.fromkeys(int(text) for text in given))


def _run(invocation: Invocation, desk: Desk, *, batch_size: int, max_attempts: int) -> None:
    total = _work_off(desk, batch_size=batch_size, max_attempts=max_attempts)
    if invocation.as_json:
        screen.document(total)
    else:
        click.echo(", ".join(f"{count:,} {name}" for name, count in total.items()))
    if total["failed"]:
        click.get_current_context().exit(exits.PARTIAL)


def _work_off(desk: Desk, *, batch_size: int, max_attempts: int) -> dict[str, int]:
    """Run batches until one finds nothing due; what waits for a later attempt remains."""
    total = {"processed": 0, "removed": 0, "missing": 0, "failed": 0, "remaining": 0}
    while True:
        done = desk.cleanup(batch_size=batch_size, max_attempts=max_attempts)
        for name in ("processed", "removed", "missing", "failed"):
            total[name] += done[name]
        total["remaining"] = done["remaining"]
        if not done["processed"] or not done["remaining"]:
            return total


def _show_stats(invocation: Invocation, stats: dict[str, Any]) -> None:
    if invocation.as_json:
        screen.document(stats)
    elif not stats["pending"] and not stats["dead"]:
        click.echo("no file waits for its deletion, and none is dead")
    else:
        screen.facts(list(stats.items()))


def _show_list(invocation: Invocation, page: dict[str, Any]) -> None:
    if invocation.as_json:
        screen.document(page)
        return
    screen.table(
        ["id", "state", "resource", "path", "bytes", "attempts", "why", "next try", "since"],
        [_row(entry) for entry in page["items"]],
        right=frozenset({0, 4, 5}),
    )
    if not page["items"]:
        screen.note("no file waits for its deletion, and none ended badly")
    if page["next"]:
        screen.note(f"more: --page {page['next']}")


def _row(entry: dict[str, Any]) -> list[Any]:
    # As text: the number is for typing, without separators.
    names = ("state", "resource", "path", "bytes", "attempts", "error", "not_before", "created_at")
    return [str(entry["id"]), *(entry[name] for name in names)]


def _dead(desk: Desk) -> Iterator[int]:
    """Find every dead entry, none for none."""
    page: str | None = None
    while True:
        found = desk.cleanup_items(limit=_PAGE, page=page)
        yield from (entry["id"] for entry in found["items"] if entry["state"] == "dead")
        page = found["next"]
        if page is None:
            return


def _steer(
    invocation: Invocation, entries: Sequence[int], act: Callable[[int], None], *, done: str, said: str
) -> None:
    """Do it to each entry; one that is refused (gone, or worked on) holds up no other, but is told, with exit 1."""
    refused = {entry: problem for entry in entries if (problem := _refused(act, entry)) is not None}
    acted = [entry for entry in entries if entry not in refused]
    if invocation.as_json:
        problems = [
            {"id": entry, "code": each.code, "detail": each.detail} for entry, each in refused.items()
        ]
        screen.document({done: acted, "refused": problems})
    else:
        for entry in acted:
            click.echo(f"entry {entry} {said}")
        for entry, problem in refused.items():
            screen.error(f"entry {entry}: {problem.code}: {problem.detail}")
        if not entries:
            screen.note("no entry is dead")
    if refused:
        click.get_current_context().exit(exits.REFUSED)


def _refused(act: Callable[[int], None], entry: int) -> Refusal | None:
    """Do it to one entry; return why it was not found in the state for it, ``None`` when it was.

    Raises:
        Refusal: what would be refused to every other entry too.

    """
    try:
        act(entry)
    except Refusal as refusal:
        if refusal.code != "NOT_FOUND":
            raise
        return refusal
    return None
