"""Page tokens: where a list goes on, opaque to clients.

What comes in: the key of the last thing shown; what goes out: a token, and from it the same key, typed and
within SQLite's bounds. A token names a place, never a right: every page asks again who may see what.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec

from bulkops.errors import Refusal, invalid_field
from bulkops.shapes import whole

K = TypeVar("K")
R = TypeVar("R")

MAX_LIMIT: Final = 1000
#: How often an empty page of a long search is followed by the next before the client is told to.
MAX_EMPTY: Final = 20
_MAX_TOKEN: Final = 512

#: A whole number that SQLite can bind; JSON's may be of any size.
Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    kind: str
    key: msgspec.Raw


def write_token(kind: str, *key: str | int) -> str:
    """Make the token of the page after ``key`` in lists of this kind."""
    text = msgspec.json.encode([kind, list(key)])
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def read_token(token: str | None, kind: str, shape: type[K]) -> K | None:
    """Return the key inside a token as ``shape`` (a tuple type); ``None`` for the first page.

    Raises:
        Refusal: (``INVALID_FIELD`` at ``/page``) the token was not made for lists of this kind.

    """
    if token is None:
        return None
    try:
        found = msgspec.json.decode(_unwrap(token), type=whole(_Token))
        if found.kind == kind:
            return msgspec.json.decode(found.key, type=shape)
    except (ValueError, RecursionError):
        raise _bad_token() from None
    raise _bad_token()


def _unwrap(token: str) -> bytes:
    if len(token) > _MAX_TOKEN:
        raise ValueError("too long")
    data = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    data.decode("utf-8")  # a Raw key is taken unread, and what is no text must not reach SQL
    return data


def _bad_token() -> Refusal:
    return invalid_field("/page", "this is no page token of this list; begin without one")


def check_limit(limit: int) -> int:
    """Return ``limit`` when a page may have as many items.

    Raises:
        Refusal: (``INVALID_FIELD`` at ``/limit``) it is not within 1 … 1,000.

    """
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid_field("/limit", f"a number from 1 to {MAX_LIMIT} is needed")
    return limit


def page_from(
    rows: Sequence[R],
    limit: int,
    kind: str,
    *,
    key: Callable[[R], tuple[str | int, ...]],
    view: Callable[[R], Any],
) -> dict[str, Any]:
    """Shape the page of rows of which one more than ``limit`` was asked for: that one says there is a next.

    ``key`` is what the next page begins after.
    """
    shown = rows[:limit]
    following = write_token(kind, *key(shown[-1])) if len(rows) > limit else None
    return page_of([view(row) for row in shown], following)


def page_of(items: list[Any], following: str | None) -> dict[str, Any]:
    """Shape one page of a list; ``following`` is the token of the next one, ``None`` at the end."""
    return {"items": items, "next": following}
