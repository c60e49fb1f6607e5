"""Exit codes of the command: what a shell or cron goes by."""

from __future__ import annotations

from typing import Any, Final

OK: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
PARTIAL: Final = 3
FAILED: Final = 4
CANCELLED: Final = 5
NO_SERVER: Final = 6
INTERRUPTED: Final = 130


def of_job(job: dict[str, Any]) -> int:
    """Return the exit code that a finished job stands for; 0 for one that goes on."""
    if job["status"] == "cancelled":
        return CANCELLED
    if job["status"] == "failed":
        return FAILED
    return {"ok": OK, "partial": PARTIAL, "none": FAILED, None: OK}[job["outcome"]]
