"""What the engine asks of a resource, whatever stands behind it: a table, a folder, a host's own code.

A resource selects items, says which are unfit and why, and hands out `Batches` that act on them. It never
counts for a job and never sees our database.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Protocol

import msgspec

from bulkops.effects import BatchResult, Fence, Id, Image, ItemException, Plan, Todo
from bulkops.models import Caution, Impact
from bulkops.settings import ActionSettings, ResourceSettings


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A selection as a resource understands it; ids are native, times resolved.

    ``ids`` is ``None`` for filters and for all; ``bound`` keeps out what was added after acceptance.
    ``atomic`` is looked at by `Resource.check` only.
    """

    action: str
    options: dict[str, Any] = {}
    tenant: str | None = None
    ids: list[Id] | None = None
    filter: dict[str, Any] = {}
    exclude: list[Id] = []
    bound: str | int | None = None
    stamp_ms: int = 0
    atomic: bool = False


class Found(msgspec.Struct, frozen=True):
    """One selected item; ``code`` and ``reason`` say why it is unfit, ``None`` when it is fit."""

    id: Id
    code: str | None = None
    reason: str | None = None


class Tally(msgspec.Struct, frozen=True):
    """How many items a query matches; ``None`` where counting took too long."""

    matched: int | None
    eligible: int | None


class ItemsPage(msgspec.Struct, frozen=True):
    """One page of a list of items; ``after`` leads to the next, ``None`` at the end."""

    items: list[dict[str, Any]]
    after: list[Any] | None
    total: int
    total_capped: bool


class Browse(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of items is to show."""

    tenant: str | None
    filter: dict[str, Any] = {}
    q: str | None = None
    sort: str | None = None
    deleted: bool = False
    limit: int = 50
    after: list[Any] | None = None


class Ahead(msgspec.Struct, frozen=True):
    """The target is a batch ahead of our account: where its cursor stands, and that batch's exceptions."""

    cursor: int
    exceptions: list[ItemException]


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch of so many ``items`` takes its turn.

    ``gap(hold_s)``: how long the target is left alone after it. ``stop``: give up waiting for locks.
    ``commit_guard``: the last word before COMMIT. ``atomic``: any exception undoes the whole batch.
    ``patience``: how many seconds a batch that cannot be interrupted by itself may still take, ``None`` while
    it may take its time.
    """

    gap: Callable[[float], float]
    stop: Callable[[], bool]
    commit_guard: Callable[[], bool]
    items: int = 0
    atomic: bool = False
    patience: Callable[[], float | None] = lambda: None


class Batches(Protocol):
    """The batches of one job: planned, announced by the runner where the plan says so, applied, explained."""

    async def begin(self, fence: Fence, turn: Turn) -> Ahead | None:
        """Make ready for the batch after ``fence.batch``; tell when the target has it already."""
        ...

    async def plan(
        self, todo: Todo, kept: dict[int, Image] | None = None, stuck: Sequence[ItemException] = ()
    ) -> Plan:
        """Read what the batch will take, touching nothing.

        For an undo, ``kept`` are the items' images by position and ``stuck`` those that cannot return.
        """
        ...

    async def apply(self, plan: Plan, todo: Todo, fence: Fence, turn: Turn) -> BatchResult:
        """Do the batch, all its accounted effects or none.

        A `Halt` that says ``untouched`` withdraws it; after any other `recover` is asked what became of it.
        """
        ...

    async def recover(
        self, todo: Todo, data: bytes, fence: Fence, turn: Turn, kept: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Say what became of an announced batch; ``None`` when nothing of it happened."""
        ...


class Resource(Protocol):
    """A named kind of thing that jobs act on."""

    name: str
    kind: str
    settings: ResourceSettings
    #: Hash of what must not change under an unfinished job: kind, database, table, key, tenant, root, children.
    identity: str

    @property
    def tenanted(self) -> bool:
        """Say whether items belong to tenants."""
        ...

    async def open(self) -> None:
        """Connect and check; raises ConfigError or Halt."""

    async def close(self) -> None:
        """Let go of everything."""

    def action_names(self) -> list[str]: ...

    def action_settings(self, action: str) -> ActionSettings: ...

    def option_schemas(self, action: str) -> dict[str, dict[str, Any]]: ...

    def is_final(self, action: str, options: dict[str, Any]) -> bool:
        """Say whether the action with these options cannot be undone."""
        ...

    def columns(self) -> list[dict[str, Any]]:
        """Describe what lists show: name, type, whether filters, search and sort may use it."""
        ...

    def parse_id(self, wire: str | int) -> Id:
        """Read an id of a request; raises ValueError."""
        ...

    async def freeze_filter(self, filter_: dict[str, Any], now_ms: int) -> dict[str, Any]:
        """Check a filter and resolve its relative times; raises Refusal."""
        ...

    async def check(self, query: Query) -> None:
        """Refuse options that the action does not take; raises Refusal."""

    async def bound(self) -> str | int | None:
        """Return a mark that later items are beyond; ``None`` where there is no such thing."""
        ...

    async def select(self, query: Query, limit: int) -> list[Found]:
        """Return the first matches in key order; for ids every one asked for, in the order asked."""
        ...

    async def tally(self, query: Query, deadline_s: float) -> Tally:
        """Count matches and fit ones."""
        ...

    def manifest(self, query: Query) -> AsyncGenerator[list[Found], None]:
        """Walk all matches of one snapshot in key order, in lists of some thousands."""
        ...

    async def impact(self, query: Query, deadline_s: float) -> tuple[Impact, list[Caution]]:
        """Say what goes along with the matches."""
        ...

    async def sample(self, query: Query, limit: int) -> list[dict[str, Any]]:
        """Return the first matching rows."""
        ...

    async def browse(self, browse: Browse) -> ItemsPage: ...

    async def counts(self, tenant: str | None, deadline_s: float) -> dict[str, Any]:
        """Count items by status: ``{"total": n, "by_status": {word: n}, "deleted": n}``, null when slow."""
        ...

    async def batches(self, query: Query, *, undo: bool) -> Batches: ...

    def auto_hold(self) -> float:
        """Say how long a batch may hold the target's write lock, in seconds."""
        ...

    def auto_gap(self, hold_s: float) -> float:
        """Say how long to leave the target alone after a batch at pace "auto"."""
        ...
