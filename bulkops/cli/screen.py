"""What people and programs see: documents, tables, lines, and the one red line of an error.

What comes in: decoded JSON and sentences; what goes out: JSON with `--json`, a drawn table on a
terminal, plain aligned text elsewhere. Text from databases is stripped of control characters first: a
row's value must never move the cursor or recolour the terminal.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from bulkops.errors import Refusal


def clean(value: Any) -> str:
    """Write a value as one line that cannot command a terminal; ``None`` is empty."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _plain(value)
    return "".join(" " if c in "\t\n\r" else c for c in text if c in "\t\n\r" or _is_visible(c))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    return msgspec.json.encode(value).decode()


def _is_visible(character: str) -> bool:
    # Cc: control, Cf: format (also the bidirectional overrides that reorder a line), Cs: lone surrogates.
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs"}


def colours(stream: Any) -> bool:
    """Say whether ``stream`` is a terminal that may be coloured (https://no-color.org)."""
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR")


def document(value: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def note(text: str) -> None:
    """Tell a person something on stderr; stdout stays the answer's."""
    click.echo(text, err=True)


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: frozenset[int] = frozenset(),
    fold: bool = True,
) -> None:
    """Print rows under titles; columns in ``right`` are aligned to the right. Without rows, nothing.

    Without ``fold`` a cell is never broken in two, so that a command in it can be copied from a narrow terminal.
    """
    cells = [[clean(value) for value in row] for row in rows]
    if not cells:
        return
    if fold and sys.stdout.isatty():
        _draw(titles, cells, right)
        return
    widths = [max(len(row[i]) for row in [list(titles), *cells]) for i in range(len(titles))]
    for row in [list(titles), *cells]:
        padded = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(padded).rstrip())


def _draw(titles: Sequence[str], cells: list[list[str]], right: frozenset[int]) -> None:
    from rich import box  # late: slow to import
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, title in enumerate(titles):
        drawn.add_column(title, justify="right" if i in right else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def facts(pairs: Sequence[tuple[str, Any]]) -> None:
    """Print names and values, one a line; empty values are left out."""
    shown = [(name, clean(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name.ljust(width)}  {value}")


def error(sentence: str, *, hint: str | None = None) -> None:
    """Print an error as one red line on stderr, and what to do about it on the next."""
    line = clean(sentence)
    click.echo(click.style(line, fg="red", bold=True) if colours(sys.stderr) else line, err=True)
    if hint:
        click.echo(f"  {clean(hint)}", err=True)


def refusal(refused: Refusal, *, as_json: bool) -> None:
    """Print why the server or the service refused: a problem document, or a line with pointer and hint."""
    if as_json:
        document = {"status": refused.status, "code": refused.code, "title": refused.title}
        click.echo(msgspec.json.encode({**document, "detail": refused.detail, **refused.extra}), err=True)
        return
    error(f"{refused.code}: {_sentence(refused)}", hint=_hint(refused))


def _sentence(refused: Refusal) -> str:
    """Join the detail with the errors it does not already tell."""
    errors = refused.extra.get("errors") or []
    told = [f"{e.get('pointer') or '/'}: {e.get('detail')}" for e in errors if isinstance(e, dict)]
    return "; ".join([refused.detail, *(text for text in told if text not in refused.detail)])


def _hint(refused: Refusal) -> str | None:
    """Say what a person may do about it, ``None`` where the sentence says it all."""
    job = refused.extra.get("job") or refused.extra.get("job_id")
    if refused.code == "JOB_ACTIVE" and isinstance(job, str):
        return f"follow it with: bulkops watch {job}"
    if refused.code == "ILLEGAL_TRANSITION" and refused.extra.get("allowed_actions") is not None:
        allowed = refused.extra["allowed_actions"]
        return f"possible now: {', '.join(allowed)}" if allowed else "nothing is possible any more"
    if refused.code == "CONFIRMATION_REQUIRED" and isinstance(refused.extra.get("confirm"), str):
        return f"pass it with --confirm {refused.extra['confirm']}"
    if refused.code == "INTERNAL" and refused.extra.get("instance"):
        return f"look for {refused.extra['instance']} in the server's log"
    if "retry-after" in refused.headers:
        return f"try again in {refused.headers['retry-after']} s"
    return {
        "UNAUTHENTICATED": "the key in BULKOPS_KEY is missing, revoked or expired; see: bulkops keys list",
        "NOT_FOUND": "what there is to see: bulkops resources (with actions), bulkops jobs",
        "EMPTY_SELECTION": "select with --id, --ids-from, --where or --all",
        "COUNT_CHANGED": "look again with `bulkops validate`, then pass the new number with --expect",
        "UNDO_EXPIRED": "what it took has been removed from the trash",
    }.get(refused.code)
