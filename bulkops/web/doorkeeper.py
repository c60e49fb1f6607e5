"""Who is connected, and who has to go: caps, deadlines, and the room that is kept for commands.

What comes in: connections as they are made, held and lost; what goes out: leave to stay, or an `abort`. Nothing here
knows a protocol or a socket, only what a `Connection` says of itself.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import msgspec


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How long a request may take to arrive, how many connections there may be, how long the end takes."""

    headers_s: float = 10
    body_s: float = 30
    keep_alive_s: int = 15
    drain_s: float = 2
    max_header_bytes: int = 64 * 1024
    max_connections: int = 4096
    max_unanswered_bytes: int = 256 * 1024


class Doorkeeper:
    """Lets connections in, and says who goes first when there is no room.

    Sockets and streams stay for hours, so together they get three quarters of the room; the rest is for
    commands. A new connection at the cap takes the place of the oldest that asks nothing.
    """

    def __init__(self, bounds: Bounds, max_connections: int) -> None:
        self.bounds = bounds
        self.max_connections = max_connections
        self.max_held = max_connections * 3 // 4
        # Behind a proxy on this machine everybody has its address.
        self.max_per_client = max(16, max_connections // 4)
        self.connections: dict[Connection, None] = {}
        self.held = 0
        self._clients: Counter[str] = Counter()

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; ``False`` when it has to go at once."""
        client = connection.peer
        if self._clients[client] >= self.max_per_client and not _is_loopback(client):
            return False
        if len(self.connections) >= self.max_connections and not self._make_room():
            return False
        self.connections[connection] = None
        self._clients[client] += 1
        return True

    def _make_room(self) -> bool:
        idle = next((each for each in self.connections if each.is_idle()), None)
        if idle is None:
            return False
        self.leave(idle)
        idle.abort()
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection; one that is not here is fine."""
        if connection not in self.connections:
            return
        del self.connections[connection]
        self.release(connection)
        self._clients[connection.peer] -= 1
        if not self._clients[connection.peer]:
            del self._clients[connection.peer]

    def hold(self, connection: Connection) -> bool:
        """Take a long-lived place for a connection; ``False`` when the rest is needed for commands."""
        if connection.holds:
            return True
        if self.held >= self.max_held:
            return False
        connection.holds = True
        self.held += 1
        return True

    def release(self, connection: Connection) -> None:
        """Give the long-lived place back; without one nothing happens."""
        if connection.holds:
            connection.holds = False
            self.held -= 1

    def sweep(self, now: float) -> None:
        """Abort who let a deadline pass."""
        for connection in [each for each in self.connections if each.is_late(now)]:
            connection.abort()


def _is_loopback(client: str) -> bool:
    return client.startswith(("127.", "::1", "::ffff:127."))


class Connection(Protocol):
    """What the doorkeeper asks of a connection."""

    holds: bool

    @property
    def peer(self) -> str: ...
    def is_idle(self) -> bool: ...
    def is_late(self, now: float) -> bool: ...
    def abort(self) -> None: ...
