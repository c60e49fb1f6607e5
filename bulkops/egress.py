"""Which addresses the house may call: the guard between a URL that somebody typed and a connection.

What comes in: a URL, and what the operator allows; what goes out: the addresses to connect to, each
judged, or `AddressRefused`. A name is resolved once and the connection goes to the very address that was
judged, so that a name server that answers differently the next time gains nothing. Nothing here connects.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from bulkops.errors import BulkopsError

MAX_URL: Final = 2000
_PORTS: Final = {"https": 443, "http": 80}
#: A resolver that hangs holds a thread; so many may, and nobody else's threads.
_RESOLVERS: Final = 16
_RESOLVE_TIMEOUT_S: Final = 5.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# One strict pattern instead of a forgiving parser: what two parsers read differently is no URL here. There
# is no room in it for userinfo, fragments, backslashes, escapes or other scripts in the host.
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:[/?][!\"$-\[\]-~]*)?)",
    re.ASCII,
)
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_NUMERIC: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)

#: `ipaddress.is_global` calls some of these global, depending on Python's version. Source: the IANA
#: special-purpose address registries; 168.63.129.16 is a cloud's inside with a public number.
_DENIED_V4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
#: What is given out to networks; everything outside is local, a tunnel's wrapping, or nobody's.
_GIVEN_V6: Final = ipaddress.IPv6Network("2000::/3")
#: Teredo and other protocols, documentation, 6to4: the latter two wrap an address that others route to.
_DENIED_V6: Final = tuple(
    ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
# One sentence for both, so that nobody can ask which names our network knows.
_NOT_PUBLIC: Final = "does not resolve to a public address, nor is it named in webhook_hosts"
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(BulkopsError):
    """This may not be called; the message says why, without what a name resolved to."""

    code = "REFUSED"


class NameUnknown(AddressRefused):
    """The name does not resolve now; it may later."""


class Target(msgspec.Struct, frozen=True):
    """A URL, taken apart: lower-case scheme and host (an IPv6 address without brackets), path with query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the ``Host`` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


class Policy(msgspec.Struct, frozen=True):
    """What the operator allows beyond public https: hosts, each with a port or (``None``) the usual ones."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    own_port: int = 0

    def lists(self, target: Target) -> bool:
        """Say whether the operator named this host and port, which may then be private and plain http."""
        usual = target.port in _PORTS.values() and (target.host, None) in self.hosts
        return usual or (target.host, target.port) in self.hosts


def policy_of(entries: Sequence[str], own_port: int) -> Policy:
    """Read the setting ``webhook_hosts``: ``name``, ``name:port``, ``[v6]:port``; judged by the settings."""
    return Policy(frozenset(_entry(entry) for entry in entries), own_port)


def _entry(entry: str) -> tuple[str, int | None]:
    host, colon, port = entry.rpartition(":")
    if not colon or entry.endswith("]"):
        host, port = entry, ""
    return _tidy(host), int(port) if port else None


def _tidy(host: str) -> str:
    if host.startswith("["):
        return str(ipaddress.IPv6Address(host[1:-1]))
    return host.lower()


def read_url(url: str, policy: Policy) -> Target:
    """Take a URL apart and judge what can be judged without asking a name server.

    Raises:
        AddressRefused: it is no URL of the strict form, or scheme, port or host are not allowed.
    """
    target = _parse(url)
    if policy.lists(target):
        return target
    if target.scheme != "https":
        raise AddressRefused("must begin with https://, unless webhook_hosts names its host")
    if target.port != _PORTS["https"]:
        raise AddressRefused("must use port 443; others are named in webhook_hosts")
    literal = _literal(target.host)
    if literal is not None and not is_public(literal):
        raise AddressRefused("is not a public address, nor named in webhook_hosts")
    return target


def _parse(url: str) -> Target:
    found = _URL.fullmatch(url) if len(url) <= MAX_URL else None
    if found is None:
        raise AddressRefused("is no plain URL such as https://app.example/hooks: no user, no fragment, ASCII")
    scheme = found["scheme"].lower()
    if scheme not in _PORTS:
        raise AddressRefused("must begin with https://")
    port = int(found["port"]) if found["port"] else _PORTS[scheme]
    if not 1 <= port <= 65_535:
        raise AddressRefused("has no such port")
    path = found["path"] if found["path"].startswith("/") else f"/{found['path']}"
    return Target(scheme, _read_host(found["host"]), port, path)


def _read_host(host: str) -> str:
    try:
        if host.startswith("["):
            return _tidy(host)
        labels = host.split(".")
        # A name that ends in a number is an address to resolvers: 127.1, 2130706433, 0x7f.1, 0177.0.0.1.
        if _NUMERIC.fullmatch(labels[-1]):
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise AddressRefused("writes an address in a form that is not the plain one") from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressRefused("has no host name")
    return host.lower()


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Say whether an address is on the open internet, looking inside mapped and NAT64 ones."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _DENIED_V4)
    inner = address.ipv4_mapped
    if address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if inner is not None:
        return is_public(inner)
    return address in _GIVEN_V6 and not any(address in network for network in _DENIED_V6)


class Resolver:
    """Asks the machine's name service, in threads of its own."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(_RESOLVERS)

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a name, in the order of preference.

        Raises:
            OSError: the name is unknown, or the name service does not answer.
        """

        def ask() -> list[str]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(each[4][0]) for each in found))

        with anyio.fail_after(_RESOLVE_TIMEOUT_S):
            return await anyio.to_thread.run_sync(ask, limiter=self._limiter, abandon_on_cancel=True)


async def locate(target: Target, policy: Policy, resolver: Resolver) -> list[str]:
    """Resolve a target once and return the addresses that may be connected to, all of them judged.

    Raises:
        NameUnknown: the name does not resolve now.
        AddressRefused: one of the addresses is not public and the operator did not name the host, or it
            is our own door.
    """
    literal = _literal(target.host)
    if literal is not None:
        addresses = [target.host]
    else:
        try:
            addresses = await resolver.resolve(target.host, target.port)
        except (OSError, UnicodeError):
            addresses = []
    if not addresses:
        raise NameUnknown(_NOT_PUBLIC)
    # A scope (fe80::1%eth0) is never public, and ipaddress reads it.
    found = [ipaddress.ip_address(address) for address in addresses]
    if target.port == policy.own_port and any(_is_own(address) for address in found):
        raise AddressRefused("is this server itself")
    # All of them: which one a later connection would take is not ours to guess.
    if not policy.lists(target) and not all(map(is_public, found)):
        raise AddressRefused(_NOT_PUBLIC)
    return addresses


def _is_own(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return _is_own(address.ipv4_mapped)
    return address.is_loopback or address.is_unspecified
