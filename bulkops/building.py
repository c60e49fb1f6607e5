"""Builds resources, their targets and storages from the settings; nothing is opened yet.

One `Target` per database file, however many resources use it; one storage per column that names files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bulkops.cleaner import Depot, SharedAmong
from bulkops.errors import ConfigError
from bulkops.resources.contract import Resource
from bulkops.resources.hosted import HostAction, HostedTable
from bulkops.resources.storage import LocalStorage, load_storage, protect
from bulkops.resources.table.resource import TableResource
from bulkops.resources.target import Target
from bulkops.settings import ResourceSettings, Settings

#: Actions of a host application, by resource and name.
HostedActions = Mapping[str, Mapping[str, HostAction]]


class Estate(msgspec.Struct, frozen=True):
    """All that jobs act on: resources by name, storages by name, database files by path."""

    resources: dict[str, Resource]
    depots: dict[str, Depot]
    targets: dict[Path, Target]


def build(settings: Settings, hosted: HostedActions | None = None) -> Estate:
    """Build everything the settings declare; ``hosted`` are the host application's own actions, by resource.

    Raises:
        ConfigError: an unknown kind, a storage that cannot be made.
    """
    estate = Estate({}, {}, {})
    columns = _FileColumns(settings)
    for name, resource in settings.resources.items():
        if resource.kind != "table":
            raise ConfigError(
                f"resources.{name}.kind", f"{resource.kind!r} is not supported by this version; tables are"
            )
        _add_table(settings, estate, columns, name, resource, (hosted or {}).get(name, {}))
    return estate


class _FileColumns:
    """Which columns name files below which root: a file stays while any of them names it."""

    def __init__(self, settings: Settings) -> None:
        self._by_place: dict[Path | str, list[tuple[TableResource, str]]] = {}
        files = [settings.data_dir, *([settings.file] if settings.file else [])]
        databases = {settings.path(each.database) for each in settings.resources.values() if each.database}
        self.forbidden = protect(files, databases=[settings.database, *databases])

    def add(self, place: Path | str, table: TableResource, storage: str) -> SharedAmong:
        """Note a column; return how to ask which paths rows still name, in any column of the same place.

        The place is a root folder, or the name of a custom storage.
        """
        columns = self._by_place.setdefault(place, [])
        columns.append((table, storage))

        async def shared(paths: Sequence[bytes]) -> set[bytes]:
            found: set[bytes] = set()
            for other, name in columns:
                await other.open()
                found |= await other.shared_paths(name, paths)
            return found

        return shared


def _add_table(
    settings: Settings,
    estate: Estate,
    columns: _FileColumns,
    name: str,
    resource: ResourceSettings,
    hosted: Mapping[str, HostAction],
) -> None:
    path = settings.path(resource.database or "").resolve()
    target = estate.targets.setdefault(path, Target(path))
    local: dict[str, LocalStorage] = {}
    table = (
        HostedTable(name, resource, target, local, hosted)
        if hosted
        else TableResource(name, resource, target, local)
    )
    estate.resources[name] = table
    for storage_name, where, root, custom in _file_columns(name, resource):
        if custom is not None:
            depot = Depot(load_storage(where, custom), columns.add(custom, table, storage_name))
            estate.depots[storage_name] = depot
            continue
        if root is None:
            raise ConfigError(where, "a root folder is needed for the column that names files")
        storage = LocalStorage.open(
            where, storage_name, settings.path(root), settings.data_dir, columns.forbidden
        )
        local[storage_name] = storage
        estate.depots[storage_name] = Depot(storage, columns.add(root, table, storage_name))


def _file_columns(name: str, resource: ResourceSettings) -> list[tuple[str, str, str | None, str | None]]:
    found = []
    if resource.file is not None:
        found.append((name, f"resources.{name}.root", resource.root, resource.storage))
    for index, child in enumerate(resource.children):
        if child.file is not None:
            where = f"resources.{name}.children[{index}].root"
            found.append((f"{name}.{child.table}", where, child.root, child.storage))
    return found
