"""Where the demo's stories are shown: a heading and a bar for each job, in columns that stand still.

What comes in: the name of a system and what is about to happen; what goes out: a view for each of its jobs. On a
terminal bars, in pipes lines, with `--json` nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from bulkops.cli import screen
from bulkops.cli.progress import Bar, Lines, Silence, View

_NAME: Final = 10
_LABEL: Final = 34
_NUMBERS: Final = 29


class Stage(msgspec.Struct, frozen=True):
    """Gives each job of a system a view, and says what no bar can."""

    next_view: Callable[[], View]
    say: Callable[[str], None]


@contextmanager
def open_stage(system: str, intention: str, *, as_json: bool) -> Iterator[Stage]:
    """Open the stage for one system's story."""
    if as_json:
        yield Stage(Silence, lambda _: None)
    elif not sys.stderr.isatty():
        screen.note(f"\n{system}: {intention}")
        yield Stage(lambda: Lines(by_label=True), lambda text: screen.note(screen.clean(text)))
    else:
        with _bars(system, intention) as stage:
            yield stage


@contextmanager
def _bars(system: str, intention: str) -> Iterator[Stage]:
    from rich.console import Console  # late: slow to import
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble("\n", (system.ljust(_NAME), "bold cyan"), intention))
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", markup=False, table_column=Column(width=_LABEL, no_wrap=True)),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[numbers]}", markup=False, table_column=Column(width=_NUMBERS, no_wrap=True)),
    )

    def say(text: str) -> None:
        console.print(f"  {screen.clean(text)}", markup=False)

    with Progress(*columns, console=console) as progress:
        yield Stage(lambda: Bar(progress), say)
