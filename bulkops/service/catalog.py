"""What there is to act on: resources and their actions, items to look at, previews that change nothing."""

from __future__ import annotations

import sqlite3
import time
from functools import partial
from typing import Any, Final

import msgspec

from bulkops import freezer
from bulkops.drafting import making_of
from bulkops.errors import Refusal
from bulkops.ids import wire_id
from bulkops.labels import humanise, task_label
from bulkops.models import Caller, Caution, Impact, ItemsQuery, Preview, Rejected, ValidateBody
from bulkops.operations import MAX_ATOMIC_ITEMS, MAX_IDS, may_act
from bulkops.resources.contract import Browse, Found, Query, Resource, Tally, Tasked
from bulkops.resources.target import DeadlineError
from bulkops.service.access import Access, Grant, reaching, require_action
from bulkops.service.artifacts import check_storage
from bulkops.service.conditions import (
    check_exclusive,
    check_queue,
    check_rate,
    check_wishes,
    confirmation_required,
    read_run_at,
)
from bulkops.service.pages import check_limit, page_of, read_token, write_token
from bulkops.service.selections import COUNT_S, Chosen, Looked, check_count, choose, look
from bulkops.service.starts import check_joins, knobs_of
from bulkops.settings import ActionSettings, Settings
from bulkops.states import Status
from bulkops.store import jobs, selections
from bulkops.store.jobs import JobRow, Selection
from bulkops.store.store import Store

_SHOWN: Final = 100
#: What a job manages when nothing holds it back, items a second; estimates only.
_SPEED: Final = 40_000
_OVERHEAD_S: Final = 0.05
_DEFAULT_BATCH: Final = 500
_PARTIAL: Final = Caution("IMPACT_PARTIAL", "counting everything would take too long; some numbers are null")


