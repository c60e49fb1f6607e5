"""`bulkops serve`: the page, the API and the jobs, until Ctrl-C."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bulkops import __version__
from bulkops.cli import screen
from bulkops.cli.invocation import Invocation, common_options, pass_invocation
from bulkops.nimble import keep_the_loop_nimble
from bulkops.settings import Settings

if TYPE_CHECKING:
    from bulkops.cli.serving import Running


@click.command()
@click.option("--host", help="The address to listen at, instead of the config's.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="The port, instead of the config's; 0 takes a free one."
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@common_options
@pass_invocation
def serve(invocation: Invocation, *, host: str | None, port: int | None, open_page: bool) -> None:
    """Run the server. Ctrl-C ends it after the current batches; jobs go on at the next start."""
    if invocation.url is not None:
        raise click.UsageError("a server listens at --host and --port, not at --url")
    settings = at(invocation.settings(), host, port)
    gc.disable()  # nothing that a start makes is garbage
    from bulkops.cli.serving import serve_until_stopped  # late: the engine is slow to import

    def welcome(running: Running) -> None:
        keep_the_loop_nimble()
        announce(settings, running, as_json=invocation.as_json)
        if open_page:
            click.launch(running.login_url)

    try:
        serve_until_stopped(settings, welcome)
    finally:
        gc.enable()
    if not invocation.as_json:
        screen.note("stopped; unfinished jobs go on at the next start")


def at(settings: Settings, host: str | None, port: int | None) -> Settings:
    """Lay the flags over the settings."""
    given: dict[str, Any] = {"host": host, "port": port}
    server = msgspec.structs.replace(
        settings.server, **{name: value for name, value in given.items() if value is not None}
    )
    return msgspec.structs.replace(settings, server=server)


def announce(settings: Settings, running: Running, *, as_json: bool) -> None:
    """Say where everything is."""
    places = {
        "config": str(settings.file),
        "database": str(settings.database),
        "logs": str(settings.data_dir / "logs"),
    }
    if as_json:
        # One line, so that whoever started it can read that line and go on.
        click.echo(msgspec.json.encode({"url": running.url, "login_url": running.login_url, **places}))
        return
    click.echo(f"bulkops {__version__} serves {running.url}")
    click.echo(f"the page, for one login within 10 minutes: {running.login_url}")
    screen.facts(list(places.items()))
    screen.note("Ctrl-C stops it")
