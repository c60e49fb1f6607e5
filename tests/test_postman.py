"""The postman over a real store and real endpoints: signed, in order, again and again, and never in the way."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from standardwebhooks import WebhookVerificationError

from bulkops import postman as postman_module
from bulkops.egress import Policy, Resolver, policy_of
from bulkops.postman import Postman, read_retry_after
from bulkops.store import deliveries, events, webhooks
from bulkops.store.deliveries import DeliveryRow
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from bulkops.timing import Clock, SystemClock
from tests.conftest import HandClock
from tests.endpoints import Endpoint, Received, an_endpoint, answer
from tests.engine_house import until
from tests.store_house import START_MS, a_job, opened_store


class Office:
    """A store, and a postman who may call the loopback ports he is shown."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.secrets: dict[str, str] = {}

    async def hook(self, url: str, *wanted: str) -> str:
        row, secret = await self.store.write(
            lambda tx: webhooks.create(
                tx,
                tenant=None,
                url=url,
                events=wanted or webhooks.EVENTS,
                description=None,
                user="ana",
            )
        )
        self.secrets[row.id] = secret
        return row.id

    async def tell(self, *kinds: str, job: JobRow | None = None, **data: Any) -> JobRow:
        about = job or a_job("running")

        def work(tx: Tx) -> None:
            for kind in kinds:
                events.append(tx, about, kind, {"status": "running", **data})

        await self.store.write(work)
        return about

    async def letters(self, webhook: str) -> list[DeliveryRow]:
        rows = await self.store.read(
            lambda c: deliveries.page(c, webhook, state=None, before=None, limit=1000)
        )
        return rows[::-1]

    async def results(self, webhook: str) -> list[tuple[str, str | None]]:
        return [(row.state, row.result) for row in await self.letters(webhook)]

    async def ended(self, webhook: str, count: int = 1) -> list[DeliveryRow]:
        """Wait until as many attempts have ended; return the letters."""

        async def look() -> list[DeliveryRow] | None:
            rows = await self.letters(webhook)
            return rows if sum(row.result is not None for row in rows) >= count else None

        found: list[DeliveryRow] = await until(look)
        return found

    async def delivered(self, webhook: str) -> None:
        """Wait until the one letter of a webhook has arrived."""

        async def look() -> bool:
            return await self.results(webhook) == [("delivered", "2xx")]

        await until(look)

    @asynccontextmanager
    async def at_work(self, policy: Policy, **more: Any) -> AsyncIterator[Postman]:
        postman = Postman(self.store, policy, **more)
        async with anyio.create_task_group() as group:
            group.start_soon(postman.work)
            try:
                yield postman
            finally:
                group.cancel_scope.cancel()


@asynccontextmanager
async def opened_office(folder: Path, clock: Clock | None = None) -> AsyncIterator[Office]:
    async with opened_store(folder, clock or SystemClock()) as store:
        yield Office(store)


def allowing(*endpoints: Endpoint) -> Policy:
    return policy_of([f"127.0.0.1:{each.port}" for each in endpoints], 0)


Reply = Callable[[Received], bytes | None]


def always(reply: bytes | None) -> Reply:
    return lambda _: reply


async def test_a_letter_arrives_signed_so_that_the_reference_library_accepts_it(tmp_path: Path) -> None:
    async with opened_office(tmp_path) as office, an_endpoint() as endpoint:
        webhook = await office.hook(endpoint.url + "?a=%2F&b")
        async with office.at_work(allowing(endpoint)):
            job = await office.tell("completed", note="naïve ☂")
            (letter,) = await office.ended(webhook)
    (got,) = endpoint.got
    assert got.line == "POST /hook?a=%2F&b HTTP/1.1"
    told = got.verified(office.secrets[webhook])
    assert (told["type"], told["data"]["job"], told["data"]["data"]["note"]) == (
        "completed",
        job.id,
        "naïve ☂",
    )
    assert got.id == letter.id
    assert (letter.state, letter.result, letter.attempts) == ("delivered", "2xx", 1)
    assert got.headers.keys() == {
        *("host", "content-type", "content-length", "user-agent", "accept", "accept-encoding", "connection"),
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
    }
    assert got.headers["host"] == f"127.0.0.1:{endpoint.port}"
    assert got.headers["content-type"] == "application/json"


