"""Pure rules about who may do what: roles, defaults of actions, rates.

Values in, decisions out; nothing here waits or reads a file.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from bulkops.models import Caller

RANKS: Final = {"viewer": 1, "operator": 2, "admin": 3, "owner": 4}
ROLES: Final = frozenset(RANKS) | {"service"}

#: The resource whose items are the house's own chores; no configured one can have the name.
MAINTENANCE: Final = "maintenance"

PRIORITY_USER: Final = 100
PRIORITY_MAINTENANCE: Final = 50
PRIORITY_MAX: Final = 1000

#: An ids selection may name this many; filters and uploaded selections are not bound by it.
MAX_IDS: Final = 1000
MAX_ATOMIC_ITEMS: Final = 10_000

#: Ranges of the numbers that a start or a live knob may carry.
RANGES: Final[dict[str, tuple[float, float]]] = {
    "batch_size": (1, 10_000),
    "throttle_ms": (0, 600_000),
    "max_items_per_second": (0.01, 10_000_000),
    "max_items": (1, 1_000_000_000),
    "canary": (1, 1_000_000_000),
    "expected_count": (0, 1_000_000_000_000),
}

_RATE = re.compile(r"(\d{1,6})\s*/\s*(second|minute|hour|day)")
_WINDOW_S: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


class Rate(msgspec.Struct, frozen=True):
    """At most ``limit`` accepted starts in any ``window_s`` seconds."""

    limit: int
    window_s: int


def parse_rate(text: str) -> Rate:
    """Read ``10/minute``.

    Raises:
        ValueError: the text is no rate.

    """
    found = _RATE.fullmatch(text)
    if found is None or int(found[1]) < 1:
        raise ValueError(f"{text!r} is no rate such as 10/minute")
    return Rate(int(found[1]), _WINDOW_S[found[2]])


def rank(caller: Caller) -> int:
    """Return the caller's highest rank, 0 without any of the four roles."""
    return max((RANKS.get(role, 0) for role in caller.roles), default=0)


def has_role(caller: Caller, role: str) -> bool:
    """Say whether the caller holds ``role`` or a higher one; ``service`` is held by itself only."""
    if role == "service":
        return "service" in caller.roles
    return rank(caller) >= RANKS[role]


def may_act(caller: Caller, *, roles: list[str] | None, reversible: bool) -> bool:
    """Say whether the caller may start an action.

    An action's own ``roles`` list replaces the default ladder; an owner may do everything.
    """
    if has_role(caller, "owner"):
        return True
    if roles is not None:
        return bool(caller.roles & set(roles))
    return has_role(caller, "operator" if reversible else "admin")


def may_see(caller: Caller, *, tenant: str | None, requested_by: str, source: str) -> bool:
    """Say whether a job is the caller's to see: their own, an admin's tenant, or an owner of all."""
    if caller.tenant is not None and caller.tenant != tenant:
        return False
    if source == "maintenance" and tenant is None:
        return caller.tenant is None and has_role(caller, "owner")
    if requested_by == caller.user and has_role(caller, "viewer"):
        return True
    return has_role(caller, "admin")
