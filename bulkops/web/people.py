"""The routes of people: who am I, the page's session, API keys, tokens.

A judged `Call` comes in, a response goes out. A secret goes out once, in the answer that makes it; nobody
hands out more than they hold, nor to another tenant.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from bulkops.errors import Refusal, invalid_field
from bulkops.models import Caller, KeyBody, NoBody, SessionBody, TokenBody
from bulkops.operations import RANKS, ROLES, has_role, rank
from bulkops.service.pages import read_token, write_token
from bulkops.store import audit, credentials
from bulkops.store.credentials import CredentialRow
from bulkops.store.transaction import Tx
from bulkops.timing import rfc3339
from bulkops.web import answers, authentication, queries
from bulkops.web.routing import Answer, Call, Operation, json_answer

_MAX_NAME: Final = 200
_MAX_KEY_TTL_S: Final = 10 * 366 * 86400


async def me(call: Call) -> Response:
    """`GET /api/me`."""
    return json_answer(_me(call.caller))


def _me(caller: Caller) -> answers.Me:
    return answers.Me(caller.user, caller.tenant, sorted(caller.roles), rfc3339(caller.expires_ms))


async def start_session(call: Call) -> Response:
    """`POST /api/session`: trade a key, or the code of a one-time link, for the page's cookie."""
    body: SessionBody = call.body
    if (body.key is None) == (body.code is None):
        raise invalid_field("", "exactly one of key and code is needed")
    keeper = call.runtime.credentials
    if body.key is not None:
        caller = await keeper.verify(body.key)
        session = None if caller is None else await keeper.start_session(caller)
    else:
        session = await keeper.redeem_login(body.code or "")
    if session is None:
        raise call.door.authenticator.failed(call.request.scope)
    caller, cookie = session
    await call.runtime.store.write(lambda tx: _note(tx, caller, "session_started", {}))
    headers = {"Set-Cookie": authentication.set_cookie(call.request.scope, cookie)}
    return json_answer(_me(caller), headers=headers)


async def end_session(call: Call) -> Response:
    """`DELETE /api/session`: end the session of the cookie, and what came from it."""
    cookie = authentication.session_cookie(call.request.scope)
    if cookie is not None:
        session = await call.runtime.credentials.verify_session(cookie)
        if session is not None and session.credential is not None:
            await call.runtime.credentials.revoke(session.credential)
    headers = {"Set-Cookie": authentication.set_cookie(call.request.scope, "", max_age_s=0)}
    return Response(None, 204, headers)


async def list_keys(call: Call) -> Response:
    """`GET /api/keys`."""
    query: queries.PageQuery = call.query
    before = read_token(query.page, "keys", tuple[str])
    rows = await call.runtime.store.read(
        lambda connection: credentials.list_keys(
            connection, tenant=call.caller.tenant, before=before[0] if before else None, limit=query.limit + 1
        )
    )
    shown = rows[: query.limit]
    following = write_token("keys", shown[-1].id) if len(rows) > query.limit else None
    return json_answer(answers.KeyPage([key_view(row) for row in shown], following))


def key_view(row: CredentialRow) -> answers.Key:
    """Shape a key for the wire, without its secret."""
    return answers.Key(
        id=row.id,
        name=row.name,
        user=row.user,
        tenant=row.tenant,
        role=max(row.roles, key=lambda role: RANKS.get(role, 0), default=""),
        roles=row.roles,
        created_at=rfc3339(row.created_ms) or "",
        expires_at=rfc3339(row.expires_ms),
        used_at=rfc3339(row.used_ms),
        revoked_at=rfc3339(row.revoked_ms),
    )


async def create_key(call: Call) -> Response:
    """`POST /api/keys`."""
    body: KeyBody = call.body
    role = check_key(call.caller, body)
    tenant = _tenant_for(call.caller, body.tenant)

    def work(tx: Tx) -> tuple[CredentialRow, str]:
        row, secret = credentials.create_key(
            tx, user=body.user, role=role, tenant=tenant, name=body.name, ttl_s=body.ttl_s
        )
        _note(tx, call.caller, "key_created", {"key": row.id, "role": role}, tenant=tenant)
        return row, secret

    row, secret = await call.runtime.store.write(work)
    made = {**_members(key_view(row)), "key": secret}
    return json_answer(made, 201)


def _members(key: answers.Key) -> dict[str, Any]:
    return {name: getattr(key, name) for name in key.__struct_fields__}


def check_key(caller: Caller, body: KeyBody) -> str:
    """Judge the wish for a key: its fields, and that the caller gives no more than they hold; returns its role.

    Raises:
        Refusal: (``INVALID_FIELD``) a field is empty, too long or unknown.
        Refusal: (``FORBIDDEN``) the role is above the caller's own; ``service`` is an owner's to give, for
            it mints tokens of every role.

    """
    _check_text("/user", body.user)
    _check_text("/name", body.name)
    _check_text("/tenant", body.tenant)
    role = _one_role(body)
    if body.ttl_s is not None and not 1 <= body.ttl_s <= _MAX_KEY_TTL_S:
        raise invalid_field("/ttl_s", f"must be between 1 and {_MAX_KEY_TTL_S}")
    if not _may_give(caller, [role]):
        raise Refusal("FORBIDDEN", "nobody gives a role above their own")
    return role


def _one_role(body: KeyBody) -> str:
    given = [each for each in (body.role, *(body.roles or [])) if each is not None]
    if len(given) != 1:
        raise invalid_field("/role", f"one of {', '.join(sorted(ROLES))} is needed: each has all below it")
    if given[0] not in ROLES:
        pointer = "/roles/0" if body.role is None else "/role"
        raise invalid_field(pointer, f"must be one of {', '.join(sorted(ROLES))}")
    return given[0]