@pytest.mark.parametrize("change", ["body", "id", "timestamp", "secret"])
async def test_a_forged_or_replayed_letter_is_not_accepted(tmp_path: Path, change: str) -> None:
    async with opened_office(tmp_path) as office, an_endpoint() as endpoint:
        webhook, other = await office.hook(endpoint.url), await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint)):
            await office.tell("completed")
            await office.ended(webhook)
    got = endpoint.got[0]
    owner = next(
        hook for hook in (webhook, other) if got.json["data"] and _accepts(got, office.secrets[hook])
    )
    headers, body, secret = dict(got.headers), got.body, office.secrets[owner]
    if change == "body":
        body = body.replace(b'"completed"', b'"cancelled"', 1)
    elif change == "id":
        headers["webhook-id"] = "another"
    elif change == "timestamp":
        headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) - 301)
    else:
        secret = office.secrets[webhook if owner == other else other]
    assert not _accepts(Received(got.line, headers, body), secret)


def _accepts(got: Received, secret: str) -> bool:
    try:
        got.verified(secret)
    except WebhookVerificationError:
        return False
    return True


async def test_a_letter_is_repeated_under_its_id_until_it_is_taken(tmp_path: Path, clock: HandClock) -> None:
    async with opened_office(tmp_path, clock) as office, an_endpoint(reply=always(answer(500))) as endpoint:
        webhook = await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint)) as postman:
            await office.tell("completed")
            for reply in (answer(503), answer(204)):
                await until(lambda: endpoint.got and not postman._held)
                endpoint.got_one.clear()
                endpoint.reply = always(reply)
                clock.advance(400)
                postman.ring()
                await endpoint.got_one.wait()
            await office.delivered(webhook)
    assert len({got.id for got in endpoint.got}) == 1
    stamps = [int(got.headers["webhook-timestamp"]) for got in endpoint.got]
    assert stamps == [START_MS // 1000 + late for late in (0, 400, 800)]
    assert len({got.headers["webhook-signature"] for got in endpoint.got}) == 3
    assert len({got.body for got in endpoint.got}) == 1


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (answer(200), "2xx"),
        (answer(202, body=b"later"), "2xx"),
        (answer(299), "2xx"),
        (answer(301, "Location: http://127.0.0.1:1/"), "3xx"),
        (answer(307, "Location: https://app.example/"), "3xx"),
        (answer(304), "3xx"),
        (answer(400), "4xx"),
        (answer(404), "4xx"),
        (answer(429), "4xx"),
        (answer(500), "5xx"),
        (answer(503), "5xx"),
        (b"HTTP/1.1 999 What\r\n\r\n", "unreachable"),
        (b"no HTTP at all\r\n\r\n", "unreachable"),
        (b"", "unreachable"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", "unreachable"),
    ],
)
async def test_only_a_2xx_is_success(tmp_path: Path, reply: bytes, result: str) -> None:
    async with opened_office(tmp_path) as office, an_endpoint(reply=always(reply)) as endpoint:
        webhook = await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint)):
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
    assert (letter.state, letter.result) == ("delivered" if result == "2xx" else "pending", result)


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with opened_office(tmp_path) as office, an_endpoint() as inner, an_endpoint() as endpoint:
        endpoint.reply = always(answer(302, f"Location: {inner.url}"))
        webhook = await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint, inner)):
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
    assert (letter.state, letter.result) == ("pending", "3xx")
    assert inner.got == []


async def test_gone_disables_the_webhook(tmp_path: Path) -> None:
    async with opened_office(tmp_path) as office, an_endpoint(reply=always(answer(410))) as endpoint:
        webhook = await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint)):
            await office.tell("started", "completed")
            await office.ended(webhook)
            row = await office.store.read(lambda c: webhooks.get(c, webhook))
            await office.tell("started")
    assert row is not None
    assert row.status == "disabled"
    assert endpoint.types == ["started"]


async def test_retry_after_is_heeded(tmp_path: Path, clock: HandClock) -> None:
    reply = answer(503, "Retry-After: 3600")
    async with opened_office(tmp_path, clock) as office, an_endpoint(reply=always(reply)) as endpoint:
        webhook = await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint)):
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
    assert letter.not_before_ms == START_MS + 3_600_000


