"""Words to a host that may not listen: in order, whole, and never holding anybody up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress

from bulkops.sidecar.outlet import Outlet, Speech
from tests.sidecar.host import ROOT


def test_words_come_out_in_order() -> None:
    source, sink = os.pipe()
    speech = Speech(Outlet(sink, name="test"))
    for number in range(3):
        assert speech.say("count", number=number)
    assert speech.flush(5)
    os.close(sink)
    with os.fdopen(source) as lines:
        assert [json.loads(line)["number"] for line in lines] == [0, 1, 2]


def fill(sink: int) -> int:
    """Fill a pipe to the brim; return how many bytes it took."""
    os.set_blocking(sink, False)
    size = 0
    with suppress(BlockingIOError):
        while True:
            size += os.write(sink, b"-" * 4096)
    os.set_blocking(sink, True)
    return size


def test_what_nobody_takes_is_dropped_whole_and_nobody_waits() -> None:
    source, sink = os.pipe()
    full = fill(sink)
    outlet = Outlet(sink, name="test", max_waiting=1000)
    line = b"x" * 99 + b"\n"
    assert [outlet.send(line) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not outlet.flush(0.05)
    received = b""
    while len(received) < full + 10 * len(line):
        received += os.read(source, 65536)
    assert received[full:] == line * 10
    assert outlet.flush(5)
    assert outlet.send(line * 100)  # one alone may be as long as it is
    assert outlet.flush(5)
    assert os.read(source, 65536) == line * 100
    os.close(source)


def test_a_reader_who_is_gone_is_told_of_once() -> None:
    source, sink = os.pipe()
    os.close(source)
    broken = threading.Event()
    outlet = Outlet(sink, name="test", on_broken=broken.set)
    assert outlet.send(b"word\n")
    assert broken.wait(5)
    assert outlet.flush(0)
    assert not outlet.send(b"word\n")
    os.close(sink)


SCRIPT = """
import os, sys
from bulkops.sidecar.outlet import fill_descriptors, take_stdout
fill_descriptors()
speech, prints = take_stdout(lambda: None)
print("a stray print", flush=True)
os.system("echo a child\\\\'s word")
os.write(2, b"a complaint\\n")
speech.say("ready")
assert speech.flush(5)
for _ in range(1000):
    sys.stderr.write("x" * 1000)
sys.stderr.write("\\n")
os._exit(0 if prints.flush(5) else 1)
"""


def test_prints_go_to_stderr_and_only_the_protocol_to_stdout() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == '{"type":"ready"}\n'
    assert done.stderr.startswith("a stray print\na child's word\na complaint\nxxx")


def test_closed_descriptors_become_the_null_device() -> None:
    script = (
        "import os; from bulkops.sidecar.outlet import fill_descriptors as f; f(); os.fstat(0); os.fstat(2)"
    )
    argv = ["sh", "-c", '"$@" 0<&- 2>&-', "sh", sys.executable, "-c", script]
    assert subprocess.run(argv, cwd=ROOT, check=False).returncode == 0
