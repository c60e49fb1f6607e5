"""Starting a task: one intent of a person, begun with the first of its jobs; the others follow by themselves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from bulkops.errors import Refusal, invalid_field
from bulkops.ids import new_id
from bulkops.models import Caller, StartBody, TaskBody, TaskView
from bulkops.resources.contract import Tasked
from bulkops.service.access import Access
from bulkops.service.starts import Opening, Starts
from bulkops.service.views import task_view
from bulkops.store import events, idempotency, tasks
from bulkops.store.idempotency import Idempotency
from bulkops.store.jobs import JobRow
from bulkops.store.transaction import Tx

#: What of a task's body is its first job's.
_PASSED_ON: Final = ("confirm", "expected_count", "reason", "label", "priority", "tenant")


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