@pytest.mark.parametrize(
    ("value", "expected_ms"),
    [
        (None, 0),
        ("120", 120_000),
        ("0", 0),
        ("-5", 0),
        ("soon", 0),
        ("", 0),
        ("9" * 400, 999_999_999_000),
        ("\u0665", 0),
        (format_datetime(datetime.fromtimestamp(START_MS / 1000, UTC) + timedelta(seconds=90), True), 90_000),
        (format_datetime(datetime.fromtimestamp(START_MS / 1000, UTC) - timedelta(days=1), True), 0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_anything_else_is_nothing(
    value: str | None, expected_ms: int | None
) -> None:
    found = read_retry_after(value, START_MS)
    assert found >= 0
    assert expected_ms is None or found == expected_ms


# --- nobody waits for a bad endpoint ---------------------------------------------------------------------


async def test_an_endpoint_that_hangs_delays_no_other(tmp_path: Path) -> None:
    async with opened_office(tmp_path) as office, an_endpoint() as good, an_endpoint() as bad:
        bad.reply = always(None)
        hanging = [await office.hook(bad.url) for _ in range(8)]
        webhook = await office.hook(good.url)
        async with office.at_work(allowing(good, bad)):
            for _ in range(3):
                await office.tell("started", "completed")
            await until(lambda: len(good.got) == 6, within_s=5)
            await until(lambda: len(bad.got) == 8)
            assert await office.results(hanging[0]) == [("pending", None)] * 6
            await office.ended(webhook, 6)
    assert len(bad.got) == 8  # one letter at a time to each
    assert good.types == ["started", "completed"] * 3


async def test_an_endpoint_that_hangs_is_given_up_and_asked_again_later(
    tmp_path: Path, clock: HandClock
) -> None:
    async with opened_office(tmp_path, clock) as office, an_endpoint(reply=always(None)) as endpoint:
        webhook = await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint), timeout_s=0.2) as postman:
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
            assert (letter.state, letter.result) == ("pending", "timeout")
            assert letter.took_ms is not None
            assert 150 <= letter.took_ms < 5000
            endpoint.reply = always(answer(200))
            clock.advance(10)
            postman.ring()
            await office.delivered(webhook)


async def test_of_an_endless_answer_little_is_read_and_nothing_kept(tmp_path: Path) -> None:
    secret = b"inner page with a canary-7f3a"
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n" + secret
    async with opened_office(tmp_path) as office, an_endpoint(reply=always(reply)) as endpoint:
        endpoint.endless = True
        webhook = await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint)):
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
            assert (letter.state, letter.result) == ("delivered", "2xx")
    assert endpoint.sent_bytes < 32 * 1024 * 1024  # what the kernel's buffers took
    for file in tmp_path.glob("bulkops.db*"):
        assert b"canary-7f3a" not in await anyio.Path(file).read_bytes()


async def test_a_body_that_drips_does_not_undo_the_answer(tmp_path: Path) -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"
    async with opened_office(tmp_path) as office, an_endpoint(reply=always(reply)) as endpoint:
        webhook = await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint)):
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
    assert letter.result == "2xx"


async def test_a_port_where_nobody_listens_is_unreachable(tmp_path: Path) -> None:
    async with an_endpoint() as endpoint:
        pass
    async with opened_office(tmp_path) as office:
        webhook = await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint)):
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
    assert (letter.state, letter.result) == ("pending", "unreachable")


async def test_a_flood_of_progress_is_a_trickle_of_letters(tmp_path: Path, clock: HandClock) -> None:
    async with opened_office(tmp_path, clock) as office, an_endpoint() as endpoint:
        webhook = await office.hook(endpoint.url)
        endpoint.reply = lambda got: answer(200) if got.type != "progress" else None
        async with office.at_work(allowing(endpoint), timeout_s=0.2) as postman:
            job = await office.tell("started")
            for count in range(50):
                await office.tell("progress", job=job, processed=count)
            await until(lambda: not postman._held)
            await office.tell("completed", job=job)
            clock.advance(6)
            postman.ring()
            await office.ended(webhook, 2)
    assert (endpoint.types[0], endpoint.types[-1]) == ("started", "completed")
    assert len(endpoint.got) <= 4


# --- crashes ---------------------------------------------------------------------------------------------


async def test_a_crash_between_the_commit_and_the_sending_repeats_under_the_same_id(
    tmp_path: Path, clock: HandClock
) -> None:
    async with opened_store(tmp_path, clock) as store:
        office = Office(store)
        async with an_endpoint() as endpoint:
            webhook = await office.hook(endpoint.url)
            await office.tell("completed")
            (claimed,) = await store.write(lambda tx: deliveries.claim(tx, 1))
            clock.advance(6)
            async with office.at_work(allowing(endpoint)):
                (letter,) = await office.ended(webhook)
    assert [got.id for got in endpoint.got] == [claimed.id]
    assert (letter.state, letter.attempts) == ("delivered", 2)


async def test_a_stop_between_the_sending_and_the_record_repeats_under_the_same_id(
    tmp_path: Path, clock: HandClock
) -> None:
    async with opened_office(tmp_path, clock) as office, an_endpoint(reply=always(None)) as endpoint:
        webhook = await office.hook(endpoint.url)
        async with office.at_work(allowing(endpoint)):
            await office.tell("completed")
            await until(lambda: len(endpoint.got) == 1)
        assert await office.results(webhook) == [("pending", None)]
        endpoint.reply = always(answer(200))
        clock.advance(6)
        async with office.at_work(allowing(endpoint)):
            (letter,) = await office.ended(webhook)
    assert len({got.id for got in endpoint.got}) == 1
    assert len(endpoint.got) == 2
    assert (letter.state, letter.attempts) == ("delivered", 2)


