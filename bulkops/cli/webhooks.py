"""`bulkops webhooks`: who outside is told of jobs, what was told, and what is told again.

The secret of a webhook is printed once, when it is made.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final
from urllib.parse import quote

import click

from bulkops.cli import screen
from bulkops.cli.invocation import Invocation, common_options, pass_invocation

_EVENTS: Final = ("started", "progress", "paused", "completed", "failed", "cancelled")


@click.group(invoke_without_command=True)
@common_options
@click.pass_context
def webhooks(ctx: click.Context) -> None:
    """List, add, remove and test webhooks; list their messages and send them again."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_webhooks)


@webhooks.command("list")
@click.option("--tenant", help="Only this tenant's (callers without one).")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--page", help="The `next` token of the page before.")
@common_options
@pass_invocation
def list_webhooks(
    invocation: Invocation, /, *, tenant: str | None = None, limit: int = 50, page: str | None = None
) -> None:
    """List webhooks and how their last message went."""
    found = _ask(invocation, _path(), tenant=tenant, limit=limit, page=page)
    if invocation.as_json:
        screen.document(found)
        return
    screen.table(
        ["id", "url", "events", "tenant", "status", "last", "at", "description"],
        [_row(each) for each in found["items"]],
        fold=False,
    )
    if not found["items"]:
        screen.note("no webhooks; make one with: bulkops webhooks add URL --event completed")
    _note_more(found)


def _row(each: dict[str, Any]) -> list[Any]:
    last = each["last_delivery"] or {"result": "nothing sent", "at": None}
    told = [each[name] for name in ("id", "url", "events", "tenant", "status")]
    return [*told, last["result"], last["at"], each["description"]]


@webhooks.command()
@click.argument("address")
@click.option(
    "--event",
    "events",
    multiple=True,
    required=True,
    type=click.Choice(_EVENTS),
    help="What of a job to tell; may be repeated.",
)
@click.option("--description", help="What it is for.")
@click.option("--tenant", help="Whose jobs (callers without a tenant).")
@common_options
@pass_invocation
def add(invocation: Invocation, /, *, address: str, events: tuple[str, ...], **given: Any) -> None:
    """Have events of jobs sent to ADDRESS; prints the secret that signs them, once."""
    extra = {name: value for name, value in given.items() if value is not None}
    with closing(invocation.client()) as client:
        made = client.post(_path(), {"url": address, "events": list(dict.fromkeys(events)), **extra})
    if invocation.as_json:
        screen.document(made)
        return
    click.echo(made["secret"])
    screen.note(f"the secret of webhook {made['id']}; keep it now, it is not shown again")
    screen.note(f"try it with: bulkops webhooks test {made['id']}")


@webhooks.command()
@click.argument("webhook", metavar="ID")
@common_options
@pass_invocation
def remove(invocation: Invocation, /, *, webhook: str) -> None:
    """Remove a webhook; what waits for it is never sent."""
    with closing(invocation.client()) as client:
        client.delete(_path(webhook))
    if invocation.as_json:
        screen.document({"id": webhook, "removed": True})
    else:
        click.echo(f"webhook {webhook} is removed")


@webhooks.command()
@click.argument("webhook", metavar="ID")
@common_options
@pass_invocation
def test(invocation: Invocation, /, *, webhook: str) -> None:
    """Send a message of the type `test`."""
    with closing(invocation.client()) as client:
        _say(invocation, webhook, client.post(_path(webhook, "test")))


@webhooks.command()
@click.argument("webhook", metavar="ID")
@click.option("--state", type=click.Choice(["pending", "delivered", "dead"]), help="Only in this state.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--page", help="The `next` token of the page before.")
@common_options
@pass_invocation
def messages(
    invocation: Invocation, /, *, webhook: str, state: str | None, limit: int, page: str | None
) -> None:
    """List what was or will be sent to a webhook, newest first."""
    found = _ask(invocation, _path(webhook, "deliveries"), state=state, limit=limit, page=page)
    if invocation.as_json:
        screen.document(found)
        return
    names = ("id", "type", "job", "state", "attempts", "result", "next_attempt_at", "created_at")
    titles = ["message", "type", "job", "state", "attempts", "result", "next try", "created"]
    rows = [[each[name] for name in names] for each in found["items"]]
    screen.table(titles, rows, right=frozenset({4}), fold=False)
    if not found["items"]:
        screen.note(f"no message is {state}" if state else "nothing was to be sent yet")
    _note_more(found)


@webhooks.command()
@click.argument("webhook", metavar="ID")
@click.argument("message")
@common_options
@pass_invocation
def resend(invocation: Invocation, /, *, webhook: str, message: str) -> None:
    """Send MESSAGE of a webhook again, under its old id."""
    with closing(invocation.client()) as client:
        _say(invocation, webhook, client.post(_path(webhook, "deliveries", message, "resend")))


def _path(*rest: str) -> str:
    return "/".join(["/api/webhooks", *(quote(part, safe="") for part in rest)])


def _ask(invocation: Invocation, path: str, **params: Any) -> dict[str, Any]:
    with closing(invocation.client()) as client:
        found: dict[str, Any] = client.get(
            path, {name: value for name, value in params.items() if value is not None}
        )
    return found


def _note_more(found: dict[str, Any]) -> None:
    if found["next"]:
        screen.note(f"more: --page {found['next']}")


def _say(invocation: Invocation, webhook: str, message: dict[str, Any]) -> None:
    """Tell how a message that was just put in the outbox stands."""
    if invocation.as_json:
        screen.document(message)
        return
    click.echo(f"message {message['id']} is {message['state']}")
    screen.note(f"how it went: bulkops webhooks messages {webhook}")
