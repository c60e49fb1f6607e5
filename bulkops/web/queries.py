"""Query strings, read as strictly as bodies: every parameter is known, stands once and means one thing.

The raw query comes in, a frozen struct goes out, or ``INVALID_FIELD`` with a pointer to the parameter.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec

from bulkops.errors import invalid_field
from bulkops.models import Input, ItemsQuery, JobsQuery
from bulkops.web.strict_json import convert

T = TypeVar("T")

MAX_LIMIT: Final = 1000
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)]
OPERATORS: Final = frozenset({"eq", "ne", "lt", "lte", "gt", "gte", "in", "like", "is_null"})
MAX_WAIT_S: Final = 60
_MAX_PARAMETERS: Final = 100
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


class NoQuery(Input, frozen=True, kw_only=True):
    """No parameter at all."""


class PageQuery(Input, frozen=True, kw_only=True):
    """A page of a list; ``page`` is the ``next`` of the page before."""

    limit: Limit = 50
    page: str | None = None


class CatalogQuery(PageQuery, frozen=True, kw_only=True):
    """A page of the resources, which are few: one holds them all."""

    limit: Limit = MAX_LIMIT


class TenantQuery(PageQuery, frozen=True, kw_only=True):
    """A page of what is one tenant's; callers without a tenant may name one, else they see all."""

    tenant: str | None = None


class WaitQuery(Input, frozen=True, kw_only=True):
    """``wait``: answer when the job ends, at the latest after so many seconds, or after a minute."""

    wait: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0


class RemoveQuery(Input, frozen=True, kw_only=True):
    """What ``DELETE`` of one item may say without a body."""

    confirm: str | None = None
    tenant: str | None = None


class JobItemsQuery(PageQuery, frozen=True, kw_only=True):
    outcome: Literal["succeeded", "failed", "skipped", "unprocessed"] | None = None


class ReportQuery(Input, frozen=True, kw_only=True):
    """``format`` left out means what the client accepts of the two, CSV first."""

    format: Literal["csv", "ndjson"] | None = None
    outcome: Literal["succeeded", "failed", "skipped", "unprocessed"] | None = None


class TasksQuery(TenantQuery, frozen=True, kw_only=True):
    """`show_maintenance` left out means what the settings say."""

    type: str | None = None
    project: str | None = None
    show_maintenance: bool | None = None


class TrashQuery(TenantQuery, frozen=True, kw_only=True):
    q: str | None = None


class CleanupQuery(Input, frozen=True, kw_only=True):
    batch_size: Limit = 100
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3


class DeliveriesQuery(PageQuery, frozen=True, kw_only=True):
    state: Literal["pending", "delivered", "dead"] | None = None


class AuditQuery(TenantQuery, frozen=True, kw_only=True):
    """``format`` asks for the whole list as a file instead of a page; left out it is what the client accepts."""

    job: str | None = None
    format: Literal["json", "ndjson", "csv"] | None = None


def parse(query: bytes, kind: type[T]) -> T:
    """Read a query into ``kind``.

    Raises:
        Refusal: (``INVALID_FIELD``) a parameter is unknown, repeated or not what it should be.

    """
    return _bounded(convert(_once(_pairs(query)), kind, strict=False))


def _bounded(value: T) -> T:
    if not 1 <= getattr(value, "limit", 1) <= MAX_LIMIT:
        raise invalid_field("/limit", f"must be between 1 and {MAX_LIMIT}")
    return value


def parse_jobs(query: bytes) -> JobsQuery:
    """Read the query of a list of jobs; several values of ``status`` are joined by commas, or it is repeated.

    Raises:
        Refusal: (``INVALID_FIELD``) as in `parse`.

    """
    pairs = _pairs(query)
    given = _once([pair for pair in pairs if pair[0] != "status"])
    statuses = [text for name, text in pairs if name == "status"]
    return _bounded(
        convert({**given, **({"status": ",".join(statuses)} if statuses else {})}, JobsQuery, strict=False)
    )


def parse_items(query: bytes) -> ItemsQuery:
    """Read the query of a list of items, whose other parameters are columns: ``status=``, ``created_at.lt=``.

    A column without operator must equal the value, or one of several when it is repeated; ``in`` takes
    values joined by commas, or is repeated. Whether the column may be used, and what the text means in it, the resource
    says. A column whose name is a parameter's is written with its operator: ``limit.eq=``.

    Raises:
        Refusal: (``INVALID_FIELD``) as in `parse`, or an operator stands twice.

    """
    pairs = _pairs(query)
    own = set(ItemsQuery.__struct_fields__) - {"filter"}
    given: dict[str, Any] = _once([pair for pair in pairs if pair[0] in own])
    columns: dict[str, dict[str, Any]] = {}
    for name, text in pairs:
        if name not in own:
            _add_condition(columns, name, text)
    return _bounded(convert({**given, "filter": columns}, ItemsQuery, strict=False))


def _add_condition(columns: dict[str, dict[str, Any]], name: str, text: str) -> None:
    column, dot, operator = name.rpartition(".")
    if not dot or operator not in OPERATORS:
        column, operator = name, "eq"
    conditions = columns.setdefault(column, {})
    plain = name == column
    if plain and operator in conditions:
        conditions["in"] = [conditions.pop("eq"), text]
    elif plain and "in" in conditions:
        conditions["in"].append(text)
    elif operator == "in" and "in" in conditions:
        conditions["in"] += text.split(",")
    elif operator in conditions:
        raise invalid_field(f"/{name}", "stands twice")
    else:
        conditions[operator] = _operand(name, operator, text)


def _operand(name: str, operator: str, text: str) -> Any:
    if operator == "in":
        return text.split(",")
    if operator == "is_null":
        if text not in _TRUTH:
            raise invalid_field(f"/{name}", "must be true or false")
        return _TRUTH[text]
    return text


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError as error:
        raise invalid_field("", "the query cannot be read") from error
    if any("\0" in text for pair in pairs for text in pair):
        raise invalid_field("", "the query holds a NUL")
    return pairs


def _once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, text in pairs:
        if name in found:
            raise invalid_field(f"/{name[:200]}", "stands twice")
        found[name] = text
    return found
