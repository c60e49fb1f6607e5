"""Builds resources, their targets and storages from the settings; nothing is opened yet.

One `Target` per database file, however many resources use it; one storage per column that names files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bulkops.cleaner import Depot, SharedAmong
from bulkops.errors import ConfigError
from bulkops.resources.calling import HostAction
from bulkops.resources.contract import Resource
from bulkops.resources.hosted import HostedTable
from bulkops.resources.storage import LocalStorage, load_storage, protect
from bulkops.resources.table.resource import TableResource
from bulkops.resources.target import Target
from bulkops.settings import ResourceSettings, Settings

if TYPE_CHECKING:
    from bulkops.resources.folder.taking import Named

#: Actions of a host application, by resource and name.
HostedActions = Mapping[str, Mapping[str, HostAction]]


class Estate(msgspec.Struct, frozen=True):
    """All that jobs act on: resources by name, storages by name, database files by path."""

    resources: dict[str, Resource]
    depots: dict[str, Depot]
    targets: dict[Path, Target]


def build(
    settings: Settings, hosted: HostedActions | None = None, made: Mapping[str, object] | None = None
) -> Estate:
    """Build everything the settings declare.

    ``hosted`` are the host application's own actions, ``made`` its own resources, both by resource.

    Raises:
        ConfigError: an unknown kind, a storage that cannot be made.
    """
    estate = Estate({}, {}, {})
    columns = _FileColumns(settings)
    for name, resource in settings.resources.items():
        own = (hosted or {}).get(name, {})
        if resource.kind == "table":
            _add_table(settings, estate, columns, name, resource, own)
        elif resource.kind == "folder":
            _add_folder(settings, estate, columns, name, resource)
        elif resource.kind == "photos":
            _add_photos(settings, estate, columns, name, resource, own)
        else:
            _add_custom(estate, name, resource, own, (made or {}).get(name))
    return estate


class _FileColumns:
    """Which columns name files below which root: a file stays while any of them names it."""

    def __init__(self, settings: Settings) -> None:
        self._by_place: dict[Path | str, list[tuple[TableResource, str]]] = {}
        files = [settings.data_dir, *([settings.file] if settings.file else [])]
        databases = {settings.path(each.database) for each in settings.resources.values() if each.database}
        self.forbidden = protect(files, databases=[settings.database, *databases])
        roots = [settings.path(root) for each in settings.resources.values() for root in _roots(each)]
        # What acts on whole folders must not take along what others live in, or where it lives itself.
        self.forbidden_within = protect(
            files, databases=[settings.database, *databases],
            within=[*files, settings.database, *databases, *roots],
        )  # fmt: skip

    def add(self, place: Path | str, table: TableResource, storage: str) -> SharedAmong:
        """Note a column; return how to ask which paths rows still name, in any column of the same place.

        The place is a root folder, or the name of a custom storage.
        """
        self._by_place.setdefault(place, []).append((table, storage))

        async def shared(paths: Sequence[bytes]) -> set[bytes]:
            found: set[bytes] = set()
            for other_place, columns in self._by_place.items():
                theirs = _as_named_from(other_place, place, paths)
                for other, name in columns if theirs else ():
                    await other.open()
                    found |= {theirs[path] for path in await other.shared_paths(name, list(theirs))}
            return found

        return shared

    def naming(self, place: Path | str) -> Named:
        """Return how to ask which entries of a root are files that rows name, or folders that hold one.

        Roots further down need not be asked: a folder that holds one is never acted on.
        """

        async def named(names: Sequence[bytes]) -> set[bytes]:
            found: set[bytes] = set()
            for other_place, columns in self._by_place.items():
                above = _way_down(other_place, place)
                theirs = _as_named_from(other_place, place, names)
                for other, storage in columns if above is not None else ():
                    await other.open()
                    found |= {theirs[path] for path in await other.shared_paths(storage, list(theirs))}
                    found |= await other.shared_folders(storage, names, below=above or b"")
            return found

        return named


def _way_down(upper: Path | str, lower: Path | str) -> bytes | None:
    """Return what paths below ``upper`` begin with to lead below ``lower``; ``None``: they never do."""
    if upper == lower:
        return b""
    if isinstance(upper, str) or isinstance(lower, str) or not lower.is_relative_to(upper):
        return None
    return os.fsencode(lower.relative_to(upper).as_posix()) + b"/"


def _as_named_from(there: Path | str, here: Path | str, paths: Sequence[bytes]) -> dict[bytes, bytes]:
    """Say how rows of another place name files of this one, each with its path here; the rest they cannot name."""
    down = _way_down(there, here)
    if down is not None:
        return {down + path: path for path in paths}
    up = _way_down(here, there)
    return {} if up is None else {path.removeprefix(up): path for path in paths if path.startswith(up)}


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
        estate.depots[storage_name] = Depot(
            storage, columns.add(settings.path(root).resolve(), table, storage_name)
        )


def _add_folder(
    settings: Settings, estate: Estate, columns: _FileColumns, name: str, resource: ResourceSettings
) -> None:
    from bulkops.resources.folder.resource import FolderResource  # late, as all kinds but tables:
    from bulkops.resources.folder.storage import FolderStorage  # most houses have no other

    root = settings.path(resource.root or "")
    storage = FolderStorage.open(
        f"resources.{name}.root", name, root, settings.data_dir, columns.forbidden_within
    )
    estate.depots[name] = Depot(storage)
    estate.resources[name] = FolderResource(name, resource, storage, columns.naming(root.resolve()))


def _add_photos(
    settings: Settings,
    estate: Estate,
    columns: _FileColumns,
    name: str,
    resource: ResourceSettings,
    hosted: Mapping[str, HostAction],
) -> None:
    from bulkops.resources.photos.projects import Projects  # late, as folders
    from bulkops.resources.photos.resource import PhotosResource

    if hosted:
        raise ConfigError(
            f"resources.{name}", "actions of the application's own act on tables, not on photos"
        )
    path = settings.path(resource.database or "").resolve()
    target = estate.targets.setdefault(path, Target(path))
    root = settings.path(resource.root or "")
    projects = Projects.open(f"resources.{name}.root", root, columns.forbidden)
    estate.resources[name] = PhotosResource(
        name, resource, target, projects, trash_days=settings.server.trash_days
    )


def _add_custom(
    estate: Estate,
    name: str,
    resource: ResourceSettings,
    hosted: Mapping[str, HostAction],
    made: object | None,
) -> None:
    from bulkops.resources.custom.declaration import load, read_declaration  # late, as folders
    from bulkops.resources.custom.resource import CustomResource

    where = f"resources.{name}"
    thing = load(f"{where}.kind", resource.kind, resource.settings) if made is None else made
    declaration = read_declaration(where, thing, resource)
    estate.resources[name] = CustomResource(name, resource, declaration, hosted)


def _roots(resource: ResourceSettings) -> list[str]:
    return [root for root in (resource.root, *(child.root for child in resource.children)) if root]


def _file_columns(name: str, resource: ResourceSettings) -> list[tuple[str, str, str | None, str | None]]:
    found = []
    if resource.file is not None:
        found.append((name, f"resources.{name}.root", resource.root, resource.storage))
    for index, child in enumerate(resource.children):
        if child.file is not None:
            where = f"resources.{name}.children[{index}].root"
            found.append((f"{name}.{child.table}", where, child.root, child.storage))
    return found
