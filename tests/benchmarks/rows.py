"""Every benchmark by its name, in the order of the table."""

from __future__ import annotations

from typing import Final

from tests.benchmarks import (
    exports,
    files,
    latency,
    loop_delay,
    memory,
    neighbours,
    python_actions,
    scaling,
    sockets,
    start_up,
    table_jobs,
)
from tests.benchmarks.measuring import Benchmark

BENCHMARKS: Final = {
    each.name: each
    for each in (
        Benchmark("soft", table_jobs.soft),
        Benchmark("auto", table_jobs.auto),
        Benchmark("hard", table_jobs.hard),
        Benchmark("python", python_actions.no_op),
        Benchmark("cost", scaling.cost),
        Benchmark("accept", latency.acceptance),
        Benchmark("small", latency.small_job),
        Benchmark("polite", neighbours.politeness),
        Benchmark("files", files.removal),
        Benchmark("folders", files.folders),
        Benchmark("exports", exports.against_sqlite),
        Benchmark("memory", memory.jobs),
        Benchmark("sockets", sockets.fan_out),
        Benchmark("ready", start_up.ready),
        Benchmark("loop", loop_delay.delay),
    )
}
