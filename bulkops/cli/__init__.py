"""The `bulkops` command: words on a terminal in, lines or JSON and an exit code out.

Everything a person can point at has its own file here; this one only says where, because a server would
start a tenth slower with all of them loaded. No command takes a secret as an argument, and none changes
anything that it was not asked to.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from bulkops import __version__
from bulkops.cli.invocation import Commands, common_options

__all__ = ["main"]

#: The module of each command; its function is called as the command is.
_MODULES: Final = {
    "init": "init",
    "check": "check",
    "serve": "serve",
    "demo": "demo",
    "sidecar": "sidecar",
    "resources": "resources",
    "validate": "starting",
    "start": "starting",
    "jobs": "jobs",
    "show": "jobs",
    "watch": "watch",
    "pause": "verbs",
    "resume": "verbs",
    "cancel": "verbs",
    "retry": "verbs",
    "undo": "verbs",
    "tune": "tune",
    "trash": "trash",
    "task": "tasks",
    "tasks": "tasks",
    "report": "report",
    "download": "download",
    "keys": "keys",
    "cleanup-files": "cleanup",
    "schedules": "schedules",
    "webhooks": "webhooks",
    "audit": "audit",
    "backup": "backup",
    "doctor": "doctor",
}


class _LateCommands(Commands):
    """Loads a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"bulkops.cli.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=_LateCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bulkops")
@common_options
def main() -> None:
    """Delete, archive or change very many things as durable jobs, with live progress and a way back."""
