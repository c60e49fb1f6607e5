"""Lines from the host: cut where they end, however they come, and read without telling what is in them."""

from __future__ import annotations

import os
import queue
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.errors import StartRefused
from bulkops.sidecar.lines import MAX_LINE, Splitter, StartLine, read_command, read_lines, read_start
from tests.sidecar.host import ORIGINS, TOKEN, start_line


@given(
    st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and not line.endswith(b"\r"))),
    st.binary(max_size=20).filter(lambda line: b"\n" not in line),
    st.lists(st.integers(0, 300), max_size=8),
)
def test_lines_come_out_as_they_went_in_wherever_the_stream_is_cut(
    lines: list[bytes], unfinished: bytes, cuts: list[int]
) -> None:
    stream = b"".join(line + b"\n" for line in lines) + unfinished
    places = sorted({0, *cuts, len(stream)})
    splitter, found = Splitter(), []
    for begin, end in pairwise(places):
        found += splitter.feed(stream[begin:end])
    assert found == lines


@pytest.mark.parametrize("step", [1 << 10, 1 << 16, 1 << 20])
def test_a_line_too_long_comes_once_cut_and_at_once(step: int) -> None:
    stream = b"x" * (3 * MAX_LINE) + b"\nnext\n" + b"y" * (MAX_LINE + 1) + b"\nlast\r\n"
    splitter = Splitter()
    found = [line for at in range(0, len(stream), step) for line in splitter.feed(stream[at : at + step])]
    cut = MAX_LINE + 1
    assert found == [b"x" * cut, b"next", b"y" * cut, b"last"]
    early = Splitter()
    assert early.feed(b"x" * cut) == [b"x" * cut]
    assert early.feed(b"x" * MAX_LINE) == []


def test_a_thread_reads_to_the_end() -> None:
    source, sink = os.pipe()
    heard: queue.Queue[bytes | None] = queue.Queue()
    read_lines(source, heard.put, lambda: heard.put(None))
    os.write(sink, b"one\ntwo")
    assert heard.get(timeout=5) == b"one"
    os.write(sink, b"!\nunfinished")
    os.close(sink)
    assert [heard.get(timeout=5), heard.get(timeout=5)] == [b"two!", None]
    os.close(source)


def test_the_start_line_is_read() -> None:
    start = read_start(start_line(host_pid=7).strip())
    assert (start.token, start.origins, start.host_pid) == (TOKEN, tuple(ORIGINS), 7)
    assert TOKEN not in repr(start) + str(start)
    assert read_start(b'\xef\xbb\xbf{"type":"start"}') == StartLine(token=None, origins=(), host_pid=None)


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr).map(str.encode))
def test_whatever_else_comes_first_is_refused_and_never_crashes(line: bytes) -> None:
    with pytest.raises(StartRefused) as refused:
        read_start(line)
    assert refused.value.code == "bad_start"


@given(st.binary())
def test_whatever_comes_later_never_crashes(line: bytes) -> None:
    assert read_command(line) is None or isinstance(read_command(line), dict)


def test_a_command_is_an_object_of_bounded_length() -> None:
    assert read_command(b'{"type":"ping"}') == {"type": "ping"}
    assert read_command(b'["ping"]') is None
    assert read_command(b"[" * 50_000) is None
    assert read_command(b'{"type":"ping","x":"' + b"x" * MAX_LINE + b'"}') is None
