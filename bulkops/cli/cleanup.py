"""`bulkops cleanup-files`: work off the file deletion queue, for cron; with or without a server."""

from __future__ import annotations

import click

from bulkops.cli import exits, screen
from bulkops.cli.desk import Desk, open_desk
from bulkops.cli.invocation import Invocation, common_options, pass_invocation


@click.command("cleanup-files")
@click.option("--batch-size", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--max-attempts", type=click.IntRange(1, 100), default=3, show_default=True)
@common_options
@pass_invocation
def cleanup_files(invocation: Invocation, *, batch_size: int, max_attempts: int) -> None:
    """Work off the file deletion queue until nothing that is due is left.

    Exits with 3 when files could not be deleted.
    """
    with open_desk(invocation) as desk:
        total = _work_off(desk, batch_size=batch_size, max_attempts=max_attempts)
    if invocation.as_json:
        screen.document(total)
    else:
        click.echo(", ".join(f"{count:,} {name}" for name, count in total.items()))
    if total["failed"]:
        click.get_current_context().exit(exits.PARTIAL)


def _work_off(desk: Desk, *, batch_size: int, max_attempts: int) -> dict[str, int]:
    """Run batches until one finds nothing due; what waits for a later attempt remains."""
    total = {"processed": 0, "removed": 0, "missing": 0, "failed": 0, "remaining": 0}
    while True:
        done = desk.cleanup(batch_size=batch_size, max_attempts=max_attempts)
        for name in ("processed", "removed", "missing", "failed"):
            total[name] += done[name]
        total["remaining"] = done["remaining"]
        if not done["processed"] or not done["remaining"]:
            return total
