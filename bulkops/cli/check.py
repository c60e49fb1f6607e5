"""`bulkops check`: the config held against the real databases and folders, line by line; it only looks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from bulkops.cli import exits, screen
from bulkops.cli.invocation import Invocation, common_options, pass_invocation

if TYPE_CHECKING:
    from bulkops.resources.explanation import ExplainedAction
    from bulkops.resources.inspection import Finding
    from bulkops.settings import Settings


@click.command()
@click.option("--explain", is_flag=True, help="Show each action's SQL, its index and the one it misses.")
@common_options
@pass_invocation
def check(invocation: Invocation, *, explain: bool) -> None:
    """Say what is wrong, missing or slow about the config. Exits with 1 when something is wrong."""
    if invocation.url is not None:
        raise click.UsageError("a config is checked where it lies, without --url")
    from bulkops.resources.inspection import inspect  # late: only this command needs it

    settings = invocation.settings()
    findings = [*_inspect_own_database(settings), *inspect(settings)]
    if settings.schedules and not _is_wrong(findings):
        findings += _inspect_schedules(settings)
    is_wrong = _is_wrong(findings)
    explained = _explain(settings) if explain and not is_wrong else []
    if invocation.as_json:
        screen.document({"findings": findings} | ({"actions": explained} if explain else {}))
    else:
        _show_actions(explained)
        _show(settings.file.name if settings.file else "settings", findings)
    if is_wrong:
        click.get_current_context().exit(exits.REFUSED)


def _is_wrong(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _inspect_own_database(settings: Settings) -> list[Finding]:
    """Find out whether what stands at `server.database` is ours; `doctor` says whether it is sound."""
    from bulkops.errors import ConfigError  # late, as in the command itself
    from bulkops.resources.findings import error
    from bulkops.resources.inspection import found
    from bulkops.resources.probe import reading
    from bulkops.store.migrations import APPLICATION_ID

    if not settings.database.exists():
        return []
    try:
        with reading(settings.database) as connection:
            if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
                return []
        said = "is a database of something else; name a file for bulkops' own, the first start makes it"
    except ConfigError as fault:
        said = fault.message
    return found(settings, [error(("server", "database"), f"{settings.database.name} {said}")])


def _inspect_schedules(settings: Settings) -> list[Finding]:
    import anyio  # late: it brings the engine

    from bulkops.resources.schedule_inspection import inspect_schedules

    return anyio.run(inspect_schedules, settings)


def _explain(settings: Settings) -> list[ExplainedAction]:
    import anyio  # late: it brings the engine

    from bulkops.resources.explanation import explain

    return anyio.run(explain, settings)


def _show_actions(explained: list[ExplainedAction]) -> None:
    for action in explained:
        click.echo(screen.clean(f"{action.resource} {action.action}"))
        for statement in action.statements:
            click.echo(f"  {statement.when}:")
            click.echo(f"    {screen.clean(statement.sql)}")
            click.echo(f"    index: {screen.clean(statement.index or 'none, all rows are read')}")
            if statement.missing:
                click.echo(f"    misses: {screen.clean(statement.missing)}")
        click.echo()


def _show(file: str, findings: list[Finding]) -> None:
    """Print a finding a line, the way compilers do, so that editors can jump there."""
    colour = {"error": "red", "warning": "yellow", "note": "cyan"}
    for finding in findings:
        place = file if finding.line is None else f"{file}:{finding.line}"
        word: str = finding.severity
        if screen.colours(sys.stdout):
            word = click.style(word, fg=colour[word])
        click.echo(f"{place}: {word}: {screen.clean(finding.where)}: {screen.clean(finding.message)}")
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in colour}
    told = [f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items()]
    screen.note(f"{file}: {', '.join(told)}")
