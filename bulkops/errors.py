"""The error tree. What comes in: a mistake or a fault; what goes out: a class a caller can react to.

::

    BulkopsError
    ├── ConfigError          the configuration is wrong: start refuses, naming file and key
    ├── StartRefused         the process must not start (lock held, database foreign, newer, damaged)
    ├── Refusal              a request is answered with a problem document (RFC 9457)
    ├── ItemRefused          one item cannot be acted on; it fails or is skipped, the rest goes on
    ├── Halt                 the job cannot go on now: it is paused with a reason
    │   └── Transient        worth trying again first (busy, a hiccup of the disk)
    └── JobFailed            the job itself can never go on: it ends `failed`

Every class carries a stable ``code`` of the wire; messages are lower-case sentences.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

#: code → (HTTP status, title). The order is that of the documentation.
REFUSALS: Final[dict[str, tuple[int, str]]] = {
    "INVALID_JSON": (400, "The body is not acceptable JSON"),
    "UNAUTHENTICATED": (401, "A credential is needed"),
    "FORBIDDEN": (403, "Not allowed"),
    "NOT_FOUND": (404, "Not found"),
    "METHOD_NOT_ALLOWED": (405, "Method not allowed"),
    "NOT_ACCEPTABLE": (406, "Not acceptable"),
    "ILLEGAL_TRANSITION": (409, "The job's status does not allow this"),
    "JOB_ACTIVE": (409, "Another job is active"),
    "COUNT_CHANGED": (409, "The number of matching items has changed"),
    "EXPIRED": (410, "Expired"),
    "UNDO_EXPIRED": (410, "The time to undo is over"),
    "TOO_LARGE": (413, "Too large"),
    "UNSUPPORTED_MEDIA_TYPE": (415, "Unsupported media type"),
    "RANGE_NOT_SATISFIABLE": (416, "Nothing of the file is in that range"),
    "WRONG_HOST": (421, "Wrong host"),
    "INVALID_FIELD": (422, "A field is not valid"),
    "EMPTY_SELECTION": (422, "Nothing is selected"),
    "TOO_MANY_ITEMS": (422, "Too many items"),
    "IDEMPOTENCY_MISMATCH": (422, "The Idempotency-Key was used for another request"),
    "CONFIRMATION_REQUIRED": (428, "Confirmation required"),
    "RATE_LIMITED": (429, "Too many requests"),
    "HEADERS_TOO_LARGE": (431, "Headers too large"),
    "INTERNAL": (500, "Internal error"),
    "DRAINING": (503, "Shutting down"),
    "QUEUE_FULL": (503, "The queue is full"),
    "STORAGE_FULL": (507, "Storage is full"),
}


class BulkopsError(Exception):
    """Root of everything this package raises on purpose."""

    code = "INTERNAL"


class ConfigError(BulkopsError):
    """The configuration is wrong.

    ``where`` names the place: ``bulkops.toml: resources.receipts.soft_delete``.
    """

    code = "config"

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where
        self.message = message


class StartRefused(BulkopsError):
    """The process must not start; ``code`` is one of the sidecar's ``fatal`` codes."""

    def __init__(self, code: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.extra = extra


class Refusal(BulkopsError):
    """A request is refused; ``extra`` becomes members of the problem document, ``headers`` go along."""

    def __init__(
        self, code: str, detail: str, *, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status, self.title = REFUSALS[code]
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


def invalid_field(pointer: str, detail: str, *, code: str = "INVALID_FIELD") -> Refusal:
    """Build the 422 that names one field by JSON pointer (RFC 6901)."""
    return Refusal(code, f"{pointer or '/'}: {detail}", errors=[{"pointer": pointer, "detail": detail}])


class ItemRefused(BulkopsError):
    """One item cannot be acted on; ``outcome`` is ``failed`` or ``skipped``."""

    def __init__(self, outcome: str, code: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.code = code
        self.message = message


class Halt(BulkopsError):
    """The job cannot go on now: it is paused with ``code`` as its ``status_reason`` of the wire.

    ``untouched`` says that nothing of the batch in hand was done, for certain; else recovery has to find out.
    """

    untouched = False

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Transient(Halt):
    """A fault worth trying again with back-off before the job is paused with ``code``."""


class JobFailed(BulkopsError):
    """The job itself can never go on: it ends ``failed`` with this code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "receipts"?`` for the nearest known name, nothing when none is near."""
    from difflib import get_close_matches  # late: only mistakes need it

    by_fold = {other.casefold(): other for other in known}
    near = get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.6)
    return f'; did you mean "{by_fold[near[0]]}"?' if near else ""
