"""`bulkops resources`: what there is to act on, and what may be done to it."""

from __future__ import annotations

from contextlib import closing

import click

from bulkops.cli import screen
from bulkops.cli.invocation import Invocation, common_options, pass_invocation


@click.command()
@common_options
@pass_invocation
def resources(invocation: Invocation) -> None:
    """List resources and the actions this caller may use."""
    with closing(invocation.client()) as client:
        found = client.get("/api/resources")
    if invocation.as_json:
        screen.document(found)
        return
    listed = found["items"] if isinstance(found, dict) else found
    screen.table(
        ["resource", "kind", "actions"],
        [[r["name"], r.get("kind"), [action["name"] for action in r["actions"]]] for r in listed],
    )
