"""From the selection in a request to a query: validated, frozen in time, looked at once.

Empty never means all; an id that is not in the canonical form of its key is refused, not guessed.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bulkops.effects import Id
from bulkops.errors import Refusal, invalid_field
from bulkops.models import Caller, SelectionBody
from bulkops.models import Id as WireId
from bulkops.operations import MAX_IDS
from bulkops.resources.contract import Found, Query, Resource
from bulkops.resources.target import DeadlineError
from bulkops.store import selections
from bulkops.store.store import Store

_KINDS: Final = ("ids", "filter", "all", "selection_id")
_MAX_EXCLUDED: Final = 10_000
#: How long acceptance may count; beyond, the number is told when the manifest is frozen.
#: How long to count when an answer hangs on the number, and when the job can check it as well, later.
COUNT_S: Final = 2.0
COUNT_BRIEFLY_S: Final = 0.01


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A selection as understood: what kind, the query, how often ids were repeated, an upload's size."""

    kind: str
    query: Query
    filter: dict[str, Any] | None
    duplicates: int = 0
    selection_id: str | None = None
    uploaded: int | None = None


class Looked(msgspec.Struct, frozen=True):
    """What a first look found: all items when they are few (else ``None``), and how many match if known."""

    found: list[Found] | None
    matched: int | None


async def choose(
    store: Store, caller: Caller, resource: Resource, body: SelectionBody, query: Query, now_ms: int
) -> Chosen:
    """Read the selection of a request.

    Raises:
        Refusal: 422 naming the field; ``NOT_FOUND`` or ``EXPIRED`` for an uploaded selection.
    """
    kind = _kind(body)
    exclude, _ = _ids(resource, body.exclude_ids, "/exclude_ids", _MAX_EXCLUDED)
    query = msgspec.structs.replace(query, exclude=exclude)
    if kind == "ids":
        ids, duplicates = _ids(resource, body.ids or [], "/ids", MAX_IDS)
        return Chosen(
            kind=kind, query=msgspec.structs.replace(query, ids=ids), filter=None, duplicates=duplicates
        )
    if kind == "selection_id":
        row = await store.read(lambda c: selections.take(c, body.selection_id or "", caller, now_ms=now_ms))
        return Chosen(kind=kind, query=query, filter=None, selection_id=row.id, uploaded=row.count)
    frozen = await resource.freeze_filter(body.filter or {}, now_ms)
    query = msgspec.structs.replace(query, filter=frozen, bound=await resource.bound())
    return Chosen(kind=kind, query=query, filter=frozen if kind == "filter" else None)


def _kind(body: SelectionBody) -> str:
    given = [name for name in _KINDS if getattr(body, name) is not None]
    if len(given) > 1:
        raise invalid_field(
            f"/{given[1]}", f"exactly one of {', '.join(_KINDS)} is needed", code="EMPTY_SELECTION"
        )
    if not given or (given == ["all"] and body.all is not True):
        raise invalid_field("", f"exactly one of {', '.join(_KINDS)} is needed", code="EMPTY_SELECTION")
    kind = given[0]
    if kind in ("ids", "filter") and not getattr(body, kind):
        raise invalid_field(
            f"/{kind}", "an empty selection never means all; use all: true", code="EMPTY_SELECTION"
        )
    return kind


def _ids(resource: Resource, wires: list[WireId], pointer: str, limit: int) -> tuple[list[Id], int]:
    if len(wires) > limit:
        raise invalid_field(
            pointer, f"at most {limit:,} ids; upload a selection for more", code="TOO_MANY_ITEMS"
        )
    ids: dict[Any, Id] = {}
    for index, wire in enumerate(wires):
        try:
            native = resource.parse_id(wire)
        except ValueError as error:
            raise invalid_field(f"{pointer}/{index}", str(error)) from error
        ids.setdefault(tuple(native) if isinstance(native, list) else native, native)
    return list(ids.values()), len(wires) - len(ids)


async def look(resource: Resource, chosen: Chosen, *, count_s: float) -> Looked:
    """Look at a selection once: all of it when it is small, else how much it is, within ``count_s`` seconds.

    With 0 a large selection is not counted.
    """
    if chosen.selection_id is not None:
        return Looked(None, chosen.uploaded if not chosen.query.exclude else None)
    if chosen.query.ids is not None:
        found = await resource.select(chosen.query, len(chosen.query.ids))
        return Looked(found, len(found))
    try:
        found = await resource.select(chosen.query, MAX_IDS + 1)
    except DeadlineError:
        return Looked(None, None)
    if len(found) <= MAX_IDS:
        return Looked(found, len(found))
    if not count_s:
        return Looked(None, None)
    tally = await resource.tally(chosen.query, count_s)
    return Looked(None, tally.matched)


def check_count(expected: int | None, matched: int | None) -> None:
    """Refuse a start that would do more, or less, than was confirmed; an unknown number is checked later.

    Raises:
        Refusal: ``COUNT_CHANGED`` with both numbers.
    """
    if expected is not None and matched is not None and expected != matched:
        raise Refusal(
            "COUNT_CHANGED",
            f"{matched} items match, {expected} were expected; look again before you start",
            expected=expected,
            matched=matched,
        )
