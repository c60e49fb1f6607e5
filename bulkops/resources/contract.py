"""What the engine asks of a resource, whatever stands behind it: a table, a folder, a host's own code.

A resource selects items, says which are unfit and why, and hands out `Batches` that act on them. It never
counts for a job and never sees our database.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, BinaryIO, Protocol, runtime_checkable

import msgspec

from bulkops.effects import BatchResult, Fence, Id, Image, ItemException, Making, Plan, Todo
from bulkops.models import Caution, Impact
from bulkops.settings import ActionSettings, ResourceSettings


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A selection as a resource understands it; ids are native, times resolved.

    ``ids`` is ``None`` for filters and for all; ``bound`` keeps out what was added after acceptance.
    ``atomic`` is looked at by `Resource.check` only. ``unfit_only`` asks `Resource.select` for matches that are
    not fit; one that cannot tell them apart beforehand may return others with them.
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
    unfit_only: bool = False


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


class ItemLog(Protocol):
    """Where a batch tells of single items as it works on them; may be called from any thread."""

    def started(self, item: str) -> None: ...

    def done(self, item: str, *, ms: int) -> None: ...

    def failed(self, item: str, *, ms: int, code: str) -> None: ...

    def flush(self) -> None:
        """Write what was told so far: before an item that takes long, and at the end of a batch."""
        ...


class _Silence:
    """Takes note of nothing."""

    def started(self, item: str) -> None:
        pass

    def done(self, item: str, *, ms: int) -> None:
        pass

    def failed(self, item: str, *, ms: int, code: str) -> None:
        pass

    def flush(self) -> None:
        pass


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch of so many ``items`` takes its turn.

    ``gap(hold_s)``: how long the target is left alone after it. ``stop``: give up waiting for locks.
    ``commit_guard``: the last word before COMMIT. ``atomic``: any exception undoes the whole batch.
    ``patience``: how many seconds a batch that cannot be interrupted by itself may still take, ``None`` while
    it may take its time. ``log``: where single items are told of, by actions that take long over each.
    ``reviewed``: somebody has looked at a target that does not match our account, and wants to go on from there.
    """

    gap: Callable[[float], float]
    stop: Callable[[], bool]
    commit_guard: Callable[[], bool]
    items: int = 0
    atomic: bool = False
    patience: Callable[[], float | None] = lambda: None
    log: ItemLog = msgspec.field(default_factory=_Silence)
    reviewed: bool = False


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


@runtime_checkable
class Together(Protocol):
    """`Batches` of an undo that may want back in one what went in one."""

    #: Whether items that went in one batch can need each other to stand.
    together: bool


class Pen(Protocol):
    """The file a job writes, as a resource holds it: open behind all that accounted batches wrote.

    Everything here blocks: use it in a thread. What a batch writes is on disk before the batch is accounted
    for; what a batch wrote that is not is cut off again before the next one begins.
    """

    #: Open for reading and writing, positioned at the end.
    file: BinaryIO
    #: Records in it so far; the resource counts them up as it writes.
    rows: int
    #: The resource's own, kept while the file stays open, ``None`` after every (re)opening: what it would else
    #: have to read back from the file, as the directory of a zip.
    memory: object

    def position(self) -> int:
        """Return how long the file is, what is buffered included."""
        ...

    def write(self, data: bytes, rows: int) -> None:
        """Append bytes that hold so many records."""
        ...

    def cut(self, position: int, rows: int) -> None:
        """Take back what this batch wrote beyond a position: a record that failed half-way."""
        ...


@runtime_checkable
class Writing(Protocol):
    """`Batches` that also write into the job's file; those of a resource that `MakesFiles`."""

    async def write(self, pen: Pen, todo: Todo) -> list[ItemException]:
        """Append the records of items whose batch was applied; return those that could not be written.

        Called behind every `apply`, and behind a recovery: the batch was applied in an earlier life then. What
        ``apply`` alone would find may be found here instead; then the batch has no other effect, and may be
        left in the midst, when its turn says stop, by raising `CutShort`.
        """
        ...

    async def close(self, pen: Pen) -> None:
        """Append what ends the file, once, behind the last batch; without any item, all that it needs."""
        ...


@runtime_checkable
class MakesFiles(Protocol):
    """A resource some of whose actions make a file."""

    def making(self, action: str, options: dict[str, Any]) -> Making | None:
        """Say what file an action makes with these options; ``None``: it makes none."""
        ...


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """A job that completes, as its resource needs to know it; ``task_type`` is ``None`` outside of tasks."""

    action: str
    options: dict[str, Any]
    undo: bool
    task_type: str | None
    maintenance: bool
    succeeded: int


class FollowUp(msgspec.Struct, frozen=True, kw_only=True):
    """A job that begins because another one completed: on all items that its options leave it."""

    action: str
    options: dict[str, Any]
    priority: int
    maintenance: bool = True


@runtime_checkable
class Tasked(Protocol):
    """A resource whose jobs come in tasks, one after another, and belong to projects."""

    def task_types(self) -> dict[str, str]:
        """Name the types of tasks, each with the action of its first job."""
        ...

    def project_of(self, options: dict[str, Any]) -> str | None:
        """Say which project a job with these options belongs to."""
        ...

    def follow_ups(self, done: Completed) -> list[FollowUp]:
        """Say which jobs a job's completion begins; they are written in the very transaction that completes it.

        Asked for completed jobs only, whatever became of their items: a cancelled or failed job begins nothing.
        """
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
        """Let go of everything; `open` takes what stands there by then."""

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