class Catalog:
    """Shows callers what they may use."""

    def __init__(self, store: Store, settings: Settings, access: Access) -> None:
        self._store = store
        self._settings = settings
        self._access = access

    async def catalog(self, caller: Caller) -> list[dict[str, Any]]:
        """List the resources and actions this caller may use, with option schemas."""
        return [_describe(caller, resource) for resource in await self._access.visible(caller)]

    async def info(self, caller: Caller, name: str) -> dict[str, Any]:
        """Describe one resource: counts by status, limits, actions, columns.

        Raises:
            Refusal: ``NOT_FOUND``.
        """
        grant = await self._access.grant(caller, name)
        with reaching():
            counts = await grant.resource.counts(grant.tenant, COUNT_S)
        return {
            **_describe(caller, grant.resource),
            "counts": counts,
            "limits": {
                "max_ids": MAX_IDS,
                "max_atomic_items": MAX_ATOMIC_ITEMS,
                "trash_days": self._settings.server.trash_days,
            },
        }

    async def items(self, caller: Caller, name: str, query: ItemsQuery) -> dict[str, Any]:
        """List items: filtered, searched, sorted, in keyset pages.

        Raises:
            Refusal: ``NOT_FOUND``, 422 naming the parameter.
        """
        grant = await self._access.grant(caller, name, query.tenant)
        resource = grant.resource
        with reaching():
            frozen = await resource.freeze_filter(query.filter, self._store.clock.now_ms())
        after = read_token(query.page, f"items:{query.sort or ''}", list[Any])
        browse = Browse(
            tenant=grant.tenant, filter=frozen, q=query.q, sort=query.sort, deleted=query.deleted,
            limit=check_limit(query.limit), after=after,
        )  # fmt: skip
        with reaching():
            found = await resource.browse(browse)
        following = None if found.after is None else write_token(f"items:{query.sort or ''}", *found.after)
        return page_of(found.items, following) | {"total": found.total, "total_capped": found.total_capped}

    async def validate(self, caller: Caller, name: str, body: ValidateBody) -> Preview:
        """Say what a start would do; changes nothing and costs no rate.

        Raises:
            Refusal: what a start would refuse, but for 428, 409 and 429, which are warnings here.
        """
        grant = await self._access.grant(caller, name, body.tenant)
        resource = grant.resource
        require_action(caller, resource, body.action, body.options)
        check_wishes(body, caller)
        now_ms = self._store.clock.now_ms()
        read_run_at(body, now_ms)
        query = Query(
            action=body.action, options=body.options, tenant=grant.tenant, stamp_ms=now_ms, atomic=body.atomic
        )
        with reaching():
            await resource.check(query)
            chosen = await choose(self._store, caller, resource, body, query, now_ms)
            looked = await look(resource, chosen, count_s=COUNT_S)
            settings = resource.action_settings(body.action)
            await self._store.read(lambda connection: self._check_room(connection, caller, grant, body))
            cautions = await self._cautions(resource, body, settings, looked, grant.tenant, now_ms)
            return await self._preview(resource, chosen, looked, body, settings, cautions)

    def _check_room(
        self, connection: sqlite3.Connection, caller: Caller, grant: Grant, body: ValidateBody
    ) -> None:
        server = self._settings.server
        if making_of(grant.resource, body.action, body.options) is not None:
            check_storage(connection, server, grant.tenant)
        if body.task_id is not None:
            check_joins(connection, caller, body.task_id)
        check_queue(connection, server.queue_max)

    async def _preview(
        self,
        resource: Resource,
        chosen: Chosen,
        looked: Looked,
        body: ValidateBody,
        settings: ActionSettings,
        cautions: list[Caution],
    ) -> Preview:
        if chosen.selection_id is None:
            seen = await _survey(resource, chosen, looked)
        else:
            seen = await self._survey_upload(resource, chosen, chosen.selection_id)
        matched = looked.matched if seen.tally.matched is None else seen.tally.matched
        eligible = seen.tally.eligible
        shown = seen.fit if chosen.kind == "ids" else seen.fit[:_SHOWN]
        return Preview(
            action=body.action,
            matched=matched,
            eligible_count=eligible,
            ineligible_count=None if eligible is None or matched is None else matched - eligible,
            eligible=[wire_id(each.id) for each in shown],
            ineligible=[
                Rejected(wire_id(each.id), each.code or "", each.reason or "") for each in seen.unfit
            ],
            duplicates=chosen.duplicates,
            sample=seen.sample,
            impact=seen.impact,
            estimated_seconds=_estimate(resource, body, matched),
            confirm=settings.confirm,
            warnings=[*cautions, *seen.cautions],
        )

    async def _survey_upload(self, resource: Resource, chosen: Chosen, selection_id: str) -> Survey:
        """Look at an uploaded list, chunk by chunk, for two seconds; beyond, its numbers are null."""
        until = time.monotonic() + COUNT_S
        whole: Survey | None = None
        first = 0
        while wires := await self._store.read(
            partial(selections.chunk_at, selection_id=selection_id, first=first)
        ):
            first += len(wires)
            ids, unreadable = freezer.readable(resource, wires)
            query = msgspec.structs.replace(chosen.query, ids=ids)
            left_s = max(0.0, until - time.monotonic())
            try:
                found = await resource.select(query, len(ids)) + unreadable
                impact, cautions = await resource.impact(query, left_s)
                sample = await resource.sample(query, _SHOWN) if whole is None else []
            except DeadlineError:
                return _partial(whole, chosen.uploaded)
            whole = _join(whole, _of_found(found, sample, impact, cautions))
            if left_s == 0:
                return _partial(whole, chosen.uploaded)
        return whole or _of_found([], [], Impact({}, 0, 0), [])

    async def _cautions(
        self,
        resource: Resource,
        body: ValidateBody,
        settings: ActionSettings,
        looked: Looked,
        tenant: str | None,
        now_ms: int,
    ) -> list[Caution]:
        """Collect what a start would refuse for now: a word, a changed count, a rate, another job."""
        cautions = []
        if settings.confirm is not None and body.confirm != settings.confirm:
            cautions.append(_caution(confirmation_required(settings, looked.matched)))
        exclusive = settings.exclusive and body.run_at is None
        probe = _probe(resource, body.action, tenant, now_ms, exclusive=exclusive)
        try:
            check_count(body.expected_count, looked.matched)
        except Refusal as refusal:
            cautions.append(_caution(refusal))
        for check in (
            lambda connection: check_exclusive(connection, probe) if probe.exclusive else None,
            lambda connection: check_rate(connection, settings, probe, now_ms),
        ):
            try:
                await self._store.read(check)
            except Refusal as refusal:
                cautions.append(_caution(refusal))
        if settings.max_items is not None and (looked.matched or 0) > settings.max_items:
            raise Refusal("TOO_MANY_ITEMS", f"this action takes at most {settings.max_items} items")
        if body.atomic and (looked.matched or 0) > MAX_ATOMIC_ITEMS:
            raise Refusal("TOO_MANY_ITEMS", f"an atomic job takes at most {MAX_ATOMIC_ITEMS} items")
        return cautions


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What a preview found out about a selection; ``fit`` and ``unfit`` are the first thousand at most."""

    tally: Tally
    fit: list[Found]
    unfit: list[Found]
    sample: list[dict[str, Any]]
    impact: Impact
    cautions: list[Caution]


async def _survey(resource: Resource, chosen: Chosen, looked: Looked) -> Survey:
    query = chosen.query
    found = looked.found
    cautions: list[Caution] = []
    sample: list[dict[str, Any]] = []
    tally = None if found is not None else await resource.tally(query, COUNT_S)
    try:
        if found is None:
            found = await resource.select(query, MAX_IDS)
            found += await _further_unfit(resource, query, found, tally)
        sample = await resource.sample(query, _SHOWN)
        impact, cautions = await resource.impact(query, COUNT_S)
    except DeadlineError:
        impact, cautions = Impact({}, None, None), [_PARTIAL]
    seen = _of_found(found or [], sample, impact, cautions)
    return seen if tally is None else msgspec.structs.replace(seen, tally=tally)


async def _further_unfit(
    resource: Resource, query: Query, seen: list[Found], tally: Tally | None
) -> list[Found]:
    """Look for items that are unfit beyond the first thousand: a preview that counts them tells why."""
    known = {wire_id(each.id) for each in seen if each.code is not None}
    if tally is None or tally.matched is None or tally.eligible is None:
        return []
    if tally.matched - tally.eligible == len(known):
        return []
    found = await resource.select(msgspec.structs.replace(query, unfit_only=True), MAX_IDS)
    return [each for each in found if each.code is not None and wire_id(each.id) not in known]


def _of_found(
    found: list[Found], sample: list[dict[str, Any]], impact: Impact, cautions: list[Caution]
) -> Survey:
    fit = [each for each in found if each.code is None]
    unfit = [each for each in found if each.code is not None]
    return Survey(
        tally=Tally(len(found), len(fit)), fit=fit, unfit=unfit, sample=sample, impact=impact,
        cautions=cautions,
    )  # fmt: skip


def _join(one: Survey | None, other: Survey) -> Survey:
    if one is None:
        return other
    tables = [*one.impact.rows, *other.impact.rows]
    rows = {name: _sum(one.impact.rows.get(name, 0), other.impact.rows.get(name, 0)) for name in tables}
    impact = Impact(
        rows, _sum(one.impact.files, other.impact.files), _sum(one.impact.bytes, other.impact.bytes)
    )
    return Survey(
        tally=Tally(
            _sum(one.tally.matched, other.tally.matched), _sum(one.tally.eligible, other.tally.eligible)
        ),
        fit=[*one.fit, *other.fit][:MAX_IDS],
        unfit=[*one.unfit, *other.unfit][:MAX_IDS],
        sample=one.sample,
        impact=impact,
        cautions=[*one.cautions, *(each for each in other.cautions if each not in one.cautions)],
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _partial(seen: Survey | None, uploaded: int | None) -> Survey:
    seen = seen or _of_found([], [], Impact({}, None, None), [])
    rows: dict[str, int | None] = dict.fromkeys(seen.impact.rows)
    return msgspec.structs.replace(
        seen, tally=Tally(uploaded, None), impact=Impact(rows, None, None),
        cautions=[*(each for each in seen.cautions if each.code != _PARTIAL.code), _PARTIAL],
    )  # fmt: skip


def _caution(refusal: Refusal) -> Caution:
    return Caution(refusal.code, refusal.detail)


def _probe(resource: Resource, action: str, tenant: str | None, now_ms: int, *, exclusive: bool) -> JobRow:
    """Build the job that a start would make, for the checks that ask about one."""
    return JobRow(
        id="", resource=resource.name, action=action, tenant=tenant, requested_by="", status=Status.PREPARING,
        priority=0, exclusive=exclusive, selection=Selection(kind="all"), options={}, knobs=jobs.Knobs(),
        identity="", queued_ms=now_ms, created_ms=now_ms, updated_ms=now_ms,
    )  # fmt: skip


def _describe(caller: Caller, resource: Resource) -> dict[str, Any]:
    return {
        "name": resource.name,
        "kind": resource.kind,
        "label": humanise(resource.name),
        "tenanted": resource.tenanted,
        "shared": resource.settings.shared,
        "soft_delete": resource.settings.soft_delete is not None,
        "columns": resource.columns(),
        "actions": [
            _describe_action(resource, action)
            for action in resource.action_names()
            if _may(caller, resource, action)
        ],
        "tasks": _describe_tasks(caller, resource),
    }


def _may(caller: Caller, resource: Resource, action: str) -> bool:
    roles = resource.action_settings(action).roles
    return may_act(caller, roles=roles, reversible=not resource.is_final(action, {}))


def _describe_tasks(caller: Caller, resource: Resource) -> list[dict[str, str]]:
    """List the tasks that this caller may begin with an action of the resource; most resources have none."""
    types = resource.task_types() if isinstance(resource, Tasked) else {}
    return [
        {"type": name, "label": task_label(name)}
        for name, action in types.items()
        if _may(caller, resource, action)
    ]


def _describe_action(resource: Resource, action: str) -> dict[str, Any]:
    settings = resource.action_settings(action)
    reversible = not resource.is_final(action, {})
    making = making_of(resource, action, {})
    return {
        "name": action,
        "label": humanise(action),
        "reversible": reversible,
        "undoable": reversible and (making is None or not making.alone),
        "confirm": settings.confirm,
        "rate": settings.rate,
        "exclusive": settings.exclusive,
        "roles": settings.roles,
        "max_items": settings.max_items,
        "batch_size": settings.batch_size,
        "throttle_ms": settings.throttle_ms,
        "max_runtime_s": settings.max_runtime_s,
        "options": {
            "type": "object",
            "additionalProperties": False,
            "properties": resource.option_schemas(action),
        },
    }


def _estimate(resource: Resource, body: ValidateBody, matched: int | None) -> float | None:
    if matched is None:
        return None
    knobs = knobs_of(resource, body.action, body, 0)
    batches = -(-matched // (knobs.batch_size or _DEFAULT_BATCH))
    return round(_OVERHEAD_S + matched / _SPEED + batches * (knobs.throttle_ms or 0) / 1000, 2)
