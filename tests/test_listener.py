"""The listening socket: exactly the address that was asked for, and little hidden behind it."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from bulkops.errors import StartRefused
from bulkops.web.listener import bind


def test_a_taken_port_is_refused_and_no_neighbour_is_taken() -> None:
    with closing(bind("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(StartRefused, match=f"cannot listen at 127.0.0.1 port {port}: ") as refused:
            bind("127.0.0.1", port)
        assert refused.value.code == "bind"


def test_a_host_that_is_none_is_refused() -> None:
    with pytest.raises(StartRefused, match="no address to listen at"):
        bind("no.such.host.invalid", 0)


def test_the_listener_hides_little_in_the_kernel() -> None:
    with closing(bind("127.0.0.1", 0)) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 64 * 1024
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
