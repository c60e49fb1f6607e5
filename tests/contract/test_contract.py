"""Every kind of resource keeps the one contract: the suite of `bulkops.testing`, over each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkops.testing import CHECKS, Check, Subject, Unsupported
from tests.contract.mailbox_api import mailbox_api
from tests.contract.subjects import FolderSubject, MailboxSubject, TableSubject
from tests.test_readme import README

TABLES: dict[str, Any] = {
    "soft": {"soft": True, "ledger": "app"},
    "trash": {"soft": False, "ledger": "own"},
    "trash with a ledger": {"soft": False, "ledger": "app"},
    "hard": {"soft": False, "ledger": "own", "hard": True},
    "status": {"soft": True, "ledger": "own", "action": "close"},
}


def readme_module() -> str:
    """Return the README's resource, as a reader would copy it."""
    (found,) = [block for block in README.split("```") if block.startswith("python\n# mailboxes.py")]
    return found.removeprefix("python\n")


@pytest.fixture
def mailboxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailboxSubject]:
    (tmp_path / "mailboxes.py").write_text(readme_module(), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with mailbox_api() as api:
        yield MailboxSubject(tmp_path, api)
    sys.modules.pop("mailboxes", None)


async def run(check: Check, subject: Subject) -> None:
    try:
        await check(subject)
    except Unsupported as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", TABLES)
async def test_a_table_keeps_the_contract(kind: str, check: Check, tmp_path: Path) -> None:
    await run(check, TableSubject(tmp_path, **TABLES[kind]))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("hard", [False, True], ids=["trash", "hard"])
async def test_a_folder_keeps_the_contract(check: Check, tmp_path: Path, *, hard: bool) -> None:
    subject = FolderSubject(tmp_path, hard=hard)
    try:
        await run(check, subject)
    finally:
        subject.mend()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_readme_s_mailboxes_keep_the_contract(check: Check, mailboxes: MailboxSubject) -> None:
    await run(check, mailboxes)
