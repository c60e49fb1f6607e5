"""bulkops.toml as frozen values: what the server, its resources and their actions are set to.

One struct for each table of the file; the fields, their types and their defaults are the file's keys. How they are
read is told in `configuration`, what they must not say in `mistakes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from bulkops.models import FailureThreshold


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Root of every table of the file: a misspelled key is an error."""


class ServerSettings(Section, frozen=True, kw_only=True):
    """`[server]`; every field has an environment variable `BULKOPS_<NAME>`."""

    database: str = "bulkops.db"
    data_dir: str = "bulkops-data"
    host: str = "127.0.0.1"
    port: int = 8765
    workers: int = 4
    queue_max: int = 1000
    allowed_hosts: list[str] = []
    allowed_origins: list[str] = []
    show_maintenance: bool = False
    trash_days: int = 30
    keep_jobs_days: int = 90
    keep_events_days: int = 7
    max_artifacts: int = 1000
    max_artifact_mb: int = 10_000
    webhook_hosts: list[str] = []

    @property
    def max_artifact_bytes(self) -> int:
        """How much the files that jobs made may take."""
        return self.max_artifact_mb * 1_000_000


class StatusSettings(Section, frozen=True, kw_only=True):
    """The column that says how far a row is in its life, and its words."""

    column: str
    closed: str | None = None
    archived: str | None = None
    busy: list[str] = []


class ChildSettings(Section, frozen=True, kw_only=True):
    """What goes with a row: rows of another table, and the files they name."""

    table: str
    key: str | list[str]
    file: str | None = None
    root: str | None = None
    storage: str | None = None
    optional: bool = False


class ActionSettings(Section, frozen=True, kw_only=True):
    """Settings of one action of one resource; ``None`` means automatic or none."""

    roles: list[str] | None = None
    confirm: str | None = None
    rate: str | None = None
    exclusive: bool = False
    batch_size: int | None = None
    throttle_ms: int | None = None
    max_runtime_s: float | None = None
    max_batch_failures: int = 10
    auto_resume_s: float | None = None
    max_items: int | None = None
    expires_h: float | None = None


class ResourceSettings(Section, frozen=True, kw_only=True):
    """`[resources.<name>]`; which fields matter depends on ``kind``."""

    kind: str
    database: str | None = None
    table: str | None = None
    id: str | list[str] | None = None
    tenant: str | None = None
    label: str | None = None
    soft_delete: str | None = None
    status: StatusSettings | None = None
    search: list[str] = []
    set: list[str] = []
    protect: dict[str, Any] = {}
    foreign_keys: bool = True
    ledger: Literal["own", "app"] = "own"
    file: str | None = None
    root: str | None = None
    storage: str | None = None
    shared: bool = False
    settings: dict[str, Any] = {}
    children: list[ChildSettings] = []
    actions: dict[str, ActionSettings] = {}


class ScheduleSettings(Section, frozen=True, kw_only=True):
    """`[schedules.<name>]`: when, and what a start's body would say; exactly one of ``cron`` and ``every``."""

    resource: str
    action: str
    cron: str | None = None
    every: str | None = None
    timezone: str = "UTC"
    enabled: bool = True
    tenant: str | None = None
    ids: list[str | int] | None = None
    filter: dict[str, Any] | None = None
    all: bool | None = None
    exclude_ids: list[str | int] = []
    options: dict[str, Any] = {}
    atomic: bool = False
    confirm: str | None = None
    reason: str | None = None
    label: str | None = None
    priority: int | None = None
    batch_size: int | None = None
    throttle_ms: int | None = None
    max_items_per_second: float | None = None
    max_items: int | None = None
    failure_threshold: FailureThreshold | None = None
    canary: int | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration, paths resolved against the file's folder."""

    file: Path | None
    base: Path
    server: ServerSettings
    resources: dict[str, ResourceSettings]
    schedules: dict[str, ScheduleSettings] = {}

    def path(self, text: str) -> Path:
        """Resolve a path of the file against the file's folder."""
        return self.base / text

    @property
    def database(self) -> Path:
        return self.path(self.server.database)

    @property
    def data_dir(self) -> Path:
        return self.path(self.server.data_dir)


def as_tuple(names: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)
