"""What each action of a configuration would do to the real databases, statement by statement.

What comes in: settings; what goes out: explained actions. Only tables have statements; nothing is changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread
import msgspec

from bulkops.resources.contract import Query
from bulkops.resources.probe import reading
from bulkops.resources.table.explaining import Statement
from bulkops.resources.table.resource import TableResource
from bulkops.resources.target import READ_DEADLINE_S, Target
from bulkops.settings import ResourceSettings, Settings

T = TypeVar("T")


class ExplainedAction(msgspec.Struct, frozen=True):
    """An action of a resource and its statements."""

    resource: str
    action: str
    statements: list[Statement]


async def explain(settings: Settings) -> list[ExplainedAction]:
    """Explain every action of every table; empty when there are no tables.

    Raises:
        ConfigError: a resource does not fit its table, or a database cannot be read.

    """
    explained = []
    for name, resource in settings.resources.items():
        if resource.kind == "table" and resource.database is not None:
            explained += await _explain(look_at(settings, name), resource)
    return explained


def look_at(settings: Settings, name: str) -> TableResource:
    """Make a table's resource over a database that is only looked at."""
    resource = settings.resources[name]
    return TableResource(name, resource, Look(settings, resource), {})


class Look(Target):
    """A file that is only looked at: a target opens it for writing, and closing that may move its WAL."""

    def __init__(self, settings: Settings, resource: ResourceSettings) -> None:
        super().__init__(settings.path(resource.database or ""))
        self._foreign_keys = resource.foreign_keys

    async def read(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        deadline_s: float = READ_DEADLINE_S,  # noqa: ARG002  explaining reads no rows to speak of
    ) -> T:
        def unit() -> T:
            with reading(self.path, foreign_keys=self._foreign_keys) as connection:
                connection.execute("BEGIN")
                return work(connection)

        return await anyio.to_thread.run_sync(unit)


async def _explain(table: TableResource, settings: ResourceSettings) -> list[ExplainedAction]:
    await table.open()
    explained = []
    for action in table.action_names():
        options: dict[str, Any] = {"set": {settings.set[0]: None}} if action == "set" else {}
        # Any tenant will do: a plan does not depend on whose rows they are.
        query = Query(action=action, options=options, tenant="1" if table.tenanted else None)
        explained.append(ExplainedAction(table.name, action, await table.explain(query)))
    return explained
