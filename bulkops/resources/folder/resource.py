"""A folder whose direct entries are items: what can be done to them, and by which batches.

An item is a folder with all it holds, or a file; its id is its name (see `names`). Symbolic links, mount
points and special files are seen and never touched, nor is anything that holds a file of the server's.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar

import anyio.to_thread
import msgspec

from bulkops.effects import Id, Making
from bulkops.errors import Halt, Transient, invalid_field
from bulkops.models import Caution, Impact
from bulkops.resources.contract import Batches, Browse, Found, ItemsPage, Query, Tally
from bulkops.resources.folder import browsing
from bulkops.resources.folder.archiving import Archiving
from bulkops.resources.folder.listing import COLUMNS, KEY, TABLE, act_on
from bulkops.resources.folder.listings import KEEP_S, Listings
from bulkops.resources.folder.names import read_id
from bulkops.resources.folder.returning import Returning
from bulkops.resources.folder.storage import FolderStorage
from bulkops.resources.folder.taking import Named, Taking
from bulkops.resources.folder.yard import Yard, opened_yard
from bulkops.resources.paths import reason_of
from bulkops.resources.table.filters import TimeFormat, check_numbers, compile_filter, freeze, place_instants
from bulkops.resources.table.selecting import Selector
from bulkops.resources.target import DeadlineError
from bulkops.settings import ActionSettings, ResourceSettings

T = TypeVar("T")

#: Renaming is so quick that the batch may be judged by how often progress is seen.
_HOLD_S: Final = 0.25
#: How long a request may read the folder; a job's manifest may take its time.
_LIST_S: Final = 2.0
_NAMES: Final = ("delete", "purge", "archive")
_TIMES: Final = TimeFormat("iso")


class FolderResource:
    """The `Resource` of ``kind = "folder"``."""

    kind = "folder"

    def __init__(self, name: str, settings: ResourceSettings, storage: FolderStorage, named: Named) -> None:
        """Take a root that exists; ``named`` says which entries rows of an application name: those stay."""
        self.name = name
        self.settings = settings
        self._storage = storage
        self._named = named
        self._listings = Listings()
        parts = [self.kind, str(storage.root)]
        self.identity = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]

    @property
    def tenanted(self) -> bool:
        return False

    async def open(self) -> None:
        """Check that the root is there.

        Raises:
            Halt: it cannot be opened, or another folder stands in its place.
        """
        await self._visit(lambda _: None)

    async def close(self) -> None:
        """Let go of listings; nothing else is held between calls."""
        self._listings.drop_all()

    async def _visit(self, work: Callable[[Yard], T]) -> T:
        """Run ``work`` in a thread, with the root and its trash open.

        Raises:
            Halt: the root or its trash cannot be opened or read now.
        """

        def visit() -> T:
            try:
                with opened_yard(self._storage.area) as yard:
                    return work(yard)
            except OSError as error:
                if error.errno == errno.ESTALE:
                    raise Halt("TARGET_REPLACED", "another folder stands where the root was") from error
                raise Transient("IO_ERROR", f"the folder cannot be read: {reason_of(error)}") from error

        return await anyio.to_thread.run_sync(visit)

    def action_names(self) -> list[str]:
        return list(_NAMES)

    def action_settings(self, action: str) -> ActionSettings:
        return self.settings.actions.get(action, ActionSettings())

    def option_schemas(self, action: str) -> dict[str, dict[str, Any]]:
        if action != "delete":
            return {}
        return {"hard": {"type": "boolean", "default": False, "title": "Delete for good, without undo"}}

    def is_final(self, action: str, options: dict[str, Any]) -> bool:
        return action == "purge" or (action == "delete" and bool(options.get("hard")))

    def columns(self) -> list[dict[str, Any]]:
        types = {column.name: column.affinity for column in TABLE.columns}
        listed = [{"name": name, "type": types[name], "filter": True, "sort": True} for name in COLUMNS]
        return [*listed, {"name": "files", "type": "integer", "filter": False, "sort": False}]

    def parse_id(self, wire: str | int) -> Id:
        return read_id(wire)

    async def freeze_filter(self, filter_: dict[str, Any], now_ms: int) -> dict[str, Any]:
        compile_filter(filter_, TABLE, list(COLUMNS))
        frozen = freeze(place_instants(filter_, {"mtime": _TIMES}), now_ms, lambda _: _TIMES)
        check_numbers(frozen, TABLE)
        return frozen

    async def check(self, query: Query) -> None:
        schemas = self.option_schemas(query.action)
        for option, value in query.options.items():
            if option not in schemas:
                known = ", ".join(schemas) or "none"
                raise invalid_field(
                    f"/options/{option}", f"{query.action} has no such option; it has: {known}"
                )
            if not isinstance(value, bool):
                raise invalid_field(f"/options/{option}", "true or false is needed")
        if query.atomic:
            raise invalid_field("/atomic", "folders and files are taken one by one")

    async def bound(self) -> str | int | None:
        """Return the instant; what appears in the folder later is beyond it (see `listings`)."""
        return time.time_ns()

    def _selector(self, query: Query) -> Selector:
        scope = compile_filter(query.filter, TABLE, list(COLUMNS))
        return Selector(TABLE, KEY, act_on(query.action), scope, msgspec.structs.replace(query, bound=None))

    async def _over(
        self,
        query: Query,
        work: Callable[[Yard, sqlite3.Connection, Selector], T],
        *,
        deadline_s: float | None = None,
    ) -> T:
        """Run ``work`` over the entries that a query is about; those that it does not name are read once a request.

        Raises:
            DeadlineError: they cannot be read in ``deadline_s``, or in time for people who do not name any.
            Halt: as `_visit`.
        """
        selector = self._selector(query)
        within_s = _LIST_S if deadline_s is None and query.ids is None else deadline_s
        until = None if within_s is None else time.monotonic() + within_s

        def over(yard: Yard) -> T:
            with self._listings.opened(yard, query, until=until) as connection:
                return work(yard, connection, selector)

        try:
            return await self._visit(over)
        finally:
            if query.ids is None:
                asyncio.get_running_loop().call_later(KEEP_S + 1, self._drop_old)

    def _drop_old(self) -> None:
        # In a thread: to free a large one takes a moment.
        asyncio.get_running_loop().run_in_executor(None, self._listings.drop_old)

    async def select(self, query: Query, limit: int) -> list[Found]:
        return await self._over(
            query, lambda _, connection, selector: list(selector.first(connection, limit))
        )

    async def tally(self, query: Query, deadline_s: float) -> Tally:
        try:
            return await self._over(
                query, lambda _, connection, selector: selector.tally(connection), deadline_s=deadline_s
            )
        except DeadlineError:
            return Tally(None, None)

    async def manifest(self, query: Query) -> AsyncGenerator[list[Found], None]:
        selector = self._selector(query)

        def walk(yard: Yard) -> list[list[Found]]:
            with self._listings.last(yard, query) as connection:
                return list(selector.walk(connection))

        # One reading of the folder is the snapshot; a name is some hundred bytes at most.
        for found in await self._visit(walk):
            yield found

    async def impact(self, query: Query, deadline_s: float) -> tuple[Impact, list[Caution]]:
        until = time.monotonic() + deadline_s
        try:
            impact, cautions = await self._over(
                query,
                lambda yard, connection, selector: browsing.impact(yard, connection, selector, until),
                deadline_s=deadline_s,
            )
        except DeadlineError:
            impact, cautions = Impact({}, None, None), [browsing.PARTIAL]
        if self.is_final(query.action, query.options):
            cautions = [*cautions, Caution("FINAL", "this cannot be undone")]
        return impact, cautions

    async def sample(self, query: Query, limit: int) -> list[dict[str, Any]]:
        return await self._over(
            query,
            lambda yard, connection, selector: browsing.sample(yard, connection, selector, limit),
        )

    async def browse(self, browse: Browse) -> ItemsPage:
        return await self._visit(lambda yard: browsing.page(yard, browse))

    async def counts(self, tenant: str | None, deadline_s: float) -> dict[str, Any]:  # noqa: ARG002  of no tenant
        return await self._visit(lambda yard: browsing.counts(yard, deadline_s))

    async def batches(self, query: Query, *, undo: bool) -> Batches:
        if query.action not in _NAMES:
            raise Halt("CONFIG_CHANGED", f"{self.name} has no action {query.action!r} any more")
        if undo:
            return Returning(self._storage)
        final = self.is_final(query.action, query.options)
        matching = self._matching(query) if query.filter else None
        if query.action == "archive":
            return Archiving(self._storage, matching=matching)
        return Taking(self._storage, final=final, matching=matching, named=self._named)

    def making(self, action: str, options: dict[str, Any]) -> Making | None:  # noqa: ARG002  it has none
        """Say what file an action makes: the archive, a zip."""
        return Making(kind="archive", format="zip", stem=self.name) if action == "archive" else None

    def _matching(self, query: Query) -> Callable[[list[str]], Any]:
        async def matching(items: list[str]) -> set[str]:
            again = msgspec.structs.replace(query, ids=list[Id](items))
            found = await self.select(again, len(items))
            return {str(each.id) for each in found if each.code is None}

        return matching

    def auto_hold(self) -> float:
        return _HOLD_S

    def auto_gap(self, hold_s: float) -> float:  # noqa: ARG002  nobody waits for a lock here
        return 0.0
