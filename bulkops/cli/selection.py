"""SELECTION on the command line: which items, as the body of a start or a validate.

What comes in: `--id --ids-from --where --all --exclude`; what goes out: the selection's members of the JSON
body. More ids than a body may name are uploaded first, line by line, never held in memory.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Final, TextIO, TypeVar

import click
import msgspec

from bulkops.operations import MAX_IDS

F = TypeVar("F", bound=Callable[..., Any])

_CONDITION: Final = re.compile(r"(.*?)\s*(!=|<=|>=|=|<|>|~)\s*(.*)", re.DOTALL)
_OPERATORS: Final = {"=": "eq", "!=": "ne", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "~": "like"}


class Selected(msgspec.Struct, frozen=True):
    """The options as given."""

    ids: tuple[str, ...]
    ids_from: str | None
    where: tuple[str, ...]
    everything: bool
    exclude: tuple[str, ...]


def selection_options(command: F) -> F:
    """Give a command the options of SELECTION; it receives them as one ``selected``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS: Final = (
    click.option("--id", "ids", multiple=True, metavar="ID", help="One item; may be repeated."),
    click.option("--ids-from", metavar="FILE", help="Items, one id a line; - is standard input."),
    click.option(
        "--where", multiple=True, metavar="COL=VAL", help="A condition (= != < <= > >= ~); all must hold."
    ),
    click.option("--all", "everything", is_flag=True, help="All items."),
    click.option("--exclude", multiple=True, metavar="ID", help="Not this item; may be repeated."),
)


def check(selected: Selected) -> None:
    """Judge a selection before anybody is asked anything.

    Raises:
        click.UsageError: none or more than one kind of selection, or a condition that cannot be read.

    """
    kinds = [bool(selected.ids or selected.ids_from), bool(selected.where), selected.everything]
    if sum(kinds) != 1:
        raise click.UsageError("select items in one way: --id or --ids-from, --where, or --all")
    read_conditions(selected.where)


def body_of(selected: Selected, upload: Callable[[Iterable[str]], dict[str, Any]]) -> dict[str, Any]:
    """Build the selection's members of a request body; ``upload`` stores ids that are too many for it.

    Raises:
        click.UsageError: as `check` does, or the file of ids cannot be read.

    """
    check(selected)
    exclude = {"exclude_ids": list(selected.exclude)} if selected.exclude else {}
    if selected.everything:
        return {"all": True, **exclude}
    if selected.where:
        return {"filter": read_conditions(selected.where), **exclude}
    return {**_ids_body(selected, upload), **exclude}


def _ids_body(selected: Selected, upload: Callable[[Iterable[str]], dict[str, Any]]) -> dict[str, Any]:
    with _open_lines(selected.ids_from) as lines:
        # A byte order mark comes through pipes too; no id begins with one.
        named = (line.removeprefix("\ufeff").strip() for line in lines)
        ids = chain(selected.ids, filter(None, named))
        first = list(islice(ids, MAX_IDS + 1))
        if len(first) <= MAX_IDS:
            return {"ids": first}
        return {"selection_id": upload(chain(first, ids))["selection_id"]}


@contextmanager
def _open_lines(name: str | None) -> Iterator[TextIO | tuple[str, ...]]:
    if name is None:
        yield ()
    elif name == "-":
        yield sys.stdin
    else:
        try:
            file = open(name, encoding="utf-8")  # noqa: SIM115  the error is a usage error, the body's is not
        except OSError as error:
            raise click.UsageError(f"--ids-from {name}: {error.strerror}") from error
        with file:
            yield file


def read_conditions(conditions: Iterable[str]) -> dict[str, Any]:
    """Read ``col=val`` conditions into a filter.

    Raises:
        click.UsageError: a condition without operator, two of one kind on a column, or null compared.

    """
    columns: dict[str, dict[str, Any]] = {}
    for condition in conditions:
        column, operator, value = _read_condition(condition)
        operators = columns.setdefault(column, {})
        if operator in operators:
            raise click.UsageError(f"--where {condition!r}: {column} has such a condition already")
        operators[operator] = value
    return {name: ops["eq"] if list(ops) == ["eq"] else ops for name, ops in columns.items()}


def _read_condition(condition: str) -> tuple[str, str, Any]:
    found = _CONDITION.fullmatch(condition)
    if found is None or not found[1].strip():
        raise click.UsageError(f"--where {condition!r} is no condition such as status=closed")
    operator, value = _OPERATORS[found[2]], read_value(found[3])
    if operator == "like":
        return found[1].strip(), operator, found[3]
    if value is None:
        if operator not in {"eq", "ne"}:
            raise click.UsageError(f"--where {condition!r}: null can be = or != only")
        return found[1].strip(), "is_null", operator == "eq"
    return found[1].strip(), operator, value


def read_value(text: str) -> Any:
    """Read a JSON value; whatever is no JSON, or would change when written back, is the text itself.

    So ``true``, ``null`` and ``12`` are what they look like, ``007`` and ``1.50`` stay text; quotes make text.
    """
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if msgspec.json.encode(value).decode() == text else text
    return value


def read_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``--option name=value`` pairs, values as `read_value` does.

    Raises:
        click.UsageError: a pair without ``=``, or the same name twice.

    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--option {pair!r} is no pair such as hard=true")
        if name in options:
            raise click.UsageError(f"--option {name} is given twice")
        options[name] = read_value(value)
    return options
