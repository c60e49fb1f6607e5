"""Tasks: one intent of a person, begun with the first of its jobs; the others follow by themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any, Final

import msgspec

from bulkops.errors import Refusal, invalid_field
from bulkops.ids import new_id
from bulkops.models import Caller, StartBody, TaskBody, TaskView
from bulkops.operations import may_see
from bulkops.resources.contract import Tasked
from bulkops.service.access import Access, require
from bulkops.service.pages import Whole, check_limit, page_from, page_of, read_token
from bulkops.service.starts import Opening, Starts
from bulkops.service.views import task_view
from bulkops.settings import Settings
from bulkops.store import events, idempotency, listings, tasks
from bulkops.store.idempotency import Idempotency
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from bulkops.store.tasks import TaskRow
from bulkops.store.transaction import Tx

#: What of a task's body is its first job's.
_PASSED_ON: Final = ("confirm", "expected_count", "reason", "label", "priority", "tenant")


class Tasks:
    """Answers questions about tasks; made once, shared by all doors."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    async def tasks(
        self,
        caller: Caller,
        *,
        type: str | None = None,  # noqa: A002  the name on the wire
        project: str | None = None,
        tenant: str | None = None,
        show_maintenance: bool | None = None,
        limit: int = 50,
        page: str | None = None,
    ) -> dict[str, Any]:
        """List tasks with what their jobs add up to, newest first.

        Raises:
            Refusal: ``FORBIDDEN`` without a reading role; ``INVALID_FIELD`` for a bad limit or page.

        """
        require(caller, "viewer")
        check_limit(limit)
        before = read_token(page, "tasks", tuple[Whole, str])
        sight = listings.sight_of(caller, tenant)
        if show_maintenance is None:
            show_maintenance = self._settings.server.show_maintenance

        def work(connection: sqlite3.Connection) -> dict[str, Any]:
            if sight is None:
                return page_of([], None)
            rows = tasks.newest(
                connection,
                sight,
                task_type=type,
                project=project,
                maintenance=bool(show_maintenance),
                before=before,
                limit=limit + 1,
            )
            cursor = events.cursor(connection)

            def view(row: TaskRow) -> TaskView:
                return task_view(row, tasks.summary(connection, row.id), caller, cursor=cursor)

            return page_from(rows, limit, "tasks", key=lambda row: (row.created_ms, row.id), view=view)

        return await self._store.read(work)

    async def task(self, caller: Caller, task_id: str) -> TaskView:
        """Show a task.

        Raises:
            Refusal: ``NOT_FOUND`` when there is no such task, or it is not the caller's to see.

        """
        require(caller, "viewer")

        def work(connection: sqlite3.Connection) -> TaskView:
            row = tasks.get(connection, task_id)
            if row is None or not may_see(
                caller, tenant=row.tenant, requested_by=row.requested_by, source=row.source
            ):
                raise Refusal("NOT_FOUND", "no such task")
            summary = tasks.summary(connection, task_id)
            return task_view(row, summary, caller, cursor=events.cursor(connection))

        return await self._store.read(work)


class TaskStarts:
    """Turns requests into tasks."""

    def __init__(self, access: Access, starts: Starts) -> None:
        self._access = access
        self._starts = starts

    async def task_start(
        self, caller: Caller, task_type: str, body: TaskBody, *, idempotency: Idempotency | None = None
    ) -> TaskView:
        """Accept a task: it and its first job are written together, or neither is.

        Raises:
            Refusal: ``NOT_FOUND`` for a type that no resource the caller may see has, 422 naming the field, and
                any of a start's codes; nothing was written.
        """
        resource, action = await self._first(caller, task_type, body.resource)
        said = {"project": body.project} | ({} if body.files is None else {"files": body.files})
        for name in said.keys() & body.options.keys():
            raise invalid_field(f"/options/{name}", f"stands beside the options: /{name}")
        start = StartBody(
            all=True,
            options=body.options | said,
            task_id=new_id(),
            **{name: getattr(body, name) for name in _PASSED_ON},
        )
        views: list[TaskView] = []

        def written(tx: Tx, job: JobRow) -> None:
            views.append(_answer(tx, caller, job, idempotency))

        opening = Opening(task_type, body.project, written)
        try:
            await self._starts.start(caller, resource, action, start, opening=opening)
        except Refusal as refused:
            raise _where_it_stands(refused, said) from refused
        return views[-1]

    async def _first(self, caller: Caller, task_type: str, wanted: str | None) -> tuple[str, str]:
        """Return the resource, and the action of it, that tasks of a type begin with."""
        found = {
            resource.name: types[task_type]
            for resource in await self._access.visible(caller)
            if isinstance(resource, Tasked) and task_type in (types := resource.task_types())
        }
        if not found:
            raise Refusal("NOT_FOUND", "no such type of task")
        if wanted is None and len(found) > 1:
            raise invalid_field("/resource", f"one of {', '.join(sorted(found))} is needed")
        name = wanted or next(iter(found))
        if name not in found:
            raise invalid_field("/resource", "no resource of this name has such tasks")
        return name, found[name]


def _where_it_stands(refused: Refusal, said: Collection[str]) -> Refusal:
    """Point to what a task's body says beside its options where it does."""
    errors = refused.extra.get("errors", [])
    if len(errors) == 1 and (name := errors[0]["pointer"].removeprefix("/options/")) in said:
        return invalid_field(f"/{name}", errors[0]["detail"], code=refused.code)
    return refused


def _answer(tx: Tx, caller: Caller, job: JobRow, once: Idempotency | None) -> TaskView:
    """Show a task just made, and keep the answer for a request that comes again."""
    assert job.task_id is not None
    task = tasks.get(tx.connection, job.task_id)
    assert task is not None
    summary = tasks.summary(tx.connection, task.id)
    view = task_view(task, summary, caller, cursor=events.cursor(tx.connection))
    if once is not None:
        location = f"/api/tasks/{task.id}"
        idempotency.record(tx, once, status=202, location=location, body=msgspec.json.encode(view))
    return view
