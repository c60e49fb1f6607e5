"""How a follower hears of a job: over a WebSocket, else server-sent events, else polling, as browsers do.

What comes in: a client, a job and a cursor; what goes out: pages in the shape of a poll's answer, of which
nothing is missing and nothing comes twice. Nothing here shows or judges a job.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bulkops.cli.desk import job_path
from bulkops.client import Client, NoServer, is_loopback
from bulkops.errors import Refusal

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

#: The server pings at least every 20 s; who hears nothing for longer has a dead connection.
_SILENCE_S: Final = 25.0
_STABLE_S: Final = 5.0
_SOCKET_AGAIN_S: Final = 60.0
_MAX_FAILURES: Final = 3
_OPEN_S: Final = 5.0
_MAX_FRAME: Final = 1 << 20

Page = dict[str, Any]
Pages = Generator[Page, None, None]
Way = Callable[[Client, str, Callable[[], str]], Pages]


class Broken(NoServer):
    """A connection was lost; ``wait_s`` is the pause its server asked for, ``for_good``: do not try this way again.

    ``away`` is false where something still answers, only not in this way.
    """

    def __init__(
        self, message: str, *, wait_s: float | None = None, for_good: bool = False, away: bool = True
    ) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        self.for_good = for_good
        self.away = away


class Line:
    """What is heard of a job, over whichever way works; begins with the first of ``ways``."""

    def __init__(self, client: Client, job: str, ways: Sequence[Way]) -> None:
        self._client = client
        self._job = job
        self._ways = ways
        self._level = 0
        self._pages: Pages | None = None
        self._since = ""
        self._heard_at: float | None = None
        self._again_at = 0.0
        self._failures = 0
        self._tries = 0

    def hear(self, since: str) -> Page:
        """Wait for the next page after ``since``; its ``items`` are empty when it is only a sign of life.

        Raises:
            Refusal, NoServer: this way does not work (now); `lost` says how long to wait.

        """
        self._since = since
        if self._level and time.monotonic() >= self._again_at:
            self._try_socket()
        if self._pages is None:
            self._pages = self._open(self._level)
        page = next(self._pages, None)
        if page is None:
            raise Broken("the connection ended")
        self._heard_at = self._heard_at or time.monotonic()
        return self._ours(page)

    def lost(self, error: Exception) -> float:
        """Note that hearing failed; return how many seconds to wait before the next try."""
        stood = self._heard_at is not None and time.monotonic() - self._heard_at >= _STABLE_S
        self.close()
        if stood:
            self._failures = self._tries = 0
        else:
            self._failures += 1
        for_good = isinstance(error, Broken) and error.for_good
        if (for_good or self._failures >= _MAX_FAILURES) and self._level + 1 < len(self._ways):
            self._level, self._failures = self._level + 1, 0
            self._again_at = time.monotonic() + _SOCKET_AGAIN_S
        self._tries += 1
        wait_s = error.wait_s if isinstance(error, Broken) else None
        return back_off_s(self._tries - 1) if wait_s is None else wait_s * random.uniform(0.75, 1.25)  # noqa: S311  no secret

    def close(self) -> None:
        """Hang up; closing twice is fine."""
        if self._pages is not None:
            self._pages.close()
        self._pages = self._heard_at = None

    def _open(self, level: int) -> Pages:
        return self._ways[level](self._client, self._job, lambda: self._since)

    def _try_socket(self) -> None:
        """Change over to the socket if it works again; the old way goes on if not."""
        self._again_at = time.monotonic() + _SOCKET_AGAIN_S
        pages = self._open(0)
        try:
            next(pages)
        except (NoServer, Refusal, StopIteration):
            return
        self.close()
        self._pages, self._level, self._failures = pages, 0, 0

    def _ours(self, page: Page) -> Page:
        """Apply the client's rule: a gap is closed by asking again, what is known already is left out."""
        if "reset" in page:
            self.close()
            return page
        epoch, mine = _place(self._since)
        prev_epoch, prev = _place(page["prev"])
        if prev_epoch != epoch or prev > mine:
            self.close()
            return {"cursor": self._since, "items": []}
        items = [item for item in page["items"] if item["seq"] > mine]
        return {"cursor": page["cursor"] if _place(page["cursor"])[1] > mine else self._since, "items": items}


def _place(cursor: str) -> tuple[str, int]:
    epoch, _, seq = cursor.partition(":")
    return epoch, int(seq)


def back_off_s(tries: int) -> float:
    """Say how long to wait after ``tries`` failures in a row (0, 1, …)."""
    return min(20.0, 0.5 + random.uniform(0, min(20.0, 0.5 * 2.0 ** min(tries, 8))))  # noqa: S311  no secret


# -- WebSocket


