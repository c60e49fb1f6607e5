"""One call of the command: which config, which server, JSON or not, and how to reach what it asks.

Keys come from the environment or the runtime file, never from the command line, where every process of
the machine could read them.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from bulkops import runtime_file
from bulkops.cli import exits, screen
from bulkops.client import Client, Endpoint, NoServer, is_loopback
from bulkops.configuration import load as load_settings
from bulkops.errors import BulkopsError, Refusal
from bulkops.settings import Settings
from bulkops.sidecar.placing import recognise

F = TypeVar("F", bound=Callable[..., Any])


class Invocation:
    """What the options that every command takes were set to."""

    def __init__(self) -> None:
        self.config = Path("bulkops.toml")
        #: Whether the config was named, rather than taken from where the command runs.
        self.config_named = False
        self.url: str | None = None
        self.as_json = False

    def settings(self) -> Settings:
        """Read the config file.

        Raises:
            click.UsageError: there is no such file.
            ConfigError: the file is wrong.

        """
        if not self.config.is_file():
            raise click.UsageError(
                f"there is no {self.config}; make one with `bulkops init app.db`, or name one with --config"
            )
        settings = recognise(load_settings(self.config, os.environ))
        # A class that the file names may lie beside it; last, so that nothing of ours is hidden by it.
        if str(settings.base) not in sys.path:
            sys.path.append(str(settings.base))
        return settings

    def client(self) -> Client:
        """Reach the server that `--url` names, else the one that runs for this config.

        Raises:
            NoServer: none runs.
            click.UsageError: `--url` without BULKOPS_KEY.

        """
        return Client(self.endpoint)

    def endpoint(self) -> Endpoint:
        """Find URL and key; raises as `client` does."""
        key = os.environ.get("BULKOPS_KEY")
        if self.url is not None:
            if not key:
                raise click.UsageError("--url needs a key in the environment variable BULKOPS_KEY")
            if self.url.startswith("http:") and not is_loopback(self.url):
                screen.note(f"warning: {self.url} is not encrypted; others on the way can read the key")
            return Endpoint(self.url, key)
        running = self.running()
        if running is None:
            raise NoServer(f"no server runs for {self.config}; start it with: {typed('serve')}")
        return Endpoint(running.url, key or running.key)

    def running(self) -> runtime_file.RuntimeFile | None:
        """Return the runtime file of this config's living server, ``None`` without one."""
        return runtime_file.find_running(self.settings().data_dir)


def typed(*words: str) -> str:
    """Write a command for a person to type next, with the config or the server that this call named."""
    said = ["bulkops", *words]
    context = click.get_current_context(silent=True)
    invocation = None if context is None else context.find_object(Invocation)
    if invocation is not None and invocation.config_named:
        said.append(f"--config {shlex.quote(str(invocation.config))}")
    if invocation is not None and invocation.url is not None:
        said.append(f"--url {shlex.quote(invocation.url)}")
    return " ".join(said)


def common_options(command: F) -> F:
    """Give a command `--json`, `--url` and `--config`, which the group takes too."""
    for option in (
        click.option(
            "--json", is_flag=True, default=None, expose_value=False, callback=_note_json, help="Print JSON."
        ),
        click.option(
            "--url",
            metavar="URL",
            expose_value=False,
            callback=_note_url,
            help="Another server; its key is read from BULKOPS_KEY.",
        ),
        click.option(
            "--config",
            metavar="FILE",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_note_config,
            help="The config file (bulkops.toml).",
        ),
    ):
        command = option(command)
    return command


def _note_json(ctx: click.Context, _: click.Parameter, value: bool | None) -> None:  # noqa: FBT001  click's
    if value:
        ctx.ensure_object(Invocation).as_json = True


def _note_url(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    try:
        address = urlsplit(value)
        is_good = address.scheme in {"http", "https"} and bool(address.hostname) and address.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise click.BadParameter(f"{value!r} is no address such as https://bulkops.example")
    ctx.ensure_object(Invocation).url = value


def _note_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        invocation = ctx.ensure_object(Invocation)
        invocation.config, invocation.config_named = value, True


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


class Commands(click.Group):
    """The group at the root: what commands raise becomes one line and an exit code here."""

    def invoke(self, ctx: click.Context) -> Any:
        invocation = ctx.ensure_object(Invocation)
        try:
            return super().invoke(ctx)
        except Refusal as refused:
            screen.refusal(refused, as_json=invocation.as_json)
            ctx.exit(exits.REFUSED)
        except NoServer as error:
            screen.error(str(error))
            ctx.exit(exits.NO_SERVER)
        except BulkopsError as error:
            screen.error(str(error))
            ctx.exit(exits.REFUSED)
        except UnicodeError as error:  # arguments, or ids from a file or a pipe
            raise click.UsageError(f"text in UTF-8 is needed: {error}") from error
