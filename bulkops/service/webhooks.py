"""Webhooks as people make, see and steer them."""

from __future__ import annotations

from typing import Any, Final

from bulkops import egress
from bulkops.egress import AddressRefused, Policy, Resolver
from bulkops.errors import Refusal, invalid_field
from bulkops.models import Caller, WebhookBody
from bulkops.service.access import require
from bulkops.service.pages import Whole, check_limit, page_from, read_token
from bulkops.store import deliveries, webhooks
from bulkops.store.audit import append as audit
from bulkops.store.deliveries import DeliveryRow
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from bulkops.store.webhooks import WebhookRow
from bulkops.timing import rfc3339

_MAX_TEXT: Final = 200


class Webhooks:
    """Makes and shows webhooks; a caller with a tenant has to do with the tenant's only."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self._store = store
        self._policy = policy
        self._resolver = Resolver()

    async def webhooks(
        self, caller: Caller, *, tenant: str | None, limit: int, page: str | None
    ) -> dict[str, Any]:
        """List webhooks, newest first, without their secrets.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, 422 naming the parameter.
        """
        require(caller, "admin")
        check_limit(limit)
        place = read_token(page, "webhooks", tuple[str])
        whose = tenant if caller.tenant is None else caller.tenant
        rows = await self._store.read(
            lambda connection: webhooks.page(
                connection, tenant=whose, before=place[0] if place else None, limit=limit + 1
            )
        )
        return page_from(rows, limit, "webhooks", key=lambda row: (row.id,), view=_view)

    async def webhook_create(self, caller: Caller, body: WebhookBody) -> dict[str, Any]:
        """Make a webhook; its ``secret`` stands in this answer and in no other.

        Raises:
            Refusal: ``FORBIDDEN`` below admin or for another tenant, 422 naming the field.
        """
        require(caller, "admin")
        _check(body)
        tenant = _tenant_for(caller, body.tenant)
        await self._check_url(body.url)

        def work(tx: Tx) -> tuple[WebhookRow, str]:
            if webhooks.count(tx.connection, tenant) >= webhooks.MAX_PER_TENANT:
                raise invalid_field(
                    "", f"there are {webhooks.MAX_PER_TENANT} webhooks already; delete one first"
                )
            row, secret = webhooks.create(
                tx,
                tenant=tenant,
                url=body.url,
                events=body.events,
                description=body.description,
                user=caller.user,
            )
            # The address may bear a secret of its receiver's, so it stays out of the audit.
            _note(tx, caller, "webhook_created", tenant, webhook=row.id, events=row.events)
            return row, secret

        row, secret = await self._store.write(work)
        return {**_view(row), "secret": secret}

    async def _check_url(self, url: str) -> None:
        try:
            target = egress.read_url(url, self._policy)
            await egress.locate(target, self._policy, self._resolver)
        except AddressRefused as refused:
            raise invalid_field("/url", str(refused)) from None

    async def webhook_delete(self, caller: Caller, webhook: str) -> None:
        """Remove a webhook; what waits for it is never sent.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, ``NOT_FOUND``.
        """
        require(caller, "admin")

        def work(tx: Tx) -> None:
            row = _find(tx, caller, webhook)
            webhooks.delete(tx, webhook, tenant=caller.tenant)
            _note(tx, caller, "webhook_deleted", row.tenant, webhook=webhook)

        await self._store.write(work)

    async def webhook_test(self, caller: Caller, webhook: str) -> dict[str, Any]:
        """Put a letter of type ``test`` in the outbox.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, ``NOT_FOUND``, ``ILLEGAL_TRANSITION`` when it is disabled.
        """
        require(caller, "admin")

        def work(tx: Tx) -> DeliveryRow:
            row = _find_active(tx, caller, webhook)
            delivery = deliveries.tell_test(tx, webhook)
            _note(tx, caller, "webhook_tested", row.tenant, webhook=webhook, delivery=delivery)
            return _find_delivery(tx, webhook, delivery)

        return _view_delivery(await self._store.write(work))

    async def webhook_deliveries(
        self, caller: Caller, webhook: str, *, state: str | None, limit: int, page: str | None
    ) -> dict[str, Any]:
        """List the deliveries of a webhook, newest first; ``state`` ``dead`` lists the dead letters.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, ``NOT_FOUND``, 422 naming the parameter.
        """
        require(caller, "admin")
        check_limit(limit)
        place = read_token(page, "deliveries", tuple[Whole])
        before = place[0] if place else None
        found = await self._store.read(
            lambda connection: (
                webhooks.get(connection, webhook, tenant=caller.tenant),
                deliveries.page(connection, webhook, state=state, before=before, limit=limit + 1),
            )
        )
        if found[0] is None:
            raise _unknown()
        return page_from(found[1], limit, "deliveries", key=lambda row: (row.seq,), view=_view_delivery)

    async def webhook_resend(self, caller: Caller, webhook: str, delivery: str) -> dict[str, Any]:
        """Send a dead letter again under its old id, or one that arrived; one that waits stays as it is.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, ``NOT_FOUND``, ``ILLEGAL_TRANSITION`` when the webhook is
                disabled.
        """
        require(caller, "admin")

        def work(tx: Tx) -> DeliveryRow:
            row = _find_active(tx, caller, webhook)
            _find_delivery(tx, webhook, delivery)
            if deliveries.resend(tx, webhook, delivery):
                _note(tx, caller, "webhook_resent", row.tenant, webhook=webhook, delivery=delivery)
            return _find_delivery(tx, webhook, delivery)

        return _view_delivery(await self._store.write(work))


def _check(body: WebhookBody) -> None:
    if not body.events:
        raise invalid_field("/events", f"at least one of {', '.join(webhooks.EVENTS)} is needed")
    for pointer, text in (("/description", body.description), ("/tenant", body.tenant)):
        if text is not None and not (text.strip() and len(text) <= _MAX_TEXT and text.isprintable()):
            raise invalid_field(pointer, f"must be 1 to {_MAX_TEXT} printable characters")


def _tenant_for(caller: Caller, asked: str | None) -> str | None:
    if caller.tenant is not None and asked not in {None, caller.tenant}:
        raise Refusal("FORBIDDEN", "this credential is bound to another tenant")
    return asked if caller.tenant is None else caller.tenant


def _unknown() -> Refusal:
    return Refusal("NOT_FOUND", "")


def _find(tx: Tx, caller: Caller, webhook: str) -> WebhookRow:
    row = webhooks.get(tx.connection, webhook, tenant=caller.tenant)
    if row is None:
        raise _unknown()
    return row


def _find_active(tx: Tx, caller: Caller, webhook: str) -> WebhookRow:
    row = _find(tx, caller, webhook)
    if row.status != "active":
        raise Refusal(
            "ILLEGAL_TRANSITION",
            "the webhook is disabled: its endpoint is gone; make it anew",
            allowed_actions=[],
        )
    return row


def _find_delivery(tx: Tx, webhook: str, delivery: str | None) -> DeliveryRow:
    row = None if delivery is None else deliveries.get(tx.connection, webhook, delivery)
    if row is None:
        raise _unknown()
    return row


def _note(tx: Tx, caller: Caller, verb: str, tenant: str | None, **detail: Any) -> None:
    about = {**detail, "credential": caller.credential}
    audit(tx, user=caller.user, tenant=tenant, verb=verb, detail=about)


def _view(row: WebhookRow) -> dict[str, Any]:
    last = row.last
    return {
        "id": row.id,
        "tenant": row.tenant,
        "url": row.url,
        "events": row.events,
        "description": row.description,
        "status": row.status,
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_ms),
        "last_delivery": None
        if last is None
        else {
            "id": last.id,
            "type": last.type,
            "result": last.result,
            "at": rfc3339(last.at_ms),
            "took_ms": last.took_ms,
        },
    }


def _view_delivery(row: DeliveryRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "type": row.kind,
        "job": row.job,
        "state": row.state,
        "attempts": row.attempts,
        "result": row.result,
        "took_ms": row.took_ms,
        "next_attempt_at": rfc3339(row.not_before_ms) if row.state == "pending" else None,
        "created_at": rfc3339(row.created_ms),
        "updated_at": rfc3339(row.updated_ms),
    }
