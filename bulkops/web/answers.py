"""The shapes of answers that the service builds as plain values, named for the reference.

Nothing is decoded with these and nothing is checked against them at run time: they say what stands in the
OpenAPI document.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bulkops.models import ErrorGroup, ItemResult, JobView, ScheduleView, TaskView, Touch, TrashView


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem document (RFC 9457); `code` is stable, further members depend on it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str


class FieldError(msgspec.Struct, frozen=True):
    """One field that is not valid, by JSON pointer (RFC 6901)."""

    pointer: str
    detail: str


class FieldProblem(Problem, frozen=True, kw_only=True):
    """The problem document of a 422."""

    errors: list[FieldError] | msgspec.UnsetType = msgspec.UNSET


class JobPage(msgspec.Struct, frozen=True):
    items: list[JobView]
    next: str | None


class OutcomePage(msgspec.Struct, frozen=True):
    items: list[ItemResult]
    next: str | None


class ErrorGroups(msgspec.Struct, frozen=True):
    """All failures by code, on one page."""

    items: list[ErrorGroup]
    next: str | None


class BrowsedItem(msgspec.Struct, frozen=True):
    """An item as lists show it; `code` says why it is not eligible."""

    id: str
    label: str
    eligible: bool
    code: str | None
    row: dict[str, Any]


class ItemPage(msgspec.Struct, frozen=True):
    """A page of items; `total` counts up to 10,000, `total_capped` says that there are more."""

    items: list[BrowsedItem]
    next: str | None
    total: int | None
    total_capped: bool


class Catalog(msgspec.Struct, frozen=True):
    """The resources and actions that this caller may use."""

    items: list[dict[str, Any]]
    next: str | None


class TouchPage(msgspec.Struct, frozen=True):
    items: list[Touch]
    next: str | None


class TrashPage(msgspec.Struct, frozen=True):
    items: list[TrashView]
    next: str | None


class TaskPage(msgspec.Struct, frozen=True):
    items: list[TaskView]
    next: str | None


class CleanupRun(msgspec.Struct, frozen=True):
    """What one run over the file deletion queue did."""

    processed: int
    removed: int
    missing: int
    failed: int
    remaining: int


class CleanupStats(msgspec.Struct, frozen=True):
    """The file deletion queue in numbers."""

    pending: int
    retrying: int
    dead: int
    bytes: int
    oldest_at: str | None


class CleanupEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file that waits for its end, or ended badly."""

    id: int
    job: str
    resource: str
    tenant: str | None
    storage: str
    path: str
    bytes: int | None
    state: str
    attempts: int
    error: str | None
    not_before: str | None
    created_at: str


class CleanupPage(msgspec.Struct, frozen=True):
    items: list[CleanupEntry]
    next: str | None


class Requeued(msgspec.Struct, frozen=True):
    id: int
    state: str


class SchedulePage(msgspec.Struct, frozen=True):
    items: list[ScheduleView]
    next: str | None


class LastDelivery(msgspec.Struct, frozen=True):
    """How the last attempt for a webhook ended: the class of the answer, or why there was none."""

    id: str
    type: str
    result: str
    at: str
    took_ms: int


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook without its secret; `disabled` when its endpoint answered 410."""

    id: str
    tenant: str | None
    url: str
    events: list[str]
    description: str | None
    status: Literal["active", "disabled"]
    created_by: str
    created_at: str
    last_delivery: LastDelivery | None


class NewWebhook(Webhook, frozen=True, kw_only=True):
    """A webhook and its secret, which is shown this once."""

    secret: str


class WebhookPage(msgspec.Struct, frozen=True):
    items: list[Webhook]
    next: str | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message to a webhook; `id` is its `webhook-id`, `job` is null for a test."""

    id: str
    type: str
    job: str | None
    state: Literal["pending", "delivered", "dead"]
    attempts: int
    result: str | None
    took_ms: int | None
    next_attempt_at: str | None
    created_at: str
    updated_at: str


class DeliveryPage(msgspec.Struct, frozen=True):
    items: list[Delivery]
    next: str | None


class Me(msgspec.Struct, frozen=True):
    """Who is asking; `expires_at` is when the credential ends."""

    user: str
    tenant: str | None
    roles: list[str]
    expires_at: str | None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret."""

    id: str
    name: str | None
    user: str
    tenant: str | None
    role: str
    roles: list[str]
    created_at: str
    expires_at: str | None
    used_at: str | None
    revoked_at: str | None


class NewKey(Key, frozen=True, kw_only=True):
    """An API key and its secret, which is shown this once."""

    key: str


class KeyPage(msgspec.Struct, frozen=True):
    items: list[Key]
    next: str | None


class Token(msgspec.Struct, frozen=True):
    """A short-lived credential, shown this once."""

    token: str
    user: str
    tenant: str | None
    roles: list[str]
    expires_at: str


class AuditEntry(msgspec.Struct, frozen=True):
    """Who did what."""

    seq: int
    at: str
    user: str
    tenant: str | None
    verb: str
    job: str | None
    resource: str | None
    detail: dict[str, Any]


class AuditPage(msgspec.Struct, frozen=True):
    items: list[AuditEntry]
    next: str | None


class Standing(msgspec.Struct, frozen=True):
    """How the server is; nothing about its data."""

    status: str
