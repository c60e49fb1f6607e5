"""What is wrong, missing or slow about a configuration, held against the real databases and folders.

What comes in: settings that are sound in themselves; what goes out: findings, each with the key and the
line it is about. It only looks: read-only connections, one bounded question at a time, no folder made; of the
host's code only a class that is itself a resource is imported and made, and asked nothing.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from bulkops.database import file_identity
from bulkops.errors import ConfigError, did_you_mean
from bulkops.places import KeyPath, dotted, index_lines, nearest_line
from bulkops.resources.custom.declaration import load, read_declaration
from bulkops.resources.custom.resource import CustomResource
from bulkops.resources.findings import Remark, Severity, error, note, warning
from bulkops.resources.probe import explain, read_schema, reading
from bulkops.resources.row_inspection import View, inspect_photos, inspect_rows
from bulkops.resources.schema import Table
from bulkops.settings import ResourceSettings, Settings

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_NETWORK: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "fuse.sshfs",
        "fuse.s3fs",
    }
)
_BUILT_IN: Final = ("table", "folder", "photos")
_UNSEEN: Final = "callers with a tenant do not see"


class Finding(msgspec.Struct, frozen=True):
    """One thing to know: ``where`` as in the file, ``line`` when there is a file that says so."""

    severity: Severity
    where: str
    line: int | None
    message: str


def inspect(settings: Settings) -> list[Finding]:
    """Hold a configuration against what it names; empty when there is nothing to say.

    It blocks: seconds for big databases, each question of which has a deadline.
    """
    return found(settings, _remarks(settings))


def found(settings: Settings, remarks: Iterable[Remark]) -> list[Finding]:
    """Give remarks the lines of the file they are about, in the order of the file."""
    lines = _read_lines(settings)
    made = [
        Finding(severity, dotted(path), nearest_line(lines, path), said) for severity, path, said in remarks
    ]
    return sorted(made, key=lambda finding: finding.line or 0)


def _read_lines(settings: Settings) -> dict[KeyPath, int]:
    if settings.file is not None:
        with suppress(OSError, ValueError):
            return index_lines(settings.file.read_text(encoding="utf-8"))
    return {}


def _remarks(settings: Settings) -> Iterator[Remark]:
    mounts = read_mounts()
    yield from _inspect_server(settings, mounts)
    if not settings.resources:
        yield warning(("resources",), "no resources: there is nothing to act on")
    yield from _inspect_tenancy(settings)
    for place, names in _by_database(settings).items():
        yield from _inspect_database(settings, place, names, mounts)
    for name, resource in settings.resources.items():
        path: KeyPath = ("resources", name)
        yield from _inspect_roots(settings, path, resource, mounts)
        yield from _inspect_wiring(path, resource)


# --- our side --------------------------------------------------------------------------------------------


def _inspect_server(settings: Settings, mounts: Mounts) -> Iterator[Remark]:
    server = settings.server
    if server.host not in _LOOPBACK:
        yield warning(
            ("server", "host"),
            f"{server.host}: other machines can reach it, and bulkops speaks plain HTTP; put TLS before it",
        )
    if server.trash_days == 0:
        yield warning(("server", "trash_days"), "0 days: what a job deletes can hardly be undone")
    yield from _inspect_own_place(("server", "database"), settings.database, mounts, mode=0o077)
    yield from _inspect_own_place(("server", "data_dir"), settings.data_dir, mounts, mode=0o077)


def _inspect_tenancy(settings: Settings) -> Iterator[Remark]:
    """Tell which resources callers with a tenant do not see; once, where that is all of them."""
    closed = [
        name
        for name, resource in settings.resources.items()
        if resource.kind in {"table", "folder"} and resource.tenant is None and not resource.shared
    ]
    if 1 < len(closed) == len(settings.resources):
        yield note(("resources",), f"no tenants: {_UNSEEN} them (name tenant columns, or set shared = true)")
        return
    for name in closed:
        is_table = settings.resources[name].kind == "table"
        way = "name a tenant column, or set shared = true" if is_table else "set shared = true"
        yield note(("resources", name), f"no tenant: {_UNSEEN} it ({way})")


def _inspect_own_place(path: KeyPath, place: Path, mounts: Mounts, *, mode: int) -> Iterator[Remark]:
    standing = nearest_standing(place)
    if not os.access(standing, os.W_OK):
        yield error(path, f"{standing} cannot be written by this user")
    network = mounts.find_network(standing)
    if network is not None:
        yield error(
            path, f"{place} is on a network file system ({network}); SQLite's locks do not hold there"
        )
    if standing == place and os.stat(place).st_mode & mode:
        yield warning(path, f"{place} can be opened by other users of this machine: chmod go= it")


# --- their databases -------------------------------------------------------------------------------------


def _by_database(settings: Settings) -> dict[Path, list[str]]:
    places: dict[Path, list[str]] = {}
    for name, resource in settings.resources.items():
        if resource.database is not None:
            places.setdefault(settings.path(resource.database), []).append(name)
    return places


def _inspect_database(settings: Settings, place: Path, names: list[str], mounts: Mounts) -> Iterator[Remark]:
    path: KeyPath = ("resources", names[0], "database")
    if file_identity(place) is not None and file_identity(place) == file_identity(settings.database):
        yield error(path, "is bulkops' own database; name the application's")
        return
    try:
        with reading(place) as connection:
            tables = read_schema(connection)
            yield from _inspect_file(path, place, connection, mounts)
            for name in names:
                yield from _inspect_resource(
                    settings.resources[name], ("resources", name), connection, tables
                )
    except ConfigError as fault:
        for name in names:
            yield error(("resources", name, "database"), f"{place.name} {fault.message}")


def _inspect_file(
    path: KeyPath, place: Path, connection: sqlite3.Connection, mounts: Mounts
) -> Iterator[Remark]:
    for thing in (place, place.absolute().parent):
        if not os.access(thing, os.W_OK):
            yield error(path, f"{thing} cannot be written by this user, so that no job could act")
    if os.stat(place).st_mode & 0o002:
        yield warning(path, f"{place.name} can be written by every user of this machine")
    network = mounts.find_network(place)
    if network is not None:
        yield warning(path, f"it is on a network file system ({network}); SQLite's locks may not hold there")
    mode = connection.execute("PRAGMA main.journal_mode").fetchone()[0]
    if mode != "wal":
        yield note(
            path,
            f"its journal mode is {mode}: readers wait while a batch commits; bulkops never changes it, "
            "the application can (PRAGMA journal_mode = WAL)",
        )


def _inspect_resource(
    resource: ResourceSettings, path: KeyPath, connection: sqlite3.Connection, tables: dict[str, Table]
) -> Iterator[Remark]:
    if resource.kind not in {"table", "photos"} or resource.table is None:
        return
    view = View(connection=connection, tables=tables, path=path, resource=resource)
    checks = inspect_rows(view) if resource.kind == "table" else inspect_photos(view)
    try:
        yield from checks
    except sqlite3.Error as fault:
        place = Path(resource.database or "")
        yield error(path, f"cannot be inspected further: {explain(place, fault).message}")


# --- folders ---------------------------------------------------------------------------------------------


def _inspect_roots(
    settings: Settings, path: KeyPath, resource: ResourceSettings, mounts: Mounts
) -> Iterator[Remark]:
    roots = [((*path, "root"), resource.root, resource.storage)]
    roots += [
        ((*path, "children", place, "root"), child.root, child.storage)
        for place, child in enumerate(resource.children)
    ]
    for where, root, storage in roots:
        if root is not None and storage is not None:
            yield note(where, f"it is not used: files are removed by storage = {storage!r}")
        elif root is not None:
            yield from _inspect_root(settings, where, settings.path(root), mounts)


def _inspect_root(settings: Settings, path: KeyPath, root: Path, mounts: Mounts) -> Iterator[Remark]:
    if not root.exists():
        yield error(path, f"there is no folder {root}")
        return
    if not root.is_dir():
        yield error(path, f"{root} is no folder")
        return
    if not os.access(root, os.R_OK | os.X_OK):
        yield error(path, f"{root} cannot be read by this user")
    if not os.access(root, os.W_OK):
        yield error(path, f"{root} cannot be written by this user: nothing could be removed from it")
    real = root.resolve()
    yield from _inspect_neighbours(settings, path, real)
    if os.stat(real).st_dev != os.stat(nearest_standing(settings.data_dir)).st_dev:
        yield warning(
            path,
            f"{root} is not on data_dir's file system: its trash will be a folder .bulkops-trash inside it",
        )
    for mount in mounts.below(real):
        yield warning(
            path, f"{mount} is another file system: files there are not touched, no trash reaches them"
        )
    network = mounts.find_network(real)
    if network is not None:
        yield warning(
            path, f"{root} is on a network file system ({network}): moves may be slow, or half done"
        )


def _inspect_neighbours(settings: Settings, path: KeyPath, root: Path) -> Iterator[Remark]:
    """Look for files of ours, and databases, among what a job could remove."""
    places = {settings.database: "bulkops' own database", settings.data_dir: "data_dir"}
    for resource in settings.resources.values():
        if resource.database is not None:
            places[settings.path(resource.database)] = "a database"
    for place, what in places.items():
        real = place.resolve()
        if real == root or root in real.parents:
            yield warning(path, f"{what} ({place.name}) is inside this folder: jobs refuse to touch it")


def _inspect_wiring(path: KeyPath, resource: ResourceSettings) -> Iterator[Remark]:
    named = [((*path, "storage"), resource.storage)]
    named += [((*path, "children", n, "storage"), child.storage) for n, child in enumerate(resource.children)]
    if resource.kind not in _BUILT_IN:
        yield from _inspect_class(path, resource)
    for where, name in named:
        # Only looked for: importing the host's code is the server's business.
        if name is not None and importlib.util.find_spec(name.partition(":")[0].split(".")[0]) is None:
            yield warning(where, f"{name!r} cannot be imported from here; is the package installed?")


def _inspect_class(path: KeyPath, resource: ResourceSettings) -> Iterator[Remark]:
    """Make a resource of the host's class as the server would, and let go of it."""
    where = dotted(path)
    try:
        thing = load(where, resource.kind, resource.settings)
        declaration = read_declaration(where, thing, resource)
        CustomResource(str(path[-1]), resource, declaration, {})
    except ConfigError as fault:
        place = fault.where.removeprefix(where).strip(":. ")
        yield error((*path, "kind"), f"{place}: {fault.message}" if place else fault.message)
        return
    if declaration.tenant is None and not resource.shared:
        yield note(path, f"no tenant: {_UNSEEN} it (give the class one, or set shared = true)")
    for name in resource.actions:
        if name not in declaration.actions:
            yield warning(
                (*path, "actions", name),
                f"the class has no action {name!r}{did_you_mean(name, declaration.actions)}",
            )


def nearest_standing(place: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    place = place.absolute()
    return next(standing for standing in (place, *place.parents) if standing.exists())


# --- mounts ----------------------------------------------------------------------------------------------


class Mounts(msgspec.Struct, frozen=True):
    """Mount points and their kinds of file system; empty where the system does not tell."""

    kinds: dict[str, str]

    def find_network(self, place: Path) -> str | None:
        """Return the kind of the network file system a path is on, ``None`` for a local or unknown one."""
        real = place.resolve()
        for parent in (real, *real.parents):
            kind = self.kinds.get(str(parent))
            if kind is not None:
                return kind if kind in _NETWORK else None
        return None

    def below(self, folder: Path) -> list[str]:
        """List what is mounted inside a folder."""
        return sorted(point for point in self.kinds if folder in Path(point).parents)


def read_mounts(table: Path = Path("/proc/mounts")) -> Mounts:
    """Read Linux' table of mounts (fstab(5) format); empty on other systems."""
    try:
        text = table.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return Mounts({})
    return Mounts(dict(_parse_mounts(text.splitlines())))


def _parse_mounts(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        parts = line.split(" ")
        if len(parts) >= 3:
            point = parts[1]
            for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                point = point.replace(code, character)
            yield point, parts[2]