def _may_give(caller: Caller, roles: list[str]) -> bool:
    if has_role(caller, "owner"):
        return True
    return all(role in RANKS and RANKS[role] <= rank(caller) for role in roles)


def _check_text(pointer: str, text: str | None) -> None:
    if text is None:
        return
    if not text.strip() or len(text) > _MAX_NAME or not text.isprintable():
        raise invalid_field(pointer, f"must be 1 to {_MAX_NAME} printable characters")


def _tenant_for(caller: Caller, asked: str | None) -> str | None:
    """Say whose a new credential is: one bound to a tenant gives for that tenant only."""
    if caller.tenant is None:
        return asked
    if asked not in {None, caller.tenant}:
        raise Refusal("FORBIDDEN", "this credential is bound to another tenant")
    return caller.tenant


async def revoke_key(call: Call) -> Response:
    """`DELETE /api/keys/{key}`; revoking twice is fine."""
    key = call.path["key"]
    row = await call.runtime.store.read(lambda connection: credentials.get(connection, key))
    if row is None or not row.is_listed or call.caller.tenant not in {None, row.tenant}:
        raise Refusal("NOT_FOUND", "")
    if not _may_give(call.caller, row.roles):
        raise Refusal("FORBIDDEN", "nobody takes a role above their own")
    tenant = row.tenant

    def work(tx: Tx) -> frozenset[str]:
        ended = credentials.revoke(tx, key)
        if ended:
            _note(tx, call.caller, "key_revoked", {"key": key, "ended": len(ended)}, tenant=tenant)
        return ended

    call.runtime.credentials.forget(await call.runtime.store.write(work))
    return Response(None, 204)


async def create_token(call: Call) -> Response:
    """`POST /api/tokens`: a back end hands one of its users a short-lived credential."""
    body: TokenBody = call.body
    check_token(body)
    tenant = _tenant_for(call.caller, body.tenant)

    def work(tx: Tx) -> tuple[CredentialRow, str]:
        row, secret = credentials.create(
            tx,
            kind="token",
            user=body.user,
            tenant=tenant,
            roles=body.roles,
            parent=call.caller.credential,
            expires_ms=tx.now_ms + body.ttl_s * 1000,
        )
        detail = {"token": row.id, "roles": row.roles, "for": body.user}
        _note(tx, call.caller, "token_created", detail, tenant=tenant)
        return row, secret

    row, secret = await call.runtime.store.write(work)
    expires_at = rfc3339(row.expires_ms) or ""
    return json_answer(answers.Token(secret, row.user, row.tenant, row.roles, expires_at), 201)


def check_token(body: TokenBody) -> None:
    """Judge the wish for a token.

    Raises:
        Refusal: (``INVALID_FIELD``) a role is not one of the four, or it would live longer than a day.

    """
    _check_text("/user", body.user)
    _check_text("/tenant", body.tenant)
    if not body.roles:
        raise invalid_field("/roles", "at least one role is needed")
    for place, role in enumerate(body.roles):
        if role not in RANKS:
            raise invalid_field(f"/roles/{place}", f"must be one of {', '.join(RANKS)}")
    if not 1 <= body.ttl_s <= credentials.MAX_TOKEN_TTL_S:
        raise invalid_field("/ttl_s", f"must be between 1 and {credentials.MAX_TOKEN_TTL_S}")


def _note(tx: Tx, caller: Caller, verb: str, detail: dict[str, Any], *, tenant: str | None = None) -> None:
    about = {**detail, "credential": caller.credential}
    whose = tenant if caller.tenant is None else caller.tenant
    audit.append(tx, user=caller.user, tenant=whose, verb=verb, detail=about)


OPERATIONS: Final = (
    Operation(
        name="getMe",
        method="GET",
        path="/api/me",
        role="caller",
        summary="Say who is asking",
        handler=me,
        tag="people",
        answers={200: Answer("the caller", answers.Me)},
    ),
    Operation(
        name="startSession",
        method="POST",
        path="/api/session",
        role="public",
        summary="Trade a key, or the code of a one-time link, for the page's cookie",
        handler=start_session,
        tag="people",
        body=SessionBody,
        answers={200: Answer("the caller", answers.Me, headers=("Set-Cookie",))},
        refusals=("UNAUTHENTICATED", "RATE_LIMITED"),
    ),
    Operation(
        name="endSession",
        method="DELETE",
        path="/api/session",
        role="caller",
        summary="End the page's session",
        handler=end_session,
        tag="people",
        body=NoBody,
        body_optional=True,
        answers={204: Answer("ended", headers=("Set-Cookie",))},
    ),
    Operation(
        name="listKeys",
        method="GET",
        path="/api/keys",
        role="admin",
        summary="List API keys, without their secrets",
        handler=list_keys,
        tag="people",
        query=queries.PageQuery,
        answers={200: Answer("a page of keys", answers.KeyPage)},
    ),
    Operation(
        name="createKey",
        method="POST",
        path="/api/keys",
        role="admin",
        summary="Make an API key; its secret is shown once",
        handler=create_key,
        tag="people",
        body=KeyBody,
        answers={201: Answer("the key", answers.NewKey)},
    ),
    Operation(
        name="revokeKey",
        method="DELETE",
        path="/api/keys/{key}",
        role="admin",
        summary="Revoke an API key and all that came from it",
        handler=revoke_key,
        tag="people",
        body=NoBody,
        body_optional=True,
        answers={204: Answer("revoked")},
        refusals=("NOT_FOUND",),
    ),
    Operation(
        name="createToken",
        method="POST",
        path="/api/tokens",
        role="service",
        summary="Make a short-lived token for one user of a host application",
        handler=create_token,
        tag="people",
        body=TokenBody,
        answers={201: Answer("the token", answers.Token)},
    ),
)
