"""`bulkops demo`: everything at once, on data of its own: an application, a server, jobs with live bars.

What comes in: a folder that is absent, empty or an earlier demo's; what goes out: a deleted business, or with
`--all` what each of the five systems is for; the summary, and what to try next. With `--once` it ends with the
job's exit code, otherwise it serves on.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bulkops.cli import exits, screen
from bulkops.cli.demo_stories import SYSTEMS, Told, start_receipts, tell
from bulkops.cli.invocation import Invocation, common_options, pass_invocation
from bulkops.cli.progress import follow, open_view
from bulkops.cli.serve import at
from bulkops.cli.watch import summary
from bulkops.client import Client, Endpoint
from bulkops.configuration import load as load_settings
from bulkops.errors import Refusal, StartRefused
from bulkops.settings import Settings

if TYPE_CHECKING:
    from bulkops.cli.serving import Running

_KEY_FILE: Final = "demo.key"
_KEY_DAYS: Final = 30


@click.command()
@click.option("--once", is_flag=True, help="End with the job's exit code instead of serving on.")
@click.option("--all", "all_", is_flag=True, help="Show all five systems, one after another.")
@click.option(
    "--only", "only", multiple=True, type=click.Choice(SYSTEMS), help="Show this system; repeatable."
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("bulkops-demo"),
    show_default=True,
    help="The demo's folder.",
)
@common_options
@pass_invocation
def demo(invocation: Invocation, *, once: bool, all_: bool, only: tuple[str, ...], folder: Path) -> None:
    """Make an application to play with, delete a business's receipts, and serve the page."""
    if invocation.url is not None:
        raise click.UsageError("the demo runs here, without --url")
    systems = SYSTEMS if all_ else tuple(dict.fromkeys(only))
    _make(folder)
    with _ending_on_signals(folder), _open_server(folder) as running:
        with closing(Client(lambda: Endpoint(running.url, running.key))) as client:
            show = _show_systems if systems else _show_receipts
            code = show(invocation, client, folder, running, systems)
        if once:
            if not invocation.as_json:
                serve = f"cd {shlex.quote(str(folder))} && bulkops serve"
                screen.note(f"the server ends here; what is above works after: {serve}")
            click.get_current_context().exit(code)
        _serve_on()


def _show_receipts(
    invocation: Invocation, client: Client, folder: Path, running: Running, _: Sequence[str]
) -> int:
    business, job = start_receipts(client, folder)
    screen.note(f"deleting all receipts of {business.name} ({business.id}), 50 at a time:")
    with open_view(as_json=invocation.as_json) as view:
        job = follow(client, job, view)
    _sum_up(invocation, client, folder, running, job)
    return exits.of_job(job)


def _show_systems(
    invocation: Invocation, client: Client, folder: Path, running: Running, systems: Sequence[str]
) -> int:
    stories = [tell(client, folder, system, as_json=invocation.as_json) for system in systems]
    if invocation.as_json:
        addresses = {"url": running.url, "login_url": running.login_url}
        screen.document({"systems": [_document(told) for told in stories], **addresses})
    else:
        _close(folder, running, stories)
    return exits.OK if all(told.as_meant for told in stories) else exits.FAILED


def _document(told: Told) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(told, name) for name in ("system", "did", "items", "failed")}
    return fields | {"seconds": round(told.seconds, 3), "back": told.back, "jobs": told.jobs}


def _close(folder: Path, running: Running, stories: Sequence[Told]) -> None:
    """Print the table of what was done, each line above the ways back from it."""
    rows: list[Sequence[Any]] = []
    for told in stories:
        rows.append((told.system, told.did, told.items, told.failed, f"{told.seconds:.1f} s"))
        rows += [("", way, "", "", "") for way in told.back]
    click.echo()
    titles = ["system", "what it did, and the way back", "items", "failed", "took"]
    screen.table(titles, rows, right=frozenset({2, 3, 4}))
    click.echo(f"the ways back work in another terminal, after: cd {shlex.quote(str(folder))}")
    _show_page(running)
    sys.stdout.flush()


