"""Values that cross the wire, and the rows behind them: what requests may say and what answers look like.

Input structs forbid unknown fields; every struct is frozen. Field names are the wire's.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

Id = str | int


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Root of what clients send: an unknown field is an error, not a typo that acts."""


class NoBody(Input, frozen=True, kw_only=True):
    """A body that says nothing: ``{}``, or none at all."""


class FailureThreshold(Input, frozen=True, kw_only=True):
    """Pause when, after ``min_items`` processed, failed / processed exceeds ``max_ratio``."""

    min_items: int = 100
    max_ratio: float = 0.5


class SelectionBody(Input, frozen=True, kw_only=True):
    """Which items: exactly one of ``ids``, ``filter``, ``all``, ``selection_id``."""

    ids: list[Id] | None = None
    filter: dict[str, Any] | None = None
    all: bool | None = None
    selection_id: str | None = None
    exclude_ids: list[Id] = []
    tenant: str | None = None


class StartBody(SelectionBody, frozen=True, kw_only=True):
    """The body of ``POST /api/bulk/{resource}/{action}``."""

    options: dict[str, Any] = {}
    atomic: bool = False
    confirm: str | None = None
    expected_count: int | None = None
    reason: str | None = None
    label: str | None = None
    priority: int | None = None
    run_at: str | None = None
    batch_size: int | None = None
    throttle_ms: int | None = None
    max_items_per_second: float | None = None
    max_items: int | None = None
    failure_threshold: FailureThreshold | None = None
    canary: int | None = None
    task_id: str | None = None


class ValidateBody(StartBody, frozen=True, kw_only=True):
    """The body of ``POST /api/bulk/{resource}/validate``: a start that changes nothing."""

    action: str


class KnobsBody(Input, frozen=True, kw_only=True):
    """``PATCH /api/jobs/{id}``: the live knobs; an absent field stays, null means automatic or none."""

    priority: int | msgspec.UnsetType = msgspec.UNSET
    max_items_per_second: float | msgspec.UnsetType | None = msgspec.UNSET
    batch_size: int | msgspec.UnsetType | None = msgspec.UNSET


class ItemsQuery(Input, frozen=True, kw_only=True):
    """The query of ``GET /api/bulk/{resource}/items``; ``filter`` is what is said of columns."""

    filter: dict[str, Any] = {}
    q: str | None = None
    sort: str | None = None
    deleted: bool = False
    tenant: str | None = None
    limit: int = 50
    page: str | None = None


class JobsQuery(Input, frozen=True, kw_only=True):
    """The query of ``GET /api/jobs``; ``status`` may name several, joined by commas.

    ``show_maintenance`` is ``None`` for what the settings say.
    """

    status: str | None = None
    resource: str | None = None
    action: str | None = None
    task_id: str | None = None
    project: str | None = None
    tenant: str | None = None
    show_maintenance: bool | None = None
    limit: int = 50
    page: str | None = None


class TaskBody(Input, frozen=True, kw_only=True):
    """``POST /api/tasks/{type}``: ``resource`` names one where several have tasks of this type.

    ``files`` narrows an upload down to photos that files of these names belong to.
    """

    project: str
    files: list[str] | None = None
    options: dict[str, Any] = {}
    resource: str | None = None
    confirm: str | None = None
    expected_count: int | None = None
    reason: str | None = None
    label: str | None = None
    priority: int | None = None
    tenant: str | None = None


class CancelBody(Input, frozen=True, kw_only=True):
    force: bool = False


class RetryBody(Input, frozen=True, kw_only=True):
    codes: list[str] | None = None


class UndoBody(Input, frozen=True, kw_only=True):
    ids: list[Id] | None = None


class TokenBody(Input, frozen=True, kw_only=True):
    """``POST /api/tokens``: a back end hands one of its users a short-lived credential."""

    user: str
    roles: list[str]
    tenant: str | None = None
    ttl_s: int = 900


class KeyBody(Input, frozen=True, kw_only=True):
    """``POST /api/keys``: ``roles`` is a list of one, for who writes callers as tokens have them."""

    user: str
    role: str | None = None
    roles: list[str] | None = None
    tenant: str | None = None
    name: str | None = None
    ttl_s: int | None = None


WebhookEvent = Literal["started", "progress", "paused", "completed", "failed", "cancelled"]


class WebhookBody(Input, frozen=True, kw_only=True):
    """``POST /api/webhooks``: where to tell of which events, else of all; ``tenant`` is for callers without one."""

    url: str
    events: list[WebhookEvent] = msgspec.field(default_factory=lambda: list(get_args(WebhookEvent)))
    description: str | None = None
    tenant: str | None = None


class ScheduleBody(StartBody, frozen=True, kw_only=True):
    """``POST /api/schedules``: what to start, as a start's body says it, and when.

    Exactly one of ``cron`` (five fields, read in ``timezone``) and ``every`` (``6h``).
    """

    name: str
    resource: str
    action: str
    cron: str | None = None
    every: str | None = None
    timezone: str = "UTC"
    enabled: bool = True


