"""The HTTP client: refusals rebuilt, broken connections survived, one key for one wish."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bulkops.client import Client, Endpoint, NoServer, is_loopback
from bulkops.errors import Refusal

Answer = tuple[int, dict[str, str], bytes] | None


class StandIn:
    """A real HTTP server whose answers a test writes; `None` breaks the connection after reading."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: Callable[[int], Answer] = lambda _: json_answer({})


def json_answer(body: Any, status: int = 200, **headers: str) -> Answer:
    kind = "application/problem+json" if status >= 400 else "application/json"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": kind, **named}, json.dumps(body).encode()


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = self.headers.get("Content-Length")
            body = self.rfile.read(int(length)) if length else b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self._chunks()
            told.requests.append(
                (self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            )
            answer = told.answer(len(told.requests))
            if answer is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815  http.server's names

        def _chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told = StandIn(server)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


def open_client(url: str, **patience: float) -> Any:
    return closing(Client(lambda: Endpoint(url, "bk_secret"), **patience))


def test_a_request_bears_the_key_in_a_header_and_nowhere_else(stand_in: StandIn) -> None:
    with open_client(stand_in.url) as client:
        client.get("/api/jobs", {"status": "running"})
    method, path, headers, body = stand_in.requests[0]
    assert (method, path, body) == ("GET", "/api/jobs?status=running", b"")
    assert headers["x-api-key"] == "bk_secret"


def test_a_problem_document_is_the_refusal_that_the_service_raised(stand_in: StandIn) -> None:
    problem = {
        "type": "about:blank",
        "title": "Another job is active",
        "status": 409,
        "code": "JOB_ACTIVE",
        "detail": "job 1 is active",
        "job": "1",
    }
    stand_in.answer = lambda _: json_answer(problem, 409, Retry_After="7")
    with open_client(stand_in.url) as client, pytest.raises(Refusal) as caught:
        client.get("/api/me")
    refused = caught.value
    assert (refused.code, refused.status, refused.detail) == ("JOB_ACTIVE", 409, "job 1 is active")
    assert refused.extra == {"job": "1"}
    assert refused.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "answer",
    [
        (502, {"Content-Type": "text/html"}, b"<h1>Bad gateway</h1>"),
        (404, {"Content-Type": "application/json"}, b'{"detail": "Not Found"}'),
        (403, {"Content-Type": "application/json"}, b'{"code": "SOMETHING_ELSE"}'),
        (500, {}, b""),
        (400, {}, b"[1]"),
        (200, {"Content-Type": "text/html"}, b"<html>"),
    ],
)
def test_an_answer_in_another_manner_is_no_server_of_ours(stand_in: StandIn, answer: Answer) -> None:
    stand_in.answer = lambda _: answer
    with open_client(stand_in.url) as client, pytest.raises(NoServer):
        client.get("/api/me")


def test_an_empty_answer_is_none(stand_in: StandIn) -> None:
    stand_in.answer = lambda _: (204, {}, b"")
    with open_client(stand_in.url) as client:
        assert client.delete("/api/keys/1") is None


def test_nobody_listening_is_said_with_the_address() -> None:
    with open_client("http://127.0.0.1:1") as client, pytest.raises(NoServer, match=r"127\.0\.0\.1:1"):
        client.get("/api/me")


@pytest.mark.parametrize("url", ["http://exa mple:99999999", "http://[::1", "nonsense", "ftp://127.0.0.1"])
def test_an_address_that_is_none_is_no_server(url: str) -> None:
    with pytest.raises(NoServer), open_client(url) as client:
        client.get("/api/me")


