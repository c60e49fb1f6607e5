"""The service: everything a caller may ask for, composed of its rooms; the doors hold this one object."""

from __future__ import annotations

from functools import partial
from typing import Any

from bulkops.cleaner import Cleaner
from bulkops.egress import policy_of
from bulkops.house import House
from bulkops.maintenance import Maintenance
from bulkops.models import Caller
from bulkops.service import uploads
from bulkops.service.access import Access
from bulkops.service.artifacts import Artifacts
from bulkops.service.audit import Audit
from bulkops.service.catalog import Catalog
from bulkops.service.cleanups import Cleanups
from bulkops.service.items import Items
from bulkops.service.jobs import Jobs
from bulkops.service.schedules import Schedules
from bulkops.service.starts import Starts
from bulkops.service.tasks import Tasks, TaskStarts
from bulkops.service.verbs import Verbs
from bulkops.service.webhooks import Webhooks
from bulkops.settings import Settings
from bulkops.steadiness import Steadiness
from bulkops.store.store import Store


class Service:
    """Answers for callers; every method raises `Refusal` for what it will not do."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        house: House,
        cleaner: Cleaner,
        maintenance: Maintenance,
        steadiness: Steadiness,
    ) -> None:
        self._access = access = Access(house.resources)
        self._jobs = jobs = Jobs(store, settings, house.progress)
        self._items = items = Items(store)
        tasks = Tasks(store, settings)
        catalog = Catalog(store, settings, access)
        starts = Starts(store, settings, access, house.progress)
        verbs = Verbs(store, settings, access, house.progress, starts, house)
        cleanups = Cleanups(store, cleaner)
        hooks = Webhooks(store, policy_of(settings.server.webhook_hosts, settings.server.port))
        made = Artifacts(store, house.drafts)
        self.artifact = made.artifact
        self.download = made.download
        self.taken = made.taken
        self.catalog = catalog.catalog
        self.info = catalog.info
        self.items = catalog.items
        self.validate = catalog.validate
        self.start = starts.start
        self.pause = verbs.pause
        self.resume = verbs.resume
        self.cancel = verbs.cancel
        self.retry = verbs.retry
        self.undo = verbs.undo
        self.tune = verbs.tune
        self.jobs = jobs.jobs
        self.job = jobs.job
        self.job_items = jobs.job_items
        self.job_errors = jobs.job_errors
        self.job_log = jobs.job_log
        self.report = jobs.report
        self.tasks = tasks.tasks
        self.task = tasks.task
        self.task_start = TaskStarts(access, starts).task_start
        self.trash = items.trash
        self.audit = Audit(store).audit
        self.upload_selection = partial(uploads.upload, store)
        self.cleanup_run = cleanups.cleanup_run
        self.cleanup_stats = cleanups.cleanup_stats
        self.cleanup_items = cleanups.cleanup_items
        self.cleanup_requeue = cleanups.cleanup_requeue
        self.cleanup_drop = cleanups.cleanup_drop
        plans = Schedules(store, settings, starts, maintenance, steadiness)
        self.schedules = plans.schedules
        self.schedule_create = plans.schedule_create
        self.schedule_delete = plans.schedule_delete
        self.schedule_run = plans.schedule_run
        self.fire = plans.fire
        self.declare = plans.declare
        self.webhooks = hooks.webhooks
        self.webhook_create = hooks.webhook_create
        self.webhook_delete = hooks.webhook_delete
        self.webhook_test = hooks.webhook_test
        self.webhook_deliveries = hooks.webhook_deliveries
        self.webhook_resend = hooks.webhook_resend

    async def history(
        self,
        caller: Caller,
        resource: str,
        item: str,
        *,
        tenant: str | None = None,
        limit: int = 50,
        page: str | None = None,
    ) -> dict[str, Any]:
        """List what jobs did with one item of a resource the caller may see.

        Raises:
            Refusal: ``NOT_FOUND``; else see `items.Items.history`.
        """
        self._access.find(caller, resource)
        return await self._items.history(caller, resource, item, tenant=tenant, limit=limit, page=page)

    def release_waiting(self) -> None:
        """Answer all who wait for a job: the house is closing."""
        self._jobs.bells.release()
