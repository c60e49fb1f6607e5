"""A resource made in Python, as the engine knows resources.

What comes in: a `Declaration`, and what the engine asks of it; what goes out: items of the author's, judged by
the same rules as rows of a table. Whatever the author's code does wrong halts a job or refuses a request, and
never takes the process along.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from bulkops.batch import Item
from bulkops.effects import Id, Image, Todo
from bulkops.errors import ConfigError, Halt
from bulkops.models import Caution, Impact
from bulkops.resources.calling import HostAction, batches_of, check_call, impact_of, lay_over
from bulkops.resources.contract import Batches, Browse, Found, ItemsPage, Query, Tally
from bulkops.resources.custom.asking import PIECE, Asker, OwnThread, call
from bulkops.resources.custom.authoring import Scope
from bulkops.resources.custom.declaration import Declaration
from bulkops.resources.custom.images import read_image, write_image
from bulkops.resources.custom.mirror import Mirror, Shape
from bulkops.resources.table import browsing
from bulkops.resources.table.actions import Actions
from bulkops.resources.table.bound import CONFLICT
from bulkops.resources.table.filters import (
    TimeFormat,
    check_numbers,
    compile_filter,
    dated_columns,
    freeze,
    place_instants,
)
from bulkops.resources.table.selecting import Selector
from bulkops.resources.target import DeadlineError
from bulkops.settings import ActionSettings, ResourceSettings
from bulkops.timing import parse_rfc3339

T = TypeVar("T")

#: Actions after which an item is out of sight: with an undo, the trash lists it.
_HIDING: Final = frozenset({"delete", "remove"})
#: Lists show that many matches; who looks for more filters.
_BROWSED: Final = 10_000
_BROWSE_S: Final = 2.0
_REQUEST_S: Final = 10.0
_HOLD_S: Final = 1.0
_MAX_ID: Final = 1_000
_MAX_REASON: Final = 500
_STANDS: Final = "something stands in its place"
_log = logging.getLogger("bulkops.custom")


class CustomResource:
    """The `Resource` of ``kind = "package.module:Name"``."""

    def __init__(
        self,
        name: str,
        settings: ResourceSettings,
        declaration: Declaration,
        hosted: Mapping[str, HostAction],
    ) -> None:
        """Take what the author declared and ``hosted``, further actions of the host's.

        Raises:
            ConfigError: a column of the settings is not declared, or an action is declared twice.
        """
        for action in hosted:
            if action in declaration.actions:
                raise ConfigError(
                    f"action {name}.{action}", "the class of the resource has this action already"
                )
        self.name = name
        self.kind = settings.kind
        self.identity = _identity(settings)
        search = settings.search or list(declaration.columns)
        self.settings = msgspec.structs.replace(
            settings, tenant=declaration.tenant, label=declaration.label, search=search
        )
        self._declaration = declaration
        self._actions = declaration.actions | dict(hosted)
        self._shape = Shape(declaration.columns)
        self._rules = Actions(name, self.settings, self._shape.table)
        self._asker = Asker(name, self._own)
        self._opened = False

    # --- what it is --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Let the author's code connect, the first time.

        Raises:
            Halt: it could not.
        """
        if not self._opened:
            await self._tell(self._declaration.open)
            self._opened = True

    async def close(self) -> None:
        """Let the author's code let go."""
        if self._opened:
            self._opened = False
            await self._tell(self._declaration.close)

    async def _tell(self, method: Callable[[], Any] | None) -> None:
        if method is not None:
            async with OwnThread() as thread:
                await self._asker.guarded(method.__name__, lambda: call(thread, method))

    @property
    def tenanted(self) -> bool:
        return self.settings.tenant is not None

    def action_names(self) -> list[str]:
        return list(self._actions)

    def action_settings(self, action: str) -> ActionSettings:
        """Return what the code says of the action, and over it what the file says."""
        declared = self.settings.actions.get(action, ActionSettings())
        made = self._actions.get(action)
        return declared if made is None else lay_over(made.settings, declared)

    def option_schemas(self, action: str) -> dict[str, dict[str, Any]]:
        return self._action(action).options.schemas()

    def is_final(self, action: str, options: dict[str, Any]) -> bool:  # noqa: ARG002  the engine's signature
        return self._action(action).undo is None

    def columns(self) -> list[dict[str, Any]]:
        search = self.settings.search
        return [
            {"name": each.name, "type": each.affinity, "filter": each.name in search,
             "sort": each.name in search or each.name in self._shape.key.names}
            for each in self._shape.table.columns
        ]  # fmt: skip

    def parse_id(self, wire: str | int) -> Id:
        """Read an id as the author says, who may know another form of it."""
        text = str(wire)
        _check_id(text)
        if self._declaration.parse_id is None:
            return text
        try:
            parsed = self._declaration.parse_id(text)
        except ValueError:
            raise
        except (Exception, SystemExit) as error:
            _log.exception("RESOURCE_ERROR resource=%s method=parse_id", self.name)
            raise ValueError("this cannot be read as an id") from error
        _check_id(parsed)
        return parsed

    async def freeze_filter(self, filter_: dict[str, Any], now_ms: int) -> dict[str, Any]:
        compile_filter(filter_, self._shape.table, self.settings.search)
        seconds = {
            name: written
            for name in dated_columns(filter_)
            if not (written := self._time_format(name)).is_text
        }
        frozen = freeze(place_instants(filter_, seconds), now_ms, self._time_format)
        check_numbers(frozen, self._shape.table)
        kinds = self._declaration.columns
        return {
            name: _instants(value) if kinds.get(name) is datetime else value for name, value in frozen.items()
        }

    def _time_format(self, column: str) -> TimeFormat:
        """Say how a column writes instants: numbers count seconds, texts are RFC 3339."""
        kind = self._declaration.columns.get(column, str)
        return TimeFormat("iso" if kind in (str, datetime) else "s")

    async def check(self, query: Query) -> None:
        check_call(self._action(query.action), query)

    async def bound(self) -> str | int | None:
        """Return ``None``: what is newer than a selection, nobody can tell here."""
        return None

    def _action(self, name: str) -> HostAction:
        found = self._actions.get(name)
        if found is None:
            raise Halt("CONFIG_CHANGED", f"{self.name} has no action {name!r} any more")
        return found

    def _own(self, found: Any) -> Item:
        """Take an item as the author gives it, and whose it is from its row.

        Raises:
            TypeError: it is no item.
            ValueError: its id is none.
        """
        if not isinstance(found, Item) or not isinstance(found.id, str) or not isinstance(found.row, dict):
            raise TypeError(f"{type(found).__name__} is no bulkops.Item(id, row)")
        _check_id(found.id)
        held = found.row.get(self.settings.tenant) if self.settings.tenant else None
        return Item(found.id, found.row, None if held is None else str(held))

    # --- what it holds -----------------------------------------------------------------------------------

    async def select(self, query: Query, limit: int) -> list[Found]:
        async with OwnThread() as thread:
            if query.ids is not None:
                return await self._look(thread, query, query.ids)
            found: list[Found] = []
            async with aclosing(self._walk(thread, query, deadline_s=_REQUEST_S)) as pieces:
                async for piece in pieces:
                    found += piece
                    if len(found) >= limit:
                        break
            return found[:limit]

    async def tally(self, query: Query, deadline_s: float) -> Tally:
        if query.ids is not None:
            found = await self.select(query, len(query.ids))
            return Tally(len(found), sum(each.code is None for each in found))
        matched = eligible = 0
        try:
            async with (
                OwnThread() as thread,
                aclosing(self._walk(thread, query, deadline_s=deadline_s)) as pieces,
            ):
                async for piece in pieces:
                    matched += len(piece)
                    eligible += sum(each.code is None for each in piece)
        except DeadlineError:
            return Tally(None, None)
        return Tally(matched, eligible)

    async def manifest(self, query: Query) -> AsyncGenerator[list[Found], None]:
        async with OwnThread() as thread, aclosing(self._walk(thread, query)) as pieces:
            async for piece in pieces:
                yield piece

    async def _walk(
        self, thread: OwnThread, query: Query, *, deadline_s: float | None = None
    ) -> AsyncGenerator[list[Found], None]:
        """Walk what a query means, each item once, however often a list that shifts names it."""
        scope = Scope(query.tenant, query.filter)
        selector = self._selector(query)
        seen: set[int] = set()
        source = self._asker.pieces(thread, self._declaration.select, scope, deadline_s=deadline_s)
        async with self._mirror(thread) as mirror, aclosing(source):
            async for items in source:
                # By their hashes: a million ids themselves would be a hundred megabytes.
                fresh = [item for item in items if hash(item.id) not in seen]
                seen.update(hash(item.id) for item in fresh)
                found = await self._judge(thread, mirror, selector, query, fresh)
                if found:
                    yield found

    async def _look(self, thread: OwnThread, query: Query, ids: list[Id]) -> list[Found]:
        """Look for items by their ids; for each one asked for there is an answer."""
        found: list[Found] = []
        async with self._mirror(thread) as mirror:
            for first in range(0, len(ids), PIECE):
                part = msgspec.structs.replace(query, ids=ids[first : first + PIECE])
                items = await self._read(thread, part.ids or [])
                found += await self._judge(thread, mirror, self._selector(part), part, list(items.values()))
        return found

    async def _read(self, thread: OwnThread, ids: list[Id]) -> dict[str, Item]:
        """Read the items that are there, by id."""
        wanted = sorted(str(item) for item in ids)
        found: dict[str, Item] = {}
        async with aclosing(self._asker.pieces(thread, self._declaration.read, wanted)) as pieces:
            async for piece in pieces:
                found |= {item.id: item for item in piece}
        return found

    def _selector(self, query: Query) -> Selector:
        condition = compile_filter(query.filter, self._shape.table, self.settings.search)
        return Selector(
            self._shape.table, self._shape.key, self._rules.guarded(query.action), condition, query
        )

    @asynccontextmanager
    async def _mirror(self, thread: OwnThread) -> AsyncIterator[Mirror]:
        mirror = await thread.run(lambda: Mirror(self._shape))
        try:
            yield mirror
        finally:
            thread.leave(mirror.close)

    async def _judge(
        self, thread: OwnThread, mirror: Mirror, selector: Selector, query: Query, items: list[Item]
    ) -> list[Found]:
        mine = _of_tenant(items, query.tenant)

        def judge() -> list[Found]:
            mirror.clear()
            mirror.load(mine)
            limit = len(mine) + len(query.ids or [])
            found = selector.first(mirror.connection, limit)
            if query.ids is None:
                # The author's order stays: it may be that of the pages that are fetched.
                places = {item.id: place for place, item in enumerate(mine)}
                found.sort(key=lambda each: places[str(each.id)])
            return [
                self._asked(each, mirror.items[str(each.id)], query.action) if each.code is None else each
                for each in found
            ]

        return await self._asker.guarded("unfit", lambda: thread.run(judge))

    def _asked(self, found: Found, item: Item, action: str) -> Found:
        """Ask the author too whether an item may be acted on."""
        unfit = self._declaration.unfit
        reason = None if unfit is None else unfit(item, action)
        if reason is None:
            return found
        if not isinstance(reason, str):
            raise TypeError(f"unfit returned {type(reason).__name__}; a sentence or None is needed")
        return Found(found.id, "INELIGIBLE", reason[:_MAX_REASON])

    # --- what people see ---------------------------------------------------------------------------------

    async def impact(self, query: Query, deadline_s: float) -> tuple[Impact, list[Caution]]:  # noqa: ARG002  as told
        return impact_of(self._action(query.action))

    async def sample(self, query: Query, limit: int) -> list[dict[str, Any]]:
        async with OwnThread() as thread, self._mirror(thread) as mirror:
            await self._gather(thread, mirror, query, limit)
            selector = self._selector(query)
            return await thread.run(lambda: browsing.rows(mirror.connection, selector, limit))

    async def browse(self, browse: Browse) -> ItemsPage:
        """Show a page of the first ten thousand matches, or of as many as could be had in two seconds."""
        action = next((name for name in _HIDING if name in self._actions), next(iter(self._actions)))
        query = Query(action=action, tenant=browse.tenant, filter=browse.filter)
        condition = compile_filter(browse.filter, self._shape.table, self.settings.search)
        view = browsing.View(
            self._shape.table, self._shape.key, None, self._rules.guarded(action), self.settings.label,
            self.settings.search,
        )  # fmt: skip
        async with OwnThread() as thread, self._mirror(thread) as mirror:
            whole = await self._gather(thread, mirror, query, _BROWSED + 1, deadline_s=_BROWSE_S)

            def show() -> ItemsPage:
                page = browsing.page(mirror.connection, view, condition, browse)
                return msgspec.structs.replace(
                    page, items=[self._shown(mirror, each, action) for each in page.items]
                )

            page = await self._asker.guarded("unfit", lambda: thread.run(show))
        return page if whole else msgspec.structs.replace(page, total_capped=True)

    def _shown(self, mirror: Mirror, entry: dict[str, Any], action: str) -> dict[str, Any]:
        if entry["eligible"]:
            found = self._asked(Found(entry["id"]), mirror.items[entry["id"]], action)
            return {**entry, "eligible": found.code is None, "code": found.code}
        return entry

    async def _gather(
        self, thread: OwnThread, mirror: Mirror, query: Query, limit: int, *, deadline_s: float = _REQUEST_S
    ) -> bool:
        """Load the first matches of a query; say whether that was all there is.

        Raises:
            DeadlineError: nothing could be had in time.
        """
        if query.ids is not None:
            found = list((await self._read(thread, query.ids[:PIECE])).values())
            await thread.run(lambda: mirror.load(_of_tenant(found, query.tenant)))
            return len(query.ids) <= PIECE
        condition = compile_filter(query.filter, self._shape.table, self.settings.search)
        scope = Scope(query.tenant, query.filter)

        def load(items: list[Item]) -> int:
            mirror.load(_of_tenant(items, query.tenant))
            return mirror.keep(condition)

        source = self._asker.pieces(thread, self._declaration.select, scope, deadline_s=deadline_s)
        held = 0
        try:
            async with aclosing(source):
                async for items in source:
                    held = await thread.run(partial(load, items))
                    if held >= limit:
                        return False
        except DeadlineError:
            if not held:
                raise
            return False
        return True

    async def counts(self, tenant: str | None, deadline_s: float) -> dict[str, Any]:
        column = self.settings.status.column if self.settings.status else None
        by_status: Counter[str] = Counter()
        total = 0
        async with OwnThread() as thread:
            source = self._asker.pieces(
                thread, self._declaration.select, Scope(tenant), deadline_s=deadline_s
            )
            try:
                async with aclosing(source):
                    async for items in source:
                        mine = _of_tenant(items, tenant)
                        total += len(mine)
                        if column is not None:
                            by_status.update(str(item.row.get(column)) for item in mine)
            except DeadlineError:
                return {"total": None, "by_status": None, "deleted": None}
        return {"total": total, "by_status": dict(by_status.most_common(100)), "deleted": None}

    # --- what is done ------------------------------------------------------------------------------------

    async def batches(self, query: Query, *, undo: bool) -> Batches:
        changed = _STANDS if undo and query.action in _HIDING else CONFLICT
        return batches_of(self, self._action(query.action), query, undo=undo, changed=changed)

    async def items(
        self, query: Query, todo: Todo, *, undo: bool, kept: Mapping[int, Image]
    ) -> dict[int, Item]:
        """Read the items that may be acted on now, by position; for an undo, as they were before.

        What was taken out of sight is put back where nothing stands now, anything else where it still is.
        """
        async with OwnThread() as thread:
            there = await self._read(thread, todo.ids)
            if undo:
                hidden = query.action in _HIDING
                return {
                    position: read_image(kept[position])
                    for position, item in zip(todo.positions, todo.ids, strict=True)
                    if position in kept and (str(item) in there) != hidden
                }
            asked = msgspec.structs.replace(query, ids=todo.ids, bound=None, exclude=[])
            async with self._mirror(thread) as mirror:
                found = await self._judge(thread, mirror, self._selector(asked), asked, list(there.values()))
        fit = {str(each.id) for each in found if each.code is None}
        return {
            position: there[str(item)]
            for position, item in zip(todo.positions, todo.ids, strict=True)
            if str(item) in fit
        }

    def images(self, action: HostAction, items: Mapping[int, Item]) -> list[Image]:
        if action.undo is None:
            return []
        return [
            Image(position, item.id, self._label_of(item), action.name in _HIDING, write_image(item))
            for position, item in items.items()
        ]

    def _label_of(self, item: Item) -> str:
        held = item.row.get(self.settings.label) if self.settings.label else None
        return item.id if held is None else str(held)[:200].encode("utf-8", "replace").decode()

    def auto_hold(self) -> float:
        return _HOLD_S

    def auto_gap(self, hold_s: float) -> float:  # noqa: ARG002  there is no file that somebody else waits for
        return 0.0


def _identity(settings: ResourceSettings) -> str:
    held = msgspec.json.encode([settings.kind, settings.settings, settings.tenant], enc_hook=str)
    return hashlib.sha256(held).hexdigest()


def _instants(value: Any) -> Any:
    """Write the instants of a filter in the one form that columns of instants have."""
    if isinstance(value, list):
        return [_instants(each) for each in value]
    if isinstance(value, dict):
        return {operator: _instants(each) for operator, each in value.items()}
    try:
        return TimeFormat("iso").write(parse_rfc3339(value)) if isinstance(value, str) else value
    except ValueError:
        return value


def _of_tenant(items: list[Item], tenant: str | None) -> list[Item]:
    return items if tenant is None else [item for item in items if item.tenant == tenant]


def _check_id(text: object) -> None:
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_ID:
        raise ValueError(f"an id is a text of 1 to {_MAX_ID:,} characters")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("an id holds no NUL and no lone surrogate")
