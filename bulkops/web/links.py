"""Paths in answers, made whole: the service knows no mount prefix, clients need it."""

from __future__ import annotations

from typing import Any

from bulkops.models import JobView
from bulkops.service.views import with_prefix


def prefixed(value: Any, root_path: str) -> Any:
    """Return ``value`` (a job, or a page of jobs) with ``root_path`` before its paths; anything else as it is.

    The values of people's rows are never looked at.
    """
    if isinstance(value, JobView):
        return with_prefix(value, root_path)
    if root_path and isinstance(value, dict) and "items" in value:
        return {**value, "items": [prefixed(each, root_path) for each in value["items"]]}
    return value