def test_a_start_whose_answer_was_lost_is_repeated_with_the_same_key(stand_in: StandIn) -> None:
    stand_in.answer = lambda count: None if count < 3 else json_answer({"id": "j"}, 202)
    with open_client(stand_in.url) as client:
        assert client.create("/api/bulk/r/delete", {"all": True}) == {"id": "j"}
    keys = {headers["idempotency-key"] for _, _, headers, _ in stand_in.requests}
    assert len(stand_in.requests) == 3
    assert len(keys) == 1
    assert {body for _, _, _, body in stand_in.requests} == {b'{"all":true}'}


def test_two_wishes_have_two_keys(stand_in: StandIn) -> None:
    with open_client(stand_in.url) as client:
        client.create("/api/bulk/r/delete", {})
        client.create("/api/bulk/r/delete", {})
    assert len({headers["idempotency-key"] for _, _, headers, _ in stand_in.requests}) == 2


def test_a_server_shutting_down_is_waited_for_as_long_as_it_says(stand_in: StandIn) -> None:
    draining = json_answer({"code": "DRAINING", "detail": "shutting down"}, 503, Retry_After="0")
    stand_in.answer = lambda count: draining if count == 1 else json_answer({"id": "j"}, 202)
    with open_client(stand_in.url) as client:
        assert client.create("/api/bulk/r/delete", {}) == {"id": "j"}


def test_a_full_queue_is_a_refusal_and_not_waited_for(stand_in: StandIn) -> None:
    stand_in.answer = lambda _: json_answer({"code": "QUEUE_FULL", "detail": "full"}, 503, Retry_After="0")
    with open_client(stand_in.url) as client, pytest.raises(Refusal, match="full"):
        client.create("/api/bulk/r/delete", {})
    assert len(stand_in.requests) == 1


def test_patience_with_a_server_that_heard_nothing_is_short(stand_in: StandIn) -> None:
    with open_client("http://127.0.0.1:1", unheard_s=0.0) as client, pytest.raises(NoServer):
        client.create("/api/bulk/r/delete", {})
    stand_in.answer = lambda _: None
    with (
        open_client(stand_in.url, unheard_s=0.0, heard_s=0.0) as client,
        pytest.raises(NoServer, match="broke"),
    ):
        client.create("/api/bulk/r/delete", {})


def test_a_server_that_moved_is_found_at_its_new_address(stand_in: StandIn) -> None:
    places = iter(["http://127.0.0.1:1", stand_in.url])
    with closing(Client(lambda: Endpoint(next(places), "k"))) as client:
        client.create("/api/bulk/r/delete", {})
    assert len(stand_in.requests) == 1


def test_ids_are_uploaded_as_lines_while_they_are_read(stand_in: StandIn) -> None:
    with open_client(stand_in.url) as client:
        client.upload_ids(iter(["1", "a b", 'q"', "ü"]))
    _, path, headers, body = stand_in.requests[0]
    assert path == "/api/selections"
    assert headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in body.splitlines()] == ["1", "a b", 'q"', "ü"]


def test_a_refused_stream_is_refused_before_its_first_byte(stand_in: StandIn) -> None:
    stand_in.answer = lambda _: json_answer({"code": "NOT_FOUND", "detail": "no such job"}, 404)
    with (
        open_client(stand_in.url) as client,
        pytest.raises(Refusal, match="no such job"),
        client.stream("/api/jobs/x/report", {}),
    ):
        pass


def test_a_redirect_does_not_carry_the_key_away(stand_in: StandIn) -> None:
    stand_in.answer = lambda _: (302, {"Location": "http://127.0.0.1:1/"}, b"")
    with open_client(stand_in.url) as client, pytest.raises(NoServer):
        client.get("/api/me")
    assert len(stand_in.requests) == 1


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("http://127.0.0.1:8765", True),
        ("http://localhost", True),
        ("http://[::1]:80/bulk", True),
        ("http://127.example.com", False),
        ("https://example.com", False),
        ("http://10.0.0.7:8765", False),
        ("nonsense", False),
    ],
)
def test_our_own_machine_is_known(url: str, near: bool) -> None:
    assert is_loopback(url) == near
