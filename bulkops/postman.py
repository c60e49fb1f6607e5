"""The postman: sends what the outbox of webhooks holds, many webhooks at a time and to each one letter at a time.

What comes in: due letters; what goes out: signed POSTs, and how each ended. An attempt is committed before
it is made, so a crash repeats a letter under its old id and loses none. Nobody waits for the postman: jobs
only write to the outbox. He connects to addresses that the guard has judged and to no other, follows no
redirect, and forgets what an endpoint answers but for its class.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from standardwebhooks import Webhook

from bulkops import egress
from bulkops.egress import AddressRefused, NameUnknown, Policy, Resolver, Target
from bulkops.errors import BulkopsError
from bulkops.store import deliveries
from bulkops.store.deliveries import Letter, Reply
from bulkops.store.store import Store
from bulkops.store.transaction import Commit
from bulkops.store.webhooks import Result
from bulkops.timing import back_off_s

if TYPE_CHECKING:
    import ssl

    import httpx

TIMEOUT_S: Final = 15.0
_CONNECT_S: Final = 5.0
_LANES: Final = 64
#: Of several addresses of a host so many are tried.
_MAX_ADDRESSES: Final = 3
#: So much of an answer's body is taken off the line, unread, so that the endpoint sees a clean end.
MAX_BODY: Final = 4096
_BODY_S: Final = 1.0
_MAX_SLEEP_S: Final = 60.0
_RECORD_TIMEOUT_S: Final = 5.0
_log = logging.getLogger("bulkops.postman")


class Postman:
    """Sends when rung and when something falls due."""

    def __init__(self, store: Store, policy: Policy, *, timeout_s: float = TIMEOUT_S) -> None:
        self._store = store
        self._policy = policy
        self._timeout_s = timeout_s
        self._resolver = Resolver()
        self._bell = anyio.Event()
        self._held: set[str] = set()
        self._trust: ssl.SSLContext | None = None
        store.on_commit.append(self._on_commit)

    def _on_commit(self, commit: Commit) -> None:
        if commit.letters:
            self._bell.set()

    def ring(self) -> None:
        """Wake the loop: there may be something to send."""
        self._bell.set()

    async def work(self) -> None:
        """Send until cancelled; a letter under way then is sent again at the next start."""
        troubles = 0
        async with anyio.create_task_group() as group:
            while True:
                self._bell = anyio.Event()  # before the look: a ring in between is not lost
                try:
                    wait_s = await self._until_due_s()
                    if wait_s <= 0:
                        await self._send_due(group)
                    troubles = 0
                except (BulkopsError, sqlite3.Error, OSError) as error:
                    troubles += 1
                    _log.warning("WEBHOOK_TROUBLE error=%s: %s", type(error).__name__, error)
                    wait_s = back_off_s(troubles, base_s=1, cap_s=_MAX_SLEEP_S)
                if wait_s > 0:
                    with anyio.move_on_after(wait_s):
                        await self._bell.wait()

    async def _until_due_s(self) -> float:
        # A look costs no disk; only who sees something due asks for the write lock.
        if len(self._held) >= _LANES:
            return _MAX_SLEEP_S
        now_ms = self._store.clock.now_ms()
        held = frozenset(self._held)
        due_ms = await self._store.read(lambda c: deliveries.next_due_ms(c, now_ms, held=held))
        return _MAX_SLEEP_S if due_ms is None else min(_MAX_SLEEP_S, (due_ms - now_ms) / 1000)

    async def _send_due(self, group: TaskGroup) -> None:
        """Take what is due, one letter a webhook, and begin to send it."""
        free = _LANES - len(self._held)
        held = frozenset(self._held)
        for letter in await self._store.write(lambda tx: deliveries.claim(tx, free, held=held)):
            self._held.add(letter.webhook)
            group.start_soon(self._deliver, letter)

    async def _deliver(self, letter: Letter) -> None:
        try:
            reply = await self._attempt(letter)
            # Also while closing: an answer that came is worth a moment.
            with anyio.move_on_after(_RECORD_TIMEOUT_S, shield=True):
                await self._store.write(lambda tx: deliveries.record(tx, letter, reply))
        except (sqlite3.Error, OSError) as error:
            # Unrecorded it counts as failed: its next attempt stands written already.
            _log.warning("WEBHOOK_TROUBLE error=%s: %s", type(error).__name__, error)
        finally:
            self._held.discard(letter.webhook)
            self._bell.set()

    async def _attempt(self, letter: Letter) -> Reply:
        """Send a letter once and say how that ended, whatever happens."""
        began_s = time.monotonic()
        headers: Mapping[str, str] = {}
        status: int | None = None
        result: Result
        try:
            with anyio.fail_after(self._timeout_s):
                status, headers = await self._send(letter)
            result = _class_of(status)
        except TimeoutError:
            result = "timeout"
        except NameUnknown:
            result = "unreachable"
        except AddressRefused as refused:
            _log.warning("WEBHOOK_REFUSED webhook=%s the url %s", letter.webhook, refused)
            result = "refused"
        except Exception as error:  # noqa: BLE001  whatever a foreign server provokes in the client
            _log.info("WEBHOOK_UNREACHABLE webhook=%s error=%s", letter.webhook, type(error).__name__)
            result = "unreachable"
        reply = Reply(
            result,
            int((time.monotonic() - began_s) * 1000),
            gone=status == 410,
            retry_after_ms=read_retry_after(headers.get("retry-after"), self._store.clock.now_ms()),
        )
        self._report(letter, reply)
        return reply

    def _report(self, letter: Letter, reply: Reply) -> None:
        _log.info(
            "WEBHOOK_SENT webhook=%s delivery=%s type=%s attempt=%d result=%s ms=%d",
            *(letter.webhook, letter.id, letter.kind, letter.attempt, reply.result, reply.took_ms),
        )
        if reply.gone:
            _log.warning("WEBHOOK_DISABLED webhook=%s its endpoint answered 410", letter.webhook)

    async def _send(self, letter: Letter) -> tuple[int, Mapping[str, str]]:
        """Send a letter to the first address that takes a connection."""
        import httpx  # slow to import, and not needed before there is something to send

        target = egress.read_url(letter.url, self._policy)
        addresses = await egress.locate(target, self._policy, self._resolver)
        body = letter.payload.encode()
        headers = sign(letter, self._store.clock.now_ms()) | {"Host": target.authority}
        trust = await self._trusted()
        *others, last = addresses[:_MAX_ADDRESSES]
        for address in others:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await _post(target, address, headers, body, trust)
        return await _post(target, last, headers, body, trust)

    async def _trusted(self) -> ssl.SSLContext:
        if self._trust is None:
            import httpx

            # Reads a large file; SSL_CERT_FILE of the environment names an authority of one's own.
            self._trust = await anyio.to_thread.run_sync(httpx.create_ssl_context)
        return self._trust


async def _post(
    target: Target, address: str, headers: dict[str, str], body: bytes, trust: ssl.SSLContext
) -> tuple[int, Mapping[str, str]]:
    import httpx

    url = httpx.URL(scheme=target.scheme, host=address, port=target.port, raw_path=target.path.encode())
    extensions = {
        "sni_hostname": target.host,
        "timeout": httpx.Timeout(None, connect=_CONNECT_S).as_dict(),
    }
    request = httpx.Request("POST", url, headers=headers, content=body, extensions=extensions)
    # The bare transport: a client would heed proxies of the environment and write URLs, which may bear
    # secrets, to its log. One for each letter: a pool would hand a host the connection of another one at
    # the same address.
    async with httpx.AsyncHTTPTransport(verify=trust, trust_env=False) as transport:
        response = await transport.handle_async_request(request)
        try:
            await _drain(response)
        finally:
            await response.aclose()
    return response.status_code, response.headers


async def _drain(response: httpx.Response) -> None:
    taken = 0
    # Its status is known and counts; what goes wrong from here on does not.
    with anyio.move_on_after(_BODY_S), suppress(Exception):
        async for chunk in response.aiter_raw(MAX_BODY):
            taken += len(chunk)
            if taken >= MAX_BODY:
                return


def sign(letter: Letter, now_ms: int) -> dict[str, str]:
    """Return all headers of an attempt but ``Host``: nothing in them is anybody's to choose."""
    at = datetime.fromtimestamp(now_ms // 1000, UTC)
    return {
        "Content-Type": "application/json",
        "User-Agent": "bulkops",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "webhook-id": letter.id,
        "webhook-timestamp": str(now_ms // 1000),
        "webhook-signature": Webhook(letter.secret).sign(letter.id, at, letter.payload),
    }


def _class_of(status: int) -> Result:
    classes: dict[int, Result] = {2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}
    return classes.get(status // 100, "unreachable")


def read_retry_after(value: str | None, now_ms: int) -> int:
    """Read a ``Retry-After`` (RFC 9110, 10.2.3: seconds or a date) as milliseconds from now; 0 without one."""
    if value is None:
        return 0
    if value.isascii() and value.isdigit():
        return int(value[:9]) * 1000
    from email.utils import parsedate_to_datetime  # slow to import, and dates are rare

    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0
    return max(0, int(at.timestamp() * 1000) - now_ms)
