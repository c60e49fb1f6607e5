"""`python -m tests.benchmarks`: measures every row and prints the table, the ratio first.

Each row runs in a process and a folder of its own, so that no row pays for another's memory or files.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.benchmarks.measuring import FULL, QUICK, Benchmark, Finding, Skipped
from tests.benchmarks.rows import BENCHMARKS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=sorted(BENCHMARKS), help="measure this one; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="smaller tables, one run each: a rough picture")
    parser.add_argument("--dir", type=Path, help="where to work; a disk, not a memory file system")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    return parser.parse_args()


class Line(msgspec.Struct, frozen=True):
    """What a row's process hands back."""

    found: list[Finding]
    skipped: list[Skipped]


def _measure_here(benchmark: Benchmark, arguments: argparse.Namespace) -> Line:
    with tempfile.TemporaryDirectory(prefix="bulkops-benchmark-", dir=arguments.dir) as folder:
        found = benchmark.measure(Path(folder), QUICK if arguments.quick else FULL)
    return Line(
        [each for each in found if isinstance(each, Finding)],
        [each for each in found if isinstance(each, Skipped)],
    )


def _measure_apart(name: str, arguments: argparse.Namespace) -> Line:
    command = [sys.executable, "-m", "tests.benchmarks", "--alone", name]
    command += ["--quick"] if arguments.quick else []
    command += ["--dir", str(arguments.dir)] if arguments.dir else []
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if ran.returncode:
        return Line([], [Skipped(name, f"it broke, exit {ran.returncode}")])
    return msgspec.json.decode(ran.stdout, type=Line)


def _show(line: Line) -> None:
    for found in line.found:
        goal = f"{'≤' if found.sense == '<=' else '≥'} {found.goal:g}"
        mark = "met" if found.met else "MISSED"
        print(f"{found.value:10.3g} {found.unit:4} {goal:>8}  {mark:7} {found.what}")
        notes = "; ".join(
            note for note in (found.baseline and f"baseline {found.baseline}", found.detail) if note
        )
        if notes:
            print(f"{'':34}{notes}")
    for skipped in line.skipped:
        print(f"{'-':>10} {'':4} {'':>8}  {'skipped':7} {skipped.what}: {skipped.reason}")
    sys.stdout.flush()


def main() -> None:
    """Measure what was asked for."""
    arguments = _arguments()
    if arguments.alone:
        line = _measure_here(BENCHMARKS[arguments.alone], arguments)
        sys.stdout.write(msgspec.json.encode(line).decode())
        return
    print(f"{'measured':>10} {'':4} {'goal':>8}  {'':7} what")
    for name in arguments.only or BENCHMARKS:
        _show(_measure_apart(name, arguments))


if __name__ == "__main__":
    main()
