"""`bulkops doctor`: is everything around the jobs in order; with or without a running server.

It only looks, takes no lock and repairs nothing. Each finding is good, a warning, or bad; a bad one makes the
exit code 1.
"""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import click
import msgspec

from bulkops import __version__, runtime_file
from bulkops.cli import exits, screen
from bulkops.cli.invocation import Invocation, common_options, pass_invocation
from bulkops.settings import Settings

_MIN_SQLITE: Final = (3, 37, 0)
_LOW_DISK: Final = 1 << 30
_LOW_FILES: Final = 1024


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at."""

    name: str
    state: Literal["good", "warning", "bad"]
    detail: str


@click.command()
@common_options
@pass_invocation
def doctor(invocation: Invocation) -> None:
    """Look for what could keep jobs from running well."""
    if invocation.url is not None:
        raise click.UsageError("the doctor looks at this machine, without --url")
    settings = invocation.settings()
    findings = [*look_at_versions(), *look_at_files(settings), *look_at_machine(settings)]
    _show(invocation, findings)
    if any(finding.state == "bad" for finding in findings):
        click.get_current_context().exit(exits.REFUSED)


def _show(invocation: Invocation, findings: list[Finding]) -> None:
    if invocation.as_json:
        screen.document({"findings": findings})
        return
    colour = {"good": "green", "warning": "yellow", "bad": "red"}
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        state = finding.state.ljust(7)
        if screen.colours(sys.stdout):
            state = click.style(state, fg=colour[finding.state])
        click.echo(f"{state}  {finding.name.ljust(width)}  {screen.clean(finding.detail)}")


def look_at_versions() -> Iterator[Finding]:
    """Look at what runs."""
    yield Finding("bulkops", "good", __version__)
    yield Finding("python", "good", f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield judge_sqlite(sqlite3.sqlite_version_info, sqlite3.sqlite_version)


def judge_sqlite(version: tuple[int, ...], text: str) -> Finding:
    """Say what is known about a release of SQLite."""
    if version < _MIN_SQLITE:
        return Finding("sqlite", "bad", f"{text}; bulkops needs 3.37 or newer")
    if _has_wal_race(version):
        return Finding(
            "sqlite",
            "warning",
            f"{text} has the rare WAL-reset race, fixed in 3.51.3; bulkops avoids it in its own database, "
            "an application with several writers in WAL mode can meet it",
        )
    return Finding("sqlite", "good", text)


def _has_wal_race(version: tuple[int, ...]) -> bool:
    """Say whether an SQLite version has the WAL-reset race."""
    return (
        version < (3, 51, 3) and not (3, 50, 7) <= version < (3, 51) and not (3, 44, 6) <= version < (3, 45)
    )


def look_at_files(settings: Settings) -> Iterator[Finding]:
    """Look at our database, data directory, lock and runtime file."""
    data_dir = settings.data_dir
    yield _database(settings.database, data_dir)
    if not data_dir.is_dir():
        yield Finding("data directory", "good", f"{data_dir} is made by the first start")
        return
    yield _private("data directory", data_dir)
    yield from _instance(data_dir)


def _database(path: Path, data_dir: Path) -> Finding:
    from bulkops.store import health  # late: it brings the engine
    from bulkops.store.instance import is_data_dir

    if not path.exists() and is_data_dir(data_dir):
        return Finding("database", "bad", f"{path} is missing; {data_dir} knows it: restore it from a backup")
    if not path.exists():
        return Finding("database", "good", f"{path} is made by the first start")
    found = health.examine(path)
    if found.trouble:
        return Finding("database", "bad", f"{path}: {'; '.join(found.trouble)}")
    unfinished = ", ".join(f"{count:,} {status}" for status, count in found.unfinished.items())
    return Finding(
        "database",
        "good",
        f"{path} is sound, schema {found.version}; jobs: {unfinished or 'none unfinished'}",
    )


def _private(name: str, path: Path) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if sys.platform != "win32" and mode & 0o077:
        return Finding(name, "bad", f"{path} is open to others ({mode:04o}); close it: chmod go= {path}")
    if not os.access(path, os.W_OK):
        return Finding(name, "bad", f"{path} cannot be written by this user")
    return Finding(name, "good", f"{path} is private")


def _instance(data_dir: Path) -> Iterator[Finding]:
    from bulkops.store.instance import last_holder  # late: it brings the engine

    holder = last_holder(data_dir)
    alive = holder is not None and runtime_file.process_exists(holder)
    yield Finding("instance lock", "good", f"held by pid {holder}" if alive else "free")
    found = runtime_file.read(data_dir)
    if found is None:
        return
    yield _private("runtime file", runtime_file.path_of(data_dir))
    if not runtime_file.process_exists(found.pid):
        yield Finding(
            "server", "warning", f"pid {found.pid} ended without a goodbye; the next start tidies up"
        )
    elif not runtime_file.answers(found.url):
        yield Finding("server", "bad", f"pid {found.pid} does not answer at {found.url}")
    else:
        yield Finding("server", "good", f"pid {found.pid} answers at {found.url}")


def look_at_machine(settings: Settings) -> Iterator[Finding]:
    """Look at disk space and the limit of open files."""
    for name, place in _places(settings).items():
        free = shutil.disk_usage(place).free
        state: Literal["good", "warning"] = "warning" if free < _LOW_DISK else "good"
        yield Finding(f"disk of {name}", state, f"{free / 2**30:,.1f} GiB free at {place}")
    if sys.platform != "win32":
        import resource  # not on Windows

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        low = soft != resource.RLIM_INFINITY and soft < _LOW_FILES
        yield Finding("open files", "warning" if low else "good", f"limit {soft:,}")


def _places(settings: Settings) -> dict[str, Path]:
    """Name one existing folder for each device that we write to."""
    places: dict[str, Path] = {}
    devices: set[int] = set()
    wanted = {"bulkops": settings.data_dir} | {
        name: settings.path(resource.root or resource.database or ".")
        for name, resource in settings.resources.items()
    }
    for name, path in wanted.items():
        existing = next((p for p in (path, *path.parents) if p.is_dir()), Path("/"))
        if existing.stat().st_dev not in devices:
            devices.add(existing.stat().st_dev)
            places[name] = existing
    return places
