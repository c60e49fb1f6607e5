"""The listening socket, and how many connections the operating system leaves room for.

An address comes in, a bound socket goes out. It is bound here, so that port 0 works and a taken port is an error and
never a neighbour.
"""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import suppress
from typing import Final

from bulkops.errors import StartRefused
from bulkops.web.doorkeeper import Bounds

_SNDBUF_BYTES: Final = 64 * 1024
_USER_TIMEOUT_MS: Final = 60_000
BACKLOG: Final = 256
_MAX_FILES: Final = 65_536


def bind(host: str, port: int) -> socket.socket:
    """Bind and listen at exactly this address; port 0 takes a free one.

    Raises:
        StartRefused: (``bind``) the address is taken, not ours, or needs rights we lack.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            # As bytes, an address does not go through the codec of international names, which is slow to load.
            host.encode() if host.isascii() else host,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
    except OSError as error:
        raise StartRefused("bind", f"{host} is no address to listen at: {error}") from error
    listener = socket.socket(family, kind, number)
    try:
        _set_options(listener, family)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason += "; name another with --port, 0 takes a free one"
        raise StartRefused("bind", f"cannot listen at {host} port {port}: {reason}") from error
    return listener


def _set_options(listener: socket.socket, family: int) -> None:
    if sys.platform == "win32":  # pragma: no cover
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    # Accepted sockets inherit both: little is hidden in the kernel, and a dead peer is noticed there too.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SNDBUF_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


def room_for_connections(bounds: Bounds) -> int:
    """Raise the limit of open files as far as allowed; return how many connections that leaves room for."""
    try:
        import resource  # not on Windows
    except ImportError:  # pragma: no cover
        return min(bounds.max_connections, 512)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    files = _MAX_FILES if soft == resource.RLIM_INFINITY else soft
    return max(8, min(bounds.max_connections, files - max(64, files // 4)))
