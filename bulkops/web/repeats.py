"""Requests that come again: one answer for each Idempotency-Key, however often it is asked for.

What comes in: a request and how to answer it; what goes out: the answer, made now or written anew from what was kept
in the transaction that did the work. Two requests of one key never run at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from bulkops.store import idempotency
from bulkops.store.idempotency import Answer as StoredAnswer
from bulkops.store.idempotency import Idempotency
from bulkops.web.routing import Call


async def answered_once(
    call: Call,
    make: Callable[[Idempotency | None], Awaitable[Response]],
    replay: Callable[[StoredAnswer], Response],
) -> Response:
    """Make an answer once per Idempotency-Key, whatever it is of; ``replay`` writes it anew from what was kept.

    Raises:
        Refusal: as `once`.
    """
    key = idempotency.parse_key(call.request.headers.getlist("idempotency-key"))
    if key is None:
        return await make(None)
    path = call.request.scope["path"].removeprefix(call.request.scope.get("root_path", ""))
    request = idempotency.mark(call.caller, key, method=call.request.method, path=path, body=call.canonical)
    store = call.runtime.store
    async with call.door.in_flight.turn(request):
        now_ms = store.clock.now_ms()
        stored = await store.read(lambda connection: idempotency.lookup(connection, request, now_ms))
        if stored is not None:
            return replay(stored)
        return await make(request)