# --- whom he may call ------------------------------------------------------------------------------------


class Alternating(Resolver):
    """A name service under somebody's control: good the first time, inner ever after."""

    def __init__(self, *answers: list[str]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def test_an_inner_address_is_refused_at_each_send(tmp_path: Path) -> None:
    async with opened_office(tmp_path) as office, an_endpoint() as inner:
        literal = await office.hook(f"https://127.0.0.1:{inner.port}/")
        plain = await office.hook(inner.url)
        async with office.at_work(Policy()):
            await office.tell("completed")
            for webhook in (literal, plain):
                (letter,) = await office.ended(webhook)
                assert (letter.state, letter.result) == ("pending", "refused")
    assert inner.got == []


async def test_a_name_that_turns_to_an_inner_address_is_refused(tmp_path: Path) -> None:
    async with opened_office(tmp_path) as office:
        webhook = await office.hook("https://rebind.example/")
        postman = Postman(office.store, Policy())
        postman._resolver = Alternating(["127.0.0.1"])
        async with anyio.create_task_group() as group:
            group.start_soon(postman.work)
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
            group.cancel_scope.cancel()
    assert (letter.state, letter.result) == ("pending", "refused")


async def test_the_connection_goes_to_the_judged_address_and_the_name_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name leads to our endpoint once; a client that asked again would go elsewhere."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with opened_office(tmp_path) as office, an_endpoint() as endpoint:
        webhook = await office.hook(f"http://hooks.lan:{endpoint.port}/in")
        postman = Postman(office.store, policy_of([f"hooks.lan:{endpoint.port}"], 0))
        resolver = postman._resolver = Alternating(["127.0.0.1"], ["127.0.0.99"])
        async with anyio.create_task_group() as group:
            group.start_soon(postman.work)
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
            group.cancel_scope.cancel()
    assert letter.result == "2xx"
    assert resolver.asked == 1
    assert endpoint.got[0].headers["host"] == f"hooks.lan:{endpoint.port}"


async def test_the_next_address_of_a_host_is_tried_when_one_takes_no_connection(tmp_path: Path) -> None:
    async with opened_office(tmp_path) as office, an_endpoint() as endpoint:
        webhook = await office.hook(f"http://hooks.lan:{endpoint.port}/in")
        postman = Postman(office.store, policy_of([f"hooks.lan:{endpoint.port}"], 0))
        postman._resolver = Alternating(["127.0.0.99", "127.0.0.1"])
        async with anyio.create_task_group() as group:
            group.start_soon(postman.work)
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
            group.cancel_scope.cancel()
    assert letter.result == "2xx"
    assert len(endpoint.got) == 1


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for hooks.example that is its own authority, with its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is needed to make a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=hooks.example"]
    command += ["-addext", "subjectAltName=DNS:hooks.example"]
    subprocess.run(command, check=True, capture_output=True)
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + cert.read_text())
    return both


@pytest.mark.parametrize(("name", "result"), [("hooks.example", "2xx"), ("other.example", "unreachable")])
async def test_tls_names_and_checks_the_host_of_the_url_not_the_address(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch, name: str, result: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("cert.pem")))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    names: list[str | None] = []
    tls.sni_callback = lambda _, asked, __: names.append(asked)
    async with opened_office(tmp_path) as office, an_endpoint(tls=tls) as endpoint:
        webhook = await office.hook(f"https://{name}:{endpoint.port}/hook")
        postman = Postman(office.store, policy_of([f"{name}:{endpoint.port}"], 0))
        postman._resolver = Alternating(["127.0.0.1"])
        async with anyio.create_task_group() as group:
            group.start_soon(postman.work)
            await office.tell("completed")
            (letter,) = await office.ended(webhook)
            group.cancel_scope.cancel()
    assert letter.result == result
    assert names == [name]


def test_the_http_client_is_not_imported_before_there_is_something_to_send() -> None:
    code = "import sys, bulkops.postman; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_trouble_with_the_database_ends_no_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postman_module, "back_off_s", lambda *_, **__: 0.01)
    troubles = iter([OSError("a hiccup")] * 2)
    async with opened_office(tmp_path) as office, an_endpoint() as endpoint:
        webhook = await office.hook(endpoint.url)
        read = office.store.read

        async def hiccup(work: Any) -> Any:
            trouble = next(troubles, None)
            if trouble is not None:
                raise trouble
            return await read(work)

        monkeypatch.setattr(office.store, "read", hiccup)
        async with office.at_work(allowing(endpoint)):
            await until(lambda: next(troubles, None) is None)
            await office.tell("completed")
            await office.ended(webhook)
    assert endpoint.types == ["completed"]
