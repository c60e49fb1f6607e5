"""Which resource or job, for whom, as which tenant: the questions every act begins with.

Unknown and invisible things get the same words, so that an answer never says which of both it was.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from bulkops.errors import ConfigError, Halt, Refusal, invalid_field
from bulkops.models import Caller
from bulkops.operations import MAINTENANCE, has_role, may_act, may_see
from bulkops.resources.contract import Resource
from bulkops.resources.target import DeadlineError
from bulkops.store import jobs
from bulkops.store.jobs import JobRow

_log = logging.getLogger("bulkops.service")


class Grant(msgspec.Struct, frozen=True):
    """A resource a caller may use, and the tenant they act as; ``None``: all."""

    resource: Resource
    tenant: str | None


class Access:
    """Finds resources for callers."""

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        self._resources = resources

    async def visible(self, caller: Caller) -> list[Resource]:
        """List the resources a caller may see, by name; one that cannot be opened now is left out."""
        found = []
        for name in sorted(self._resources):
            resource = self._resources[name]
            # The house's own chores are no application's things: they are found by name, not listed.
            if resource.kind != MAINTENANCE and _sees(caller, resource) and await _opens(resource):
                found.append(resource)
        return found

    async def grant(self, caller: Caller, name: str, tenant: str | None = None) -> Grant:
        """Return a resource and the tenant to act as.

        Raises:
            Refusal: ``NOT_FOUND`` for unknown and invisible ones, 422 for a tenant that cannot be named here,
                503 when the database behind it cannot be reached now.
        """
        resource = self.find(caller, name)
        if tenant is not None and caller.tenant is not None:
            raise invalid_field("/tenant", "only callers without a tenant name one")
        if tenant is not None and not resource.tenanted:
            raise invalid_field("/tenant", "items of this resource belong to no tenant")
        with reaching():
            await resource.open()
        return Grant(resource, tenant if caller.tenant is None else caller.tenant)

    def find(self, caller: Caller, name: str) -> Resource:
        """Return a resource, whether or not the database behind it can be reached.

        Raises:
            Refusal: ``NOT_FOUND`` for unknown and invisible ones.
        """
        resource = self._resources.get(name)
        if resource is None or not _sees(caller, resource):
            raise Refusal("NOT_FOUND", "no such resource")
        return resource


def require(caller: Caller, role: str) -> None:
    """Refuse a caller below a role.

    Raises:
        Refusal: ``FORBIDDEN``.
    """
    if not has_role(caller, role):
        raise Refusal("FORBIDDEN", f"the role {role} is needed")


def visible_job(connection: sqlite3.Connection, caller: Caller, job_id: str) -> JobRow:
    """Return a job that the caller may see.

    Raises:
        Refusal: ``NOT_FOUND``, in the same words when there is no such job and when it is somebody else's.

    """
    job = jobs.get(connection, job_id)
    if job is None or not may_see(
        caller, tenant=job.tenant, requested_by=job.requested_by, source=job.source
    ):
        raise no_such_job()
    return job


def no_such_job() -> Refusal:
    """Build the refusal of a job that is unknown or not the caller's to see."""
    return Refusal("NOT_FOUND", "no such job")


@contextmanager
def reaching() -> Iterator[None]:
    """Answer 503 for a database that cannot be reached, or takes too long, while a request looks into it.

    Raises:
        Refusal: ``QUEUE_FULL`` with ``Retry-After``.
    """
    try:
        yield
    except DeadlineError as error:
        raise _unreachable("the application's database takes too long to answer this") from error
    except (Halt, ConfigError) as error:
        _log.warning("RESOURCE_UNREACHABLE error=%s", error)
        raise _unreachable("the resource cannot be reached now") from error


def _unreachable(detail: str) -> Refusal:
    return Refusal("QUEUE_FULL", detail, headers={"Retry-After": "5"})


def _sees(caller: Caller, resource: Resource) -> bool:
    if not has_role(caller, "viewer"):
        return False
    if resource.kind == MAINTENANCE:
        return caller.tenant is None and has_role(caller, "owner")
    return caller.tenant is None or resource.tenanted or resource.settings.shared


async def _opens(resource: Resource) -> bool:
    try:
        await resource.open()
    except (Halt, ConfigError):
        return False
    return True


def require_action(caller: Caller, resource: Resource, action: str, options: dict[str, Any]) -> None:
    """Refuse an action that is not there, or not the caller's to start.

    Raises:
        Refusal: ``NOT_FOUND`` or ``FORBIDDEN``.
    """
    if action not in resource.action_names():
        known = ", ".join(resource.action_names())
        raise Refusal("NOT_FOUND", f"{resource.name} has no action {action!r}; it has: {known}")
    final = resource.is_final(action, options)
    if not may_act(caller, roles=resource.action_settings(action).roles, reversible=not final):
        roles = resource.action_settings(action).roles or ["admin" if final else "operator"]
        raise Refusal("FORBIDDEN", f"this needs the role {' or '.join(roles)}")
