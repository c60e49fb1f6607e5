"""`bulkops keys`: who may come in; with or without a server. A key is shown once, when it is made."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from bulkops.cli import screen
from bulkops.cli.desk import open_desk
from bulkops.cli.invocation import Invocation, common_options, pass_invocation

_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.option("--user", required=True, help="Whose key it is.")
@click.option("--tenant", help="The tenant it is bound to; without one it is for the whole installation.")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator", "admin", "owner", "service"]),
    required=True,
    help="What it may do.",
)
@click.option("--name", help="What the key is for.")
@click.option("--expires-in", metavar="TIME", help="How long it is good for, such as 90d, 12h.")
@common_options
@pass_invocation
def create(invocation: Invocation, /, *, expires_in: str | None, **members: Any) -> None:
    """Make a key and print it, once."""
    body = {name: value for name, value in members.items() if value is not None}
    if expires_in is not None:
        body["ttl_s"] = _seconds(expires_in)
    with open_desk(invocation) as desk:
        made = desk.create_key(body)
    if invocation.as_json:
        screen.document(made)
        return
    click.echo(made["key"])
    screen.note(f"key {made['id']} of {body['user']}, {body['role']}; keep it now, it is not shown again")


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None or int(found[1]) == 0:
        raise click.UsageError(f"--expires-in {text!r} is no time such as 90d or 12h")
    return int(found[1]) * _UNIT_S[found[2]]


@keys.command("list")
@common_options
@pass_invocation
def list_keys(invocation: Invocation) -> None:
    """List keys, without their secrets."""
    with open_desk(invocation) as desk:
        found = desk.keys()
    if invocation.as_json:
        screen.document({"items": found, "next": None})
        return
    names = ("id", "name", "user", "tenant", "role", "created_at", "used_at", "expires_at", "revoked_at")
    shown = [name for name in names if any(key.get(name) for key in found)]
    screen.table(shown, [[key.get(name) for name in shown] for key in found])
    if not found:
        screen.note("no keys; make one with: bulkops keys create --user NAME --role admin")


@keys.command()
@click.argument("key", metavar="ID")
@common_options
@pass_invocation
def revoke(invocation: Invocation, *, key: str) -> None:
    """Revoke the key with this id, at once and for good."""
    with open_desk(invocation) as desk:
        desk.revoke_key(key)
    if invocation.as_json:
        screen.document({"id": key, "revoked": True})
    else:
        click.echo(f"key {key} is revoked")