def by_socket(client: Client, job: str, since: Callable[[], str]) -> Pages:
    """Follow a job over the WebSocket.

    Raises:
        Refusal: the job is not the caller's, or the credential ended.
        Broken: the socket was refused or lost.

    """
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI  # late

    try:
        with _dial(client) as socket:
            yield from _hear_socket(client, socket, job, since())
    except ConnectionClosed as error:
        code = 1006 if error.rcvd is None else error.rcvd.code
        raise _closed(client, job, code) from error
    except (InvalidHandshake, InvalidURI) as error:
        raise Broken(f"no socket at {client.endpoint.url}: {error}", away=False) from error
    except (OSError, EOFError) as error:
        raise Broken(f"the socket to {client.endpoint.url} broke: {error}") from error


def _dial(client: Client) -> AbstractContextManager[ClientConnection]:
    from websockets.sync.client import connect  # late: only who follows needs it
    from websockets.typing import Subprotocol

    url = client.endpoint.url.rstrip("/")
    return connect(
        f"ws{url.removeprefix('http')}/ws",
        subprotocols=[Subprotocol("bulkops.v1")],
        additional_headers={"X-API-Key": client.endpoint.key},
        compression=None,
        open_timeout=_OPEN_S,
        close_timeout=1,
        ping_interval=None,  # the server's own pings tell more
        max_size=_MAX_FRAME,
        proxy=None if is_loopback(url) else True,
        user_agent_header=None,
    )


def _hear_socket(client: Client, socket: ClientConnection, job: str, since: str) -> Pages:
    _tell(socket, {"type": "hello", "id": 1})
    subscribe = {
        "type": "subscribe",
        "id": 2,
        "sub": "a",
        "topic": {"kind": "job", "job": job},
        "since": since,
    }
    while True:
        message: Page = msgspec.json.decode(socket.recv(timeout=_OPEN_S if subscribe else _SILENCE_S))
        match message["type"]:
            case "welcome":
                _tell(socket, subscribe)
                subscribe = {}
            case "subscribed" if not message["recovered"]:
                yield {"reset": message["reason"], "cursor": message["from"]}
            case "subscribed":
                yield _nothing(since)
            case "events":
                yield message
            case "ping":
                _tell(socket, {"type": "pong"})
                yield _nothing(message["subs"]["a"])
            case "reset":
                yield {"reset": message["reason"], "cursor": message["from"]}
            case "error":
                raise Refusal(message["code"], message["message"])
            case "bye":
                raise _closed(client, job, message["code"], wait_ms=message.get("retry_after_ms"))
            case _:
                pass


def _nothing(cursor: str) -> Page:
    return {"prev": cursor, "cursor": cursor, "items": []}


def _tell(socket: ClientConnection, message: Page) -> None:
    socket.send(msgspec.json.encode(message).decode())


def _closed(client: Client, job: str, code: int, *, wait_ms: int | None = None) -> Broken:
    """Judge a close code; a credential that ended is a refusal, which REST words best.

    Raises:
        Refusal: the credential ended.

    """
    if code in {4014, 4501}:
        client.get(job_path(job))
    wait_s = None if wait_ms is None else wait_ms / 1000
    return Broken(f"the socket was closed with {code}", wait_s=wait_s, for_good=not comes_back(code))


def comes_back(code: int) -> bool:
    """Say whether a client shall connect again after this close code."""
    return code not in {1000, 1009} and not 4500 <= code < 5000


# -- server-sent events


def by_stream(client: Client, job: str, since: Callable[[], str]) -> Pages:
    """Follow a job over server-sent events; raises as `Client.stream` does."""
    at = since()
    params = {"topic": f"job:{job}", "since": at}
    with client.stream("/api/events", params, accept="text/event-stream") as chunks:
        for name, data in parse_stream(chunks):
            match name:
                case "ready" if not data["recovered"]:
                    yield {"reset": data["reason"], "cursor": data["head"]}
                case "ready" | "ping" | "end":
                    yield _nothing(at)
                case "reset":
                    yield {"reset": data["reason"], "cursor": data["from"]}
                case "bye":
                    wait_ms = data.get("retry_after_ms", 800)
                    raise Broken(f"the server said goodbye: {data['reason']}", wait_s=wait_ms / 1000)
                case _:
                    epoch, _ = _place(data["prev"])
                    at = f"{epoch}:{data['seq']}"
                    yield {"prev": data["prev"], "cursor": at, "items": [{**data, "kind": name}]}
    yield _nothing(at)


def parse_stream(chunks: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    """Read ``text/event-stream`` as our server writes it: name and decoded data of each event."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n\n")
        for block in whole:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"data" in fields:
                yield fields[b"event"].decode(), msgspec.json.decode(fields[b"data"])


# -- polling


def by_poll(client: Client, job: str, since: Callable[[], str]) -> Pages:
    """Follow a job by long polls; raises as `Client.poll` does."""
    while True:
        at = since()
        yield {"prev": at, **client.poll(f"job:{job}", at)}


WAYS: Final[Sequence[Way]] = (by_socket, by_stream, by_poll)
