"""Who may talk to a sidecar: the origins of its start line over HTTP, streams and sockets; nobody else."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests.sidecar.ground import ask, lay
from tests.sidecar.host import ORIGINS, TOKEN, Host, command

FOREIGN = [
    "null",
    "http://localhost",
    "tauri://localhost.evil.example",
    "tauri://evil",
    "TAURI://LOCALHOST",
    "http://tauri.localhost:8080",
    "https://evil.example",
    "file://",
]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = lay(tmp_path_factory.mktemp("origins") / "data")
    (folder / "bulkops.toml").write_text(
        '[server]\nhost = "0.0.0.0"\nport = 1\nallowed_origins = ["https://app.example"]\n'
        + (folder / "bulkops.toml").read_text()
    )
    with Host(command(folder)) as host:
        yield host.ready()
        host.say("shutdown")
        host.exits()


@pytest.mark.parametrize("origin", [*ORIGINS, "https://app.example"])
def test_an_allowed_origin_speaks_http(ready: dict[str, Any], origin: str) -> None:
    status, headers, _ = ask(
        ready, "OPTIONS", "/api/bulk/notes/delete", token=None, Origin=origin,
        **{"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"},
    )  # fmt: skip
    assert status == 204
    assert headers["access-control-allow-origin"] == origin
    assert "authorization" in headers["access-control-allow-headers"]
    status, headers, _ = ask(ready, "GET", "/api/me", Origin=origin)
    assert (status, headers["access-control-allow-origin"]) == (200, origin)
    assert "Origin" in headers["vary"]
    # A page must be able to read why it was refused.
    status, headers, _ = ask(ready, "GET", "/api/me", token=None, Origin=origin)
    assert (status, headers["access-control-allow-origin"]) == (401, origin)


@pytest.mark.parametrize("origin", ORIGINS)
def test_an_allowed_origin_reads_the_stream(ready: dict[str, Any], origin: str) -> None:
    ticket = ask(ready, "POST", "/api/tickets", Origin=origin)[2]["ticket"]
    connection = http.client.HTTPConnection(ready["host"], ready["port"], timeout=10)
    headers = {"Origin": origin, "Accept": "text/event-stream"}
    connection.request("GET", f"/api/events?topic=all&ticket={ticket}", headers=headers)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("access-control-allow-origin")) == (200, origin)
    assert answer.readline() == b": ok\n"
    connection.close()
    answer.close()


@pytest.mark.parametrize("origin", ORIGINS)
def test_an_allowed_origin_opens_a_socket(ready: dict[str, Any], origin: str) -> None:
    ticket = ask(ready, "POST", "/api/tickets", Origin=origin)[2]["ticket"]
    with connect(
        ready["ws"],
        origin=Origin(origin),
        subprotocols=[Subprotocol("bulkops.v1"), Subprotocol(f"bulkops.ticket.{ticket}")],
    ) as socket:
        socket.send(json.dumps({"type": "hello", "id": 1}))
        welcome = json.loads(socket.recv(10))
        assert (welcome["type"], welcome["instance"]) == ("welcome", ready["instance"])


@pytest.mark.parametrize("origin", FOREIGN)
def test_any_other_origin_is_refused_even_with_the_token(ready: dict[str, Any], origin: str) -> None:
    status, headers, _ = ask(ready, "GET", "/api/me", Origin=origin)
    assert status == 403
    assert "access-control-allow-origin" not in headers
    with pytest.raises(InvalidStatus) as refused, connect(
        ready["ws"], origin=Origin(origin), additional_headers={"Authorization": f"Bearer {TOKEN}"}
    ):  # fmt: skip
        pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "tauri.localhost", "127.0.0.1.nip.io", ""])
def test_any_other_host_is_refused(ready: dict[str, Any], host: str) -> None:
    assert ask(ready, "GET", "/healthz", Host=host)[0] == 421


def test_without_a_credential_health_alone_is_open(ready: dict[str, Any]) -> None:
    assert ask(ready, "GET", "/healthz", token=None)[0] == 200
    for path in (
        "/api/me",
        "/api/jobs",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/",
        "/static/bulkops.js",
    ):
        status, _, problem = ask(ready, "GET", path, token=None)
        assert (status, problem["code"]) == (401, "UNAUTHENTICATED"), path
        assert ask(ready, "GET", path)[0] == 200, path
    assert ask(ready, "GET", "/api/me", token="x" * 43)[0] == 401


def test_the_config_cannot_open_it_to_the_network(ready: dict[str, Any]) -> None:
    assert ready["host"] == "127.0.0.1"
    assert ready["port"] != 1
    (line,) = [
        each.split()
        for each in Path("/proc/net/tcp").read_text().splitlines()
        if listens(each, ready["port"])
    ]
    assert line[1].startswith("0100007F:")  # 127.0.0.1


def listens(line: str, port: int) -> bool:
    fields = line.split()
    return len(fields) > 3 and fields[3] == "0A" and fields[1].endswith(f":{port:04X}")
