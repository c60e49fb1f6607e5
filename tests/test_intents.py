"""The announced batch of a job: at most one, durable before its effect."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bulkops.store import intents
from bulkops.store.intents import Intent
from tests.conftest import HandClock
from tests.store_house import a_job, opened_store, stored


async def test_a_job_has_one_intent_until_it_is_closed(tmp_path: Path, clock: HandClock) -> None:
    async with opened_store(tmp_path, clock) as store:
        job = await stored(store, a_job("queued"))
        assert await store.read(lambda c: intents.read(c, job.id)) is None
        for intent in (Intent(1, 0, 5, b"one"), Intent(1, 0, 9, b"\x00two")):
            await store.write(partial(intents.write, job_id=job.id, intent=intent))
            assert await store.read(lambda c: intents.read(c, job.id)) == intent
        await store.write(lambda tx: intents.close(tx, job.id))
        await store.write(lambda tx: intents.close(tx, job.id))
        assert await store.read(lambda c: intents.read(c, job.id)) is None
