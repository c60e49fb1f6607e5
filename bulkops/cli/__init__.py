"""The `bulkops` command: words on a terminal in, lines or JSON and an exit code out.

Everything a person can point at has its own file here; this one only says where, because a server would
start a tenth slower with all of them loaded. No command takes a secret as an argument, and none changes
anything that it was not asked to.
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Final

import click

from bulkops import __version__
from bulkops.cli.invocation import Commands, common_options
from bulkops.errors import did_you_mean

__all__ = ["main"]

_SENTENCE: Final = 200
#: The module of each command, under what it is for; its function is called as the command is.
_SECTIONS: Final = {
    "Begin": {"demo": "demo", "init": "init", "check": "check", "serve": "serve", "sidecar": "sidecar"},
    "Start jobs": {
        "resources": "resources",
        "validate": "starting",
        "start": "starting",
        "task": "tasks",
        "schedules": "schedules",
    },
    "See to jobs": {
        "jobs": "jobs",
        "tasks": "tasks",
        "show": "jobs",
        "watch": "watch",
        "pause": "verbs",
        "resume": "verbs",
        "cancel": "verbs",
        "tune": "tune",
    },
    "After jobs": {
        "report": "report",
        "retry": "verbs",
        "undo": "verbs",
        "trash": "trash",
        "download": "download",
    },
    "Keys and care": {
        "keys": "keys",
        "webhooks": "webhooks",
        "audit": "audit",
        "cleanup-files": "cleanup",
        "backup": "backup",
        "doctor": "doctor",
    },
}
_MODULES: Final = {name: module for section in _SECTIONS.values() for name, module in section.items()}


class _LateCommands(Commands):
    """Loads a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"bulkops.cli.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant; where there is none, name the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            told = error.message.rstrip(".") + did_you_mean(args[0], _MODULES)
            raise click.UsageError(told, ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what commands are for, section by section, sentences whole."""
        for title, section in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self._sentence(ctx, name)) for name in section], col_max=14)

    def _sentence(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(limit=_SENTENCE)


@click.group(cls=_LateCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bulkops")
@common_options
def main() -> None:
    """Delete, archive or change very many things as durable jobs, with live progress and a way back."""
    gc.enable()
