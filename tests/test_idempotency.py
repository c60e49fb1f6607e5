"""Idempotency keys: one key and body is one job, however often, however close together, and after a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bulkops.errors import Refusal
from bulkops.models import Caller
from bulkops.store import idempotency
from bulkops.store.idempotency import Idempotency
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from tests.conftest import HandClock
from tests.doors import Doors, job_view, opened_doors

ANA = Caller(user="ana", tenant="acme")
START = "/api/bulk/receipts/delete"
DAY_S = 24 * 3600


def _mark(
    caller: Caller = ANA, key: str = "k", *, method: str = "POST", path: str = START, body: bytes = b"{}"
) -> Idempotency:
    return idempotency.mark(caller, key, method=method, path=path, body=body)


async def _lookup(store: Store, request: Idempotency) -> idempotency.Answer | None:
    return await store.read(lambda connection: idempotency.lookup(connection, request, store.clock.now_ms()))


def _record(tx: Tx, request: Idempotency) -> None:
    idempotency.record(tx, request, status=202, location="/api/jobs/J", body=b"{}")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([], None),
        (["8e03978e"], "8e03978e"),
        (['"8e03978e"'], "8e03978e"),
        ([" abc "], "abc"),
        ([r'"a\"b\\c"'], r"a\"b\c".replace(r"\"", '"')),
        (['"with space"'], "with space"),
        (["'; DROP TABLE jobs; --".replace(" ", "")], "';DROPTABLEjobs;--"),
        (["x" * 255], "x" * 255),
        (['"' + "x" * 255 + '"'], "x" * 255),
    ],
)
def test_a_key_is_read_with_or_without_quotes(values: list[str], key: str | None) -> None:
    assert idempotency.parse_key(values) == key


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ['""'],
        [" "],
        ["x" * 256],
        ["x" * 10_240],
        ["a", "a"],
        ["a b"],
        ['"a'],
        ['"a"b'],
        ["é"],
        ['"é"'],
        ["a\tb"],
    ],
)
def test_what_is_no_key_is_refused(values: list[str]) -> None:
    with pytest.raises(Refusal) as refused:
        idempotency.parse_key(values)
    assert refused.value.code == "INVALID_FIELD"


async def test_a_recorded_answer_is_found_by_the_same_request_only(store: Store) -> None:
    assert await _lookup(store, _mark()) is None
    await store.write(lambda tx: _record(tx, _mark()))
    assert await _lookup(store, _mark()) == idempotency.Answer(202, "/api/jobs/J", b"{}")
    for other in (
        _mark(Caller(user="bo", tenant="acme")),
        _mark(Caller(user="ana", tenant="other")),
        _mark(Caller(user="ana", tenant=None)),
        _mark(key="K"),
    ):
        assert await _lookup(store, other) is None
    for other in (
        _mark(body=b'{"all":true}'),
        _mark(path="/api/bulk/receipts/purge"),
        _mark(method="DELETE"),
    ):
        with pytest.raises(Refusal) as refused:
            await _lookup(store, other)
        assert refused.value.code == "IDEMPOTENCY_MISMATCH"


def test_users_and_tenants_cannot_be_confused_by_clever_names() -> None:
    one = _mark(Caller(user='b","c', tenant="a"))
    other = _mark(Caller(user="c", tenant='a","b'))
    assert one.principal != other.principal
    assert _mark(path="/a", body=b"bc").fingerprint != _mark(path="/ab", body=b"c").fingerprint


async def test_keys_are_stored_hashed(store: Store) -> None:
    await store.write(lambda tx: _record(tx, _mark(key="my-secret-key")))
    row = await store.read(lambda connection: connection.execute("SELECT * FROM idempotency").fetchone())
    assert "my-secret-key" not in str(row)


async def test_after_a_day_the_key_is_free_again(store: Store, clock: HandClock) -> None:
    await store.write(lambda tx: _record(tx, _mark()))
    clock.advance(DAY_S)
    assert await _lookup(store, _mark(body=b"other")) is None
    await store.write(lambda tx: _record(tx, _mark(body=b"other")))
    assert await _lookup(store, _mark(body=b"other")) is not None


async def test_a_taken_key_undoes_the_transaction_that_would_act_again(store: Store) -> None:
    await store.write(lambda tx: _record(tx, _mark()))

    def act(tx: Tx) -> None:
        tx.connection.execute(
            "INSERT INTO tasks (id, type, label, requested_by, source, created_ms) "
            "VALUES ('T', 't', 't', 'ana', 'user', 0)"
        )
        _record(tx, _mark())

    with pytest.raises(Refusal):
        await store.write(act)
    rows = await store.read(lambda connection: connection.execute("SELECT id FROM tasks").fetchall())
    assert rows == []


async def test_old_answers_are_deleted(store: Store, clock: HandClock) -> None:
    await store.write(lambda tx: _record(tx, _mark(key="old")))
    clock.advance(DAY_S)
    await store.write(lambda tx: _record(tx, _mark(key="new")))
    assert await store.write(idempotency.purge) == 1
    assert await store.write(idempotency.purge) == 0
    assert await _lookup(store, _mark(key="new")) is not None


async def test_one_call_at_a_time_per_key_and_nothing_is_kept() -> None:
    in_flight = idempotency.InFlight()
    inside: list[str] = []

    async def call(name: str, request: Idempotency) -> None:
        async with in_flight.turn(request):
            inside.append(name)
            assert inside.count(name[0]) <= 1
            await asyncio.sleep(0)
            inside.remove(name)

    await asyncio.gather(*[call(key, _mark(key=key)) for key in "aaabbbccc"])
    assert in_flight._turns == {}


async def test_a_call_that_fails_or_is_cancelled_lets_the_next_one_in() -> None:
    in_flight = idempotency.InFlight()
    with pytest.raises(ValueError, match="no"):
        async with in_flight.turn(_mark()):
            raise ValueError("no")
    async with in_flight.turn(_mark()):
        waiting = asyncio.ensure_future(in_flight.turn(_mark()).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert in_flight._turns == {}


# --- through the doors ---------------------------------------------------------------------------------


def _with(key: str) -> list[tuple[str, str]]:
    return [("idempotency-key", key)]


async def test_the_same_key_and_body_get_the_same_answer(doors: Doors) -> None:
    key = await doors.key()
    first = await doors.ask("POST", START, key=key, headers=_with("k1"), json={"ids": ["1"], "reason": "x"})
    spaced = b'{"reason" : "x",\n "ids": ["1"]}'
    json_type = ("content-type", "application/json")
    again = await doors.ask("POST", START + "/", key=key, headers=[*_with('"k1"'), json_type], body=spaced)
    assert first.status == again.status == 202
    assert (first.body, first.header("location")) == (again.body, again.header("location"))
    assert len(doors.service.views) == 1


async def test_a_replay_below_another_mount_bears_its_prefix(doors: Doors) -> None:
    key = await doors.key()
    await doors.ask("POST", START, key=key, headers=_with("k1"), json={"ids": ["1"]})
    again = await doors.ask(
        "POST", START, key=key, headers=_with("k1"), json={"ids": ["1"]}, root_path="/bulk"
    )
    assert (again.header("location") or "").startswith("/bulk/api/jobs/")
    assert again.json["links"]["self"].startswith("/bulk/api/jobs/")
    assert len(doors.service.views) == 1


async def test_another_body_or_route_under_the_key_is_422(doors: Doors) -> None:
    key = await doors.key()
    await doors.ask("POST", START, key=key, headers=_with("k1"), json={"ids": ["1"]})
    for target, body in ((START, {"ids": ["2"]}), ("/api/bulk/receipts/purge", {"ids": ["1"]})):
        answer = await doors.ask("POST", target, key=key, headers=_with("k1"), json=body)
        assert (answer.status, answer.code) == (422, "IDEMPOTENCY_MISMATCH")
    assert len(doors.service.views) == 1


async def test_another_user_or_tenant_has_keys_of_their_own(doors: Doors) -> None:
    for who in ({"user": "ana"}, {"user": "bo"}, {"user": "ana", "tenant": "other"}):
        key = await doors.key(**who)
        assert (
            await doors.ask("POST", START, key=key, headers=_with("k1"), json={"ids": ["1"]})
        ).status == 202
    assert len(doors.service.views) == 3


async def test_fifty_at_once_start_one_job(doors: Doors) -> None:
    key = await doors.key()
    doors.service.gate = asyncio.Event()
    asking = [
        asyncio.ensure_future(doors.ask("POST", START, key=key, headers=_with("k1"), json={"ids": ["1"]}))
        for _ in range(50)
    ]
    await doors.service.entered.wait()
    doors.service.gate.set()
    answers = await asyncio.gather(*asking)
    assert len(doors.service.views) == 1
    assert {(each.status, each.body) for each in answers} == {(202, answers[0].body)}


async def test_a_refusal_is_not_remembered(doors: Doors) -> None:
    key = await doors.key()
    doors.service.error = Refusal("QUEUE_FULL", "the queue is full")
    first = await doors.ask("POST", START, key=key, headers=_with("k1"), json={"ids": ["1"]})
    assert first.status == 503
    doors.service.error = None
    assert (await doors.ask("POST", START, key=key, headers=_with("k1"), json={"ids": ["1"]})).status == 202


async def test_the_answer_outlives_the_process(tmp_path: Path, clock: HandClock) -> None:
    async with opened_doors(tmp_path, clock) as doors:
        key = await doors.key()
        first = await doors.ask("POST", START, key=key, headers=_with("k1"), json={"ids": ["1"]})
    async with opened_doors(tmp_path, clock) as doors:
        again = await doors.ask("POST", START, key=key, headers=_with("k1"), json={"ids": ["1"]})
        assert again.body == first.body
        assert doors.service.asked == []


@pytest.mark.parametrize("verb", ["retry", "undo"])
async def test_retry_and_undo_take_keys_too(doors: Doors, verb: str) -> None:
    key = await doors.key()
    doors.service.views["J"] = job_view("J", tenant="acme")
    target = f"/api/jobs/J/{verb}"
    first = await doors.ask("POST", target, key=key, headers=_with("k1"))
    again = await doors.ask("POST", target, key=key, headers=_with("k1"), json={})
    assert (first.status, first.body) == (again.status, again.body)
    assert [each[0] for each in doors.service.asked].count(verb) == 1


async def test_a_bad_key_is_refused_before_anything_starts(doors: Doors) -> None:
    key = await doors.key()
    answer = await doors.ask("POST", START, key=key, headers=_with("x" * 256), json={"ids": ["1"]})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/Idempotency-Key")
    assert doors.service.asked == []