def _show_page(running: Running) -> None:
    click.echo(f"\nthe page, for one login within 10 minutes:\n  {running.login_url}")


def _make(folder: Path) -> None:
    from bulkops.demo import prepare  # late: only this command needs it

    started = time.monotonic()
    made = prepare(folder)
    took = time.monotonic() - started
    screen.note(
        f"made {folder} in {took:.1f} s: an application with 5,000 receipts of three businesses, with files"
        if made
        else f"going on with the demo in {folder}"
    )


def _serve_on() -> None:
    screen.note("serving until Ctrl-C")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # asked twice, it ends once
    screen.note("\nstopped; what is unfinished goes on at the next start")


@contextmanager
def _ending_on_signals(folder: Path) -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; before there is an outcome, either is no success."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # asked twice, it ends once
        screen.note(f"\nstopped; what is unfinished goes on with: {_command(folder)}")
        raise click.exceptions.Exit(exits.INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _command(folder: Path, *options: str) -> str:
    return shlex.join(["bulkops", "demo", *options, "--dir", str(folder)])


@contextmanager
def _open_server(folder: Path) -> Iterator[Running]:
    """Serve at the config's port, or at a free one where somebody else has it."""
    from bulkops.cli.serving import open_server  # late: the engine is slow to import
    from bulkops.web.listener import bind

    settings: Settings = load_settings(folder / "bulkops.toml", os.environ)
    try:
        bind(settings.server.host, settings.server.port).close()
    except StartRefused:
        screen.note(f"port {settings.server.port} is taken; a free one is used")
        settings = at(settings, None, 0)
    with open_server(settings) as running:
        yield running


def _sum_up(
    invocation: Invocation, client: Client, folder: Path, running: Running, job: dict[str, Any]
) -> None:
    key_file = _write_key(client, folder)
    lines = _curl_lines(running.url, key_file, job)
    if invocation.as_json:
        screen.document({"job": job, "url": running.url, "login_url": running.login_url, "curl": lines})
        return
    click.echo(summary(job))
    _show_page(running)
    click.echo("\ngo on with curl:")
    for line in lines:
        click.echo(f"  {line}")
    click.echo(f"\nor: cd {shlex.quote(str(folder))} && bulkops jobs")
    click.echo(f"after that, folders, photos, sessions and images: {_command(folder, '--all')}")
    sys.stdout.flush()


def _curl_lines(url: str, key_file: Path, job: dict[str, Any]) -> list[str]:
    curl = f"curl -H @{shlex.quote(str(key_file))}"
    preview = '{"action": "delete", "filter": {"status": "closed"}, "tenant": "harbor"}'
    return [
        f"{curl} -X POST {url}/api/jobs/{job['id']}/undo",
        f"{curl} -N -H 'Accept: text/event-stream' '{url}/api/events?topic=all&since=earliest'",
        f"{curl} -H 'Content-Type: application/json' -d '{preview}' {url}/api/bulk/receipts/validate",
    ]


def _write_key(client: Client, folder: Path) -> Path:
    """Keep a key in a file that curl reads as a header; one from an earlier run that works is kept."""
    file = folder / _KEY_FILE
    if not _still_works(client, file):
        wish = {"user": "demo", "role": "owner", "name": _KEY_FILE, "ttl_s": _KEY_DAYS * 86400}
        made = client.post("/api/keys", wish)
        with suppress(FileNotFoundError):
            file.unlink()
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as header:
            header.write(f"X-API-Key: {made['key']}\n")
    return file


def _still_works(client: Client, file: Path) -> bool:
    try:
        key = file.read_text("ascii").removeprefix("X-API-Key: ").strip()
        with closing(Client(lambda: Endpoint(client.endpoint.url, key))) as other:
            other.get("/api/me")
    except (OSError, UnicodeError, Refusal):
        return False
    return True