class SessionBody(Input, frozen=True, kw_only=True):
    """``POST /api/session``: a key, or the code of a one-time link."""

    key: str | None = None
    code: str | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking, from a credential, never from a body or a path.

    ``tenant`` is ``None`` for callers of the whole installation. ``credential`` is the id of the row of
    ``credentials`` that vouched, ``None`` when a host application's own session did.
    """

    user: str
    tenant: str | None = None
    roles: frozenset[str] = frozenset()
    credential: str | None = None
    expires_ms: int | None = None


class Reason(msgspec.Struct, frozen=True):
    code: str
    message: str


class ItemError(msgspec.Struct, frozen=True):
    code: str
    message: str
    item: str | None = None


class Throttle(msgspec.Struct, frozen=True):
    """Why a running job waits between batches, and how long the last wait was."""

    seconds: float
    reason: str


class SelectionView(msgspec.Struct, frozen=True):
    kind: Literal["ids", "filter", "all", "selection_id"]
    filter: dict[str, Any] | None
    count: int | None
    exclude_count: int


class ArtifactView(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a job made."""

    id: str
    kind: str
    name: str
    format: str
    status: str
    bytes: int | None
    rows: int | None
    sha256: str | None
    download_url: str
    created_at: str
    expires_at: str | None


class Rejected(msgspec.Struct, frozen=True):
    """An item that will not be acted on, and why."""

    id: str
    code: str
    reason: str


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as clients see it."""

    id: str
    resource: str
    action: str
    label: str
    status: str
    terminal: bool
    outcome: str | None
    status_reason: Reason | None
    allowed_actions: list[str]
    source: str
    task_id: str | None
    task_type: str | None
    project: str | None
    tenant: str | None
    requested_by: str
    reason: str | None
    selection: SelectionView
    options: dict[str, Any]
    total: int | None
    processed: int
    succeeded: int
    failed: int
    skipped: int
    in_progress: list[str]
    percent: float | None
    items_per_second: float | None
    eta_seconds: float | None
    active_seconds: float
    batch_size: int | None
    max_items_per_second: float | None
    throttle: Throttle | None
    priority: int
    last_error: ItemError | None
    error: Reason | None
    artifacts: list[ArtifactView]
    retry_of: str | None
    undo_of: str | None
    undo_until: str | None
    created_at: str
    run_at: str | None
    started_at: str | None
    updated_at: str
    finished_at: str | None
    links: dict[str, str]
    cursor: str
    rejected: list[Rejected] | msgspec.UnsetType = msgspec.UNSET


class TaskJobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a task, in short."""

    id: str
    resource: str
    action: str
    label: str
    status: str
    outcome: str | None
    source: str
    total: int | None
    processed: int
    failed: int


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task as clients see it: what its jobs add up to; ``jobs`` are what the caller may see, at most 100."""

    id: str
    type: str
    label: str
    project: str | None
    tenant: str | None
    requested_by: str
    source: str
    status: str
    total: int | None
    processed: int
    failed: int
    percent: float | None
    jobs: list[TaskJobView]
    created_at: str
    cursor: str


class Touch(msgspec.Struct, frozen=True, kw_only=True):
    """What one job did with one item."""

    job: str
    resource: str
    action: str
    label: str
    status: str
    outcome: str
    code: str | None
    message: str | None
    requested_by: str
    created_at: str
    finished_at: str | None


class TrashView(msgspec.Struct, frozen=True, kw_only=True):
    """A thing in the trash; ``undo {ids}`` of its job puts it back."""

    job: str
    id: str
    label: str
    resource: str
    tenant: str | None
    deleted_at: str
    undo_until: str | None


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """What starts by the calendar; ``body`` is that of its starts.

    ``last_result`` is ``started``, ``skipped_running``, ``nothing_due``, ``revoked`` or the code of a refusal.
    """

    id: str
    name: str
    tenant: str | None
    resource: str
    action: str
    body: dict[str, Any]
    cron: str | None
    every: str | None
    timezone: str
    enabled: bool
    origin: Literal["api", "config", "built_in"]
    created_by: str
    created_at: str
    next_at: str | None
    last_at: str | None
    last_job: str | None
    last_result: str | None


class SelectionReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``POST /api/selections``; ``count`` leaves out the ``duplicates``."""

    selection_id: str
    count: int
    duplicates: int
    expires_at: str


class Caution(msgspec.Struct, frozen=True):
    """Something a start would refuse, or a person should know first."""

    code: str
    detail: str


class Impact(msgspec.Struct, frozen=True):
    """What goes with a selection: rows by table, files, bytes; ``None`` where counting took too long."""

    rows: dict[str, int | None]
    files: int | None
    bytes: int | None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``validate``."""

    action: str
    matched: int | None
    eligible_count: int | None
    ineligible_count: int | None
    eligible: list[str]
    ineligible: list[Rejected]
    duplicates: int
    sample: list[dict[str, Any]]
    impact: Impact
    estimated_seconds: float | None
    confirm: str | None
    warnings: list[Caution]


class ItemResult(msgspec.Struct, frozen=True):
    """What became of one item of a job."""

    id: str
    outcome: str | None
    code: str | None
    message: str | None


class ErrorGroup(msgspec.Struct, frozen=True):
    code: str
    count: int
    first_item: str
    sample_message: str
