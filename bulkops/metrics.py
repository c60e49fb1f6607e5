"""What an operator's monitoring reads: counts in Prometheus' text format, no name of anybody in them.

A census and the state of the process come in, bytes go out. The registry is our own and made for one
answer, so that nothing of a host application's metrics is touched and nothing is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from bulkops.states import Status
from bulkops.store.census import Census

if TYPE_CHECKING:
    from prometheus_client import Metric

_SAMPLES: Final = 10
_SAMPLE_S: Final = 0.002


class Vitals(msgspec.Struct, frozen=True):
    """What the process knows of itself."""

    sockets: int
    loop_lag_s: float
    draining: bool


async def measure_loop_lag_s() -> float:
    """Return by how much the event loop was late, at worst, over some twenty milliseconds."""
    worst_s = 0.0
    for _ in range(_SAMPLES):
        began_s = time.monotonic()
        await asyncio.sleep(_SAMPLE_S)
        worst_s = max(worst_s, time.monotonic() - began_s - _SAMPLE_S)
    return worst_s


def render(census: Census, vitals: Vitals) -> tuple[bytes, str]:
    """Write the metrics; returns the text and its media type."""
    # Slow to import, and asked for by few: not before the first scrape.
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(census, vitals))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collector:
    """Hands one instant's numbers to prometheus-client."""

    def __init__(self, census: Census, vitals: Vitals) -> None:
        self._census = census
        self._vitals = vitals

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        census, vitals = self._census, self._vitals
        labelled = (
            (
                "bulkops_jobs",
                "Jobs on record by status.",
                "status",
                {s.value: 0 for s in Status} | census.jobs,
            ),
            ("bulkops_items", "Items of the jobs on record by outcome.", "outcome", census.items),
            ("bulkops_deletions", "Files in the deletion queue by state.", "state", census.deletions),
            (
                "bulkops_webhook_deliveries",
                "Webhook deliveries not made yet, or given up, by state.",
                "state",
                census.letters,
            ),
        )
        for name, text, label, values in labelled:
            family = GaugeMetricFamily(name, text, labels=[label])
            for value, count in values.items():
                family.add_metric([value], count)
            yield family
        plain = (
            ("bulkops_queue_depth", "Jobs that wait for a worker.", census.waiting),
            ("bulkops_event_log_head", "Sequence number of the newest event.", census.head),
            ("bulkops_event_log_floor", "Sequence number of the oldest event still whole.", census.floor),
            ("bulkops_sockets", "Open WebSocket connections.", vitals.sockets),
            (
                "bulkops_event_loop_lag_seconds",
                "How late the event loop was while being asked.",
                vitals.loop_lag_s,
            ),
            ("bulkops_draining", "1 while the server is shutting down.", int(vitals.draining)),
        )
        for name, text, number in plain:
            yield GaugeMetricFamily(name, text, value=number)
