"""The HTTP client of the command line: requests in, decoded JSON out.

A refusal of the server comes back as the same `Refusal` that the service raises in process, so that its
readers need not know which of the two they talk to. A request that creates something carries an
Idempotency-Key and is repeated with it after a broken connection: one call never makes two jobs.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from bulkops.errors import REFUSALS, BulkopsError, Refusal
from bulkops.timing import back_off_s

if TYPE_CHECKING:
    import httpx

#: How long a server that refuses connections is waited for, and one that may have heard the request.
UNHEARD_S: Final = 2.0
HEARD_S: Final = 60.0
_ANSWER_S: Final = 30.0
_WAIT_S: Final = 25


class NoServer(BulkopsError):
    """Nobody answers at the URL, or what answers is not bulkops."""

    code = "no_server"


class Endpoint(msgspec.Struct, frozen=True):
    """Where a server is and the key that opens it."""

    url: str
    key: str


class Client:
    """Talks to one server; ``locate`` is asked again after a lost connection (it may have moved).

    ``locate`` may raise `NoServer`.
    """

    def __init__(
        self, locate: Callable[[], Endpoint], *, unheard_s: float = UNHEARD_S, heard_s: float = HEARD_S
    ) -> None:
        self._locate = locate
        self._unheard_s = unheard_s
        self._heard_s = heard_s
        self.endpoint = locate()
        self._http = self._connect()

    def close(self) -> None:
        """Close the connections; closing twice is fine."""
        self._http.close()

    def get(self, path: str, params: dict[str, Any] | None = None) -> Any:
        """GET ``path`` and decode the answer.

        Raises:
            Refusal: the server refuses.
            NoServer: nobody answers.

        """
        return self._ask("GET", path, params=params)

    def post(self, path: str, body: Any = None, params: dict[str, Any] | None = None) -> Any:
        """POST a JSON body and decode the answer; raises as `get` does."""
        return self._ask("POST", path, json={} if body is None else body, params=params)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """PATCH ``path`` with a JSON body and decode the answer; raises as `get` does."""
        return self._ask("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE ``path``; raises as `get` does."""
        return self._ask("DELETE", path)

    def create(self, path: str, body: dict[str, Any]) -> Any:
        """POST under one Idempotency-Key until an answer arrives or patience ends.

        A server that refuses connections is given ``unheard_s``; once the request may have been heard,
        and while the server says it is shutting down, ``heard_s``.

        Raises:
            Refusal: the server refuses.
            NoServer: no answer in time; the request may have been heard.

        """
        headers = {"Idempotency-Key": f'"{secrets.token_hex(16)}"'}
        started = time.monotonic()
        patience_s, attempt = self._unheard_s, 0
        while True:
            attempt += 1
            try:
                return self._ask("POST", path, json=body, headers=headers)
            except (_Lost, Refusal) as error:
                pause_s, heard = _pause_before_retry(error, attempt)
                if heard:
                    patience_s = self._heard_s
                if time.monotonic() - started + pause_s > patience_s:
                    raise
            time.sleep(pause_s)
            self._reconnect()

    def upload_ids(self, ids: Iterable[str]) -> Any:
        """Store a long list of ids as a selection: ``{selection_id, count, expires_at}``."""
        lines = (msgspec.json.encode(item) + b"\n" for item in ids)
        return self._ask(
            "POST", "/api/selections", content=lines, headers={"Content-Type": "application/x-ndjson"}
        )

    def poll(self, topic: str, since: str) -> Any:
        """Ask for the events after a cursor; waits up to 25 s for the first one."""
        params = {"topic": topic, "since": since, "wait": _WAIT_S, "limit": 200}
        return self._ask("GET", "/api/events", params=params, timeout=_WAIT_S + _ANSWER_S)

    def reconnect(self) -> None:
        """Look for the server again and drop old connections; one that is not back yet is no error."""
        self._reconnect()

    @contextmanager
    def stream(self, path: str, params: dict[str, Any], *, accept: str = "*/*") -> Iterator[Iterator[bytes]]:
        """Open a streamed answer; yields its bytes as they come. Raises as `get` does."""
        with (
            self._translated(),
            self._http.stream("GET", path, params=params, headers={"Accept": accept}) as answer,
        ):
            if not answer.is_success:
                answer.read()
                raise _refusal(answer)
            yield answer.iter_bytes()

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        with self._translated():
            answer = self._http.request(method, path, **request)
        if not answer.is_success:
            raise _refusal(answer)
        if not answer.content:
            return None
        try:
            return msgspec.json.decode(answer.content)
        except msgspec.DecodeError as error:
            raise NoServer(f"what answers at {self.endpoint.url} is not bulkops: {error}") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import httpx  # late: slow to import

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Lost(f"no server answers at {self.endpoint.url}: {error}", heard=False) from error
        except httpx.TransportError as error:
            detail = str(error) or type(error).__name__
            raise _Lost(f"the connection to {self.endpoint.url} broke: {detail}", heard=True) from error

    def _reconnect(self) -> None:
        self._http.close()
        # Not found: the old address is tried again, where a restarting server usually comes back to.
        with suppress(NoServer):
            self.endpoint = self._locate()
        self._http = self._connect()

    def _connect(self) -> httpx.Client:
        import httpx  # late: slow to import

        try:
            return httpx.Client(
                base_url=self.endpoint.url.rstrip("/"),
                headers={"X-API-Key": self.endpoint.key, "Accept": "application/json"},
                timeout=httpx.Timeout(_ANSWER_S, connect=5),
                # Proxies are for far servers; asking one for our own machine would show it the key.
                trust_env=not is_loopback(self.endpoint.url),
                # A redirect could carry the key to another host.
                follow_redirects=False,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise NoServer(f"{self.endpoint.url!r} cannot be reached: {error}") from error


class _Lost(NoServer):
    """The connection failed; ``heard``: the request may have been received."""

    def __init__(self, message: str, *, heard: bool) -> None:
        super().__init__(message)
        self.heard = heard


def is_loopback(url: str) -> bool:
    """Say whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _pause_before_retry(error: _Lost | Refusal, attempt: int) -> tuple[float, bool]:
    if isinstance(error, _Lost):
        return back_off_s(attempt, base_s=0.2, cap_s=5), error.heard
    if error.code != "DRAINING":
        raise error
    wanted = error.headers.get("retry-after", "")
    return (float(wanted) if wanted.isdigit() else 1.0), True


def _refusal(answer: httpx.Response) -> BulkopsError:
    """Rebuild the server's refusal from its problem document."""
    try:
        problem = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    code = problem.pop("code", None)
    if code not in REFUSALS:
        return NoServer(f"{answer.request.url} answered {answer.status_code}, not in the manner of bulkops")
    detail = str(problem.pop("detail", None) or REFUSALS[code][1])
    extra = {name: value for name, value in problem.items() if name not in {"type", "title", "status"}}
    return Refusal(code, detail, headers={k.lower(): v for k, v in answer.headers.items()}, **extra)
