"""Which resource, for whom: unknown and invisible are the same, and an unreachable database says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bulkops.errors import Halt, Refusal
from bulkops.resources.target import DeadlineError
from bulkops.runtime import Runtime
from bulkops.service.access import Access, reaching, require_action
from tests.engine_house import OWNER, make_database, opened
from tests.store_house import a_caller

RESOURCES = {
    "tenanted": {"table": "t", "id": "id", "tenant": "who", "actions": {"delete": {"roles": ["admin"]}}},
    "shared": {"table": "t", "id": "id", "shared": True},
    "house": {"table": "t", "id": "id"},
    "later": {"table": "t", "id": "id", "database": "later.db"},
}


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    make_database(tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, who TEXT)")
    async with opened(tmp_path, RESOURCES) as running:
        yield running


@pytest.fixture
def access(runtime: Runtime) -> Access:
    return Access(runtime.estate.resources)


async def refusal(access: Access, *asked: Any) -> Refusal:
    with pytest.raises(Refusal) as raised:
        await access.grant(*asked)
    return raised.value


async def test_a_tenant_sees_the_tenanted_and_the_shared(access: Access) -> None:
    bob = a_caller("bob", "viewer", tenant="b")
    assert [resource.name for resource in await access.visible(bob)] == ["shared", "tenanted"]
    assert [resource.name for resource in await access.visible(OWNER)] == ["house", "shared", "tenanted"]
    assert await access.visible(a_caller("x", "service")) == []


async def test_unknown_and_invisible_have_the_same_words(access: Access) -> None:
    bob = a_caller("bob", "owner", tenant="b")
    unknown = await refusal(access, bob, "nothing")
    invisible = await refusal(access, bob, "house")
    assert (unknown.code, unknown.detail, unknown.extra) == (
        invisible.code,
        invisible.detail,
        invisible.extra,
    )


async def test_only_who_has_no_tenant_names_one_and_only_where_rows_have_some(access: Access) -> None:
    assert (await access.grant(OWNER, "tenanted", "b")).tenant == "b"
    assert (await access.grant(OWNER, "tenanted")).tenant is None
    bob = a_caller("bob", "owner", tenant="b")
    assert (await access.grant(bob, "tenanted")).tenant == "b"
    assert (await refusal(access, bob, "tenanted", "b")).code == "INVALID_FIELD"
    assert (await refusal(access, OWNER, "house", "b")).code == "INVALID_FIELD"


async def test_a_database_that_comes_later_is_unreachable_until_then(access: Access, tmp_path: Path) -> None:
    refused = await refusal(access, OWNER, "later")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    make_database(tmp_path / "later.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    assert (await access.grant(OWNER, "later")).resource.name == "later"


@pytest.mark.parametrize("error", [Halt("TARGET_LOCKED", "/secret/path is locked"), DeadlineError()])
def test_what_keeps_a_request_from_the_database_is_a_503_without_particulars(error: Exception) -> None:
    with pytest.raises(Refusal) as raised, reaching():
        raise error
    assert raised.value.status == 503
    assert "secret" not in raised.value.detail


async def test_an_action_needs_its_role_and_a_final_one_more(access: Access) -> None:
    house = (await access.grant(OWNER, "house")).resource
    tenanted = (await access.grant(OWNER, "tenanted")).resource
    operator, admin = a_caller(role="operator"), a_caller(role="admin")
    require_action(operator, house, "delete", {})
    require_action(admin, house, "delete", {"hard": True})
    require_action(admin, tenanted, "delete", {})
    for caller, resource, options, code in (
        (operator, house, {"hard": True}, "FORBIDDEN"),
        (operator, tenanted, {}, "FORBIDDEN"),
        (a_caller(role="viewer"), house, {}, "FORBIDDEN"),
    ):
        with pytest.raises(Refusal) as raised:
            require_action(caller, resource, "delete", options)
        assert raised.value.code == code
    with pytest.raises(Refusal, match=r"^house has no action 'purge'; it has: .*delete.*export"):
        require_action(OWNER, house, "purge", {})
