"""One open write transaction on our database, and what has to be rung once it is durable.

Writers take it first. It lives in the writer's thread for the length of one function.
"""

from __future__ import annotations

import sqlite3

import msgspec


class Commit(msgspec.Struct, frozen=True):
    """What a commit changed that somebody may be waiting for; it carries no payload."""

    head: int | None
    jobs: frozenset[str]
    line: bool
    deletions: bool
    letters: bool = False
    schedules: bool = False


class Tx:
    """A write transaction: the connection, the instant it stands for, and the bells it will ring."""

    def __init__(self, connection: sqlite3.Connection, now_ms: int) -> None:
        self.connection = connection
        self.now_ms = now_ms
        self._head: int | None = None
        self._jobs: set[str] = set()
        self._line = False
        self._deletions = False
        self._letters = False
        self._schedules = False

    def ring(
        self,
        *,
        job: str | None = None,
        head: int | None = None,
        line: bool = False,
        deletions: bool = False,
        letters: bool = False,
        schedules: bool = False,
    ) -> None:
        """Note what this changed: a job, the log's head, the line of jobs, files or letters to go, schedules."""
        if job is not None:
            self._jobs.add(job)
        if head is not None:
            self._head = head
        self._line = self._line or line
        self._deletions = self._deletions or deletions
        self._letters = self._letters or letters
        self._schedules = self._schedules or schedules

    def commit(self) -> Commit:
        """Return what to ring after the commit."""
        return Commit(
            self._head, frozenset(self._jobs), self._line, self._deletions, self._letters, self._schedules
        )
