"""`bulkops sidecar`: the backend of a desktop application, started, watched and ended by it."""

from __future__ import annotations

from pathlib import Path

import click

from bulkops.cli.invocation import Invocation, common_options, pass_invocation


@click.command()
@click.option(
    "--data-dir",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything of ours is kept; its bulkops.toml is the config, unless --config names one.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="The port at 127.0.0.1; 0 takes a free one."
)
@click.option(
    "--host-pid", type=click.IntRange(1, 2**32 - 1), help="A process to end with, besides the start line's."
)
@common_options
@pass_invocation
@click.pass_context
def sidecar(
    ctx: click.Context, invocation: Invocation, *, data_dir: Path, port: int, host_pid: int | None
) -> None:
    """Serve a desktop application: a start line on stdin, JSON lines on stdout. No secret is an option."""
    if invocation.url is not None:
        raise click.UsageError("a sidecar is a server of its own, it takes no --url")
    from bulkops.sidecar.options import Options
    from bulkops.sidecar.process import run

    config = invocation.config if invocation.config_named else None
    ctx.exit(run(Options(data_dir=data_dir, config=config, port=port, host_pid=host_pid)))
