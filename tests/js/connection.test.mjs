// When the client comes back, how soon, with what, and when it does not; and how a start survives a bad network.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { following, frame, settle, world } from "./scripted.mjs";

const COME_BACK = [1001, 1005, 1006, 1011, 1012, 1013, 4008, 4010, 4012, 4013, 4014, 4000, 4499];
const STAY_AWAY = [1000, 1009, 4500, 4502, 4503, 4504, 4505, 4599, 4999];
const fixed = (value) => mock.method(Math, "random", () => value);

for (const code of COME_BACK) {
  test(`close code ${code}: it comes back with its cursor`, async () => {
    const { socket, sockets, states, after, sub } = await following();
    socket().say(frame("e:10", "e:12", [12]));
    await socket().drop(code, "x");
    assert.equal(states.at(-1).to, "connecting");
    assert.equal(states.at(-1).code, code);
    await after(1_000);
    assert.equal(sockets.length, 2);
    await socket().welcome();
    assert.equal(socket().lastSince(), "e:12");
    assert.equal(states.at(-1).to, "connected");
    assert.equal(sub.waiting, false);
  });
}

for (const code of STAY_AWAY) {
  test(`close code ${code}: it stays away, and whoever waits is told`, async () => {
    const { socket, sockets, states, after, sub } = await following();
    await socket().drop(code, "no");
    assert.deepEqual([states.at(-1).to, states.at(-1).code], ["disconnected", code]);
    await assert.rejects(sub.finished(), { status: code });
    await after(120_000);
    assert.equal(sockets.length, 1);
  });
}

test("an expired or refused credential is renewed once", async () => {
  let tickets = 0;
  const here = world({ getTicket: () => `t${++tickets}` });
  await settle();
  await here.socket().welcome();
  assert.equal(here.socket().said[0].ticket, "t1");
  await here.socket().drop(4014);
  await here.after(1_000);
  await here.socket().drop(4501);
  await here.after(2_000);
  assert.equal(tickets, 3);
  await here.socket().drop(4501);
  assert.equal(here.states.at(-1).to, "disconnected");
  assert.equal(here.states.at(-1).code, 4501);
});

for (const [random, waits] of [[0, [500, 500, 500]], [1, [1_000, 1_500, 2_500]]]) {
  test(`the waits are 500 ms and a share of 500 ms · 2^n, with rand() = ${random}`, async () => {
    fixed(random);
    const here = world({ transports: ["ws"] });
    await settle();
    for (const [n, wait] of waits.entries()) {
      await here.socket().drop();
      await here.after(wait - 1);
      assert.equal(here.sockets.length, n + 1);
      await here.after(1);
      assert.equal(here.sockets.length, n + 2);
    }
    mock.restoreAll();
  });
}

test("no wait is longer than 20 s, and five stable seconds begin anew", async () => {
  fixed(1);
  const here = world({ transports: ["ws"] });
  await settle();
  for (let n = 0; n < 12; n++) {
    await here.socket().drop();
    await here.after(20_000);
    assert.equal(here.sockets.length, n + 2);
  }
  await here.socket().welcome();
  await here.after(4_999);
  await here.socket().drop();
  await here.after(19_999);
  assert.equal(here.sockets.length, 13);
  await here.after(1);
  await here.socket().welcome();
  await here.after(5_000);
  await here.socket().drop();
  await here.after(1_000);
  assert.equal(here.sockets.length, 15);
  mock.restoreAll();
});

for (const [random, wait] of [[0, 600], [1, 1_000]]) {
  test(`a bye's retry_after_ms is taken ±25 %, with rand() = ${random}`, async () => {
    fixed(random);
    const { socket, sockets, after } = await following();
    socket().say({ type: "bye", code: 1012, reason: "restart", reconnect: true, retry_after_ms: 800 });
    await socket().drop(1012, "restart");
    await after(wait - 1);
    assert.equal(sockets.length, 1);
    await after(1);
    assert.equal(sockets.length, 2);
    mock.restoreAll();
  });
}

test("a socket that falls silent is left after two ping intervals", async () => {
  const { socket, sockets, after } = await following();
  await after(39_999);
  assert.equal(socket().closed, false);
  await after(1);
  assert.equal(sockets[0].closed, true);
});

test("after three failed sockets it streams, with the same cursor and rule", async () => {
  const here = world();
  const sub = here.client.subscribe({ kind: "all" }, { since: "e:10" });
  const seen = [];
  sub.on("event", ({ seq }) => seen.push(seq));
  for (let n = 0; n < 3; n++) {
    await here.after(20_000);
    await here.socket().drop();
  }
  await here.after(20_000);
  assert.equal(here.source().url, "http://h:1/api/events?topic=all&since=e%3A10");
  here.source().say("ready", { recovered: true, head: "e:12" }, "e:10");
  assert.deepEqual([here.states.at(-1).to, here.states.at(-1).transport], ["connected", "sse"]);
  here.source().say("updated", { seq: 11, prev: "e:10", kind: "updated", data: {} }, "e:11");
  here.source().say("updated", { seq: 11, prev: "e:10", kind: "updated", data: {} }, "e:11");
  assert.deepEqual(seen, [11]);
  here.source().say("updated", { seq: 14, prev: "e:13", kind: "updated", data: {} }, "e:14");
  await settle();
  assert.deepEqual(seen, [11]);
  assert.match(here.source().url, /since=e%3A11$/);

  // A minute later the socket is tried again, and the stream goes on until it is up.
  const streams = here.sources.length, before = here.sockets.length;
  for (let s = 0; s < 6; s++) {
    await here.after(9_000);
    here.source().say("ping", { cursor: "e:11" });
  }
  await here.after(6_000);
  assert.equal(here.sockets.length, before + 1);
  assert.equal(here.source().closed, false);
  await here.socket().welcome();
  assert.equal(here.socket().lastSince(), "e:11");
  assert.equal(here.source().closed, true);
  assert.equal(here.sources.length, streams);
  assert.equal(here.states.at(-1).transport, "ws");
});

test("where streams fail too it polls, and a poll's page obeys the same rule", async () => {
  const pages = [
    { prev: "e:10", cursor: "e:12", head: "e:12", items: [{ seq: 12, kind: "updated", data: {} }] },
    { prev: "e:12", cursor: "e:15", head: "e:15", items: [{ seq: 15, kind: "updated", data: {} }] },
  ];
  const poll = () => (pages.length ? { body: pages.shift() } : new Promise(() => {}));
  const here = world({ answers: { "GET /api/events": poll } });
  const sub = here.client.subscribe({ kind: "all" }, { since: "e:10" });
  const seen = [];
  sub.on("event", ({ seq }) => seen.push(seq));
  for (let n = 0; n < 3; n++) {
    await here.after(20_000);
    await here.socket().drop();
  }
  for (let n = 0; n < 3; n++) {
    await here.after(20_000);
    here.source().onerror();
    await settle();
  }
  await here.after(20_000);
  assert.deepEqual(seen, [12, 15]);
  assert.equal(here.states.at(-1).transport, "poll");
  const asked = here.requests.map(({ path }) => path).filter((path) => path.startsWith("/api/events"));
  assert.deepEqual(asked, [
    "/api/events?topic=all&since=e%3A10&wait=0&limit=200",
    "/api/events?topic=all&since=e%3A12&wait=25&limit=200",
    "/api/events?topic=all&since=e%3A15&wait=25&limit=200",
  ]);
});

test("a network that swallows answers starts one job: every try bears the same key", async () => {
  let tries = 0;
  const start = () => {
    tries++;
    if (tries === 1) throw new TypeError("fetch failed");
    if (tries === 2) return { status: 503, body: { code: "DRAINING" }, headers: { "Retry-After": "2" } };
    return { status: 202, body: { id: "j" } };
  };
  const here = world({ answers: { "POST /api/bulk/receipts/delete": start } });
  const started = here.client.start("receipts", "delete", { all: true });
  for (let n = 0; n < 5; n++) await here.after(2_000);
  assert.equal((await started).id, "j");
  const keys = here.requests.map(({ headers }) => headers["Idempotency-Key"]);
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
  assert.match(keys[0], /^"[\x21-\x7e]{16,}"$/);
});

test("after 60 s a start gives up, and a refusal is no reason to try again", async () => {
  const here = world({ answers: { "POST /api/bulk/a/b": () => { throw new TypeError("fetch failed"); } } });
  const started = here.client.start("a", "b", {}).catch((error) => error.message);
  for (let n = 0; n < 70; n++) await here.after(1_000);
  assert.equal(await started, "fetch failed");
  const tries = here.requests.length;
  await assert.rejects(here.client.start("no", "such", {}), { code: "NOT_FOUND", status: 404 });
  assert.equal(here.requests.length, tries + 1);
});

test("a start is tried up to the end of its 60 s, however long the waits have become", async () => {
  fixed(1);
  const here = world({ answers: { "POST /api/bulk/a/b": () => {
    if (Date.now() < 59_000) throw new TypeError("fetch failed");
    return { status: 202, body: { id: "j" } };
  } } });
  const started = here.client.start("a", "b", {}).catch((error) => error);
  for (let n = 0; n < 70; n++) await here.after(1_000);
  assert.equal((await started).id, "j");
  mock.restoreAll();
});

test("a Retry-After that is a date asks for no patience", async () => {
  const busy = { status: 503, body: { code: "DRAINING", detail: "later" }, headers: { "Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT" } };
  const here = world({ answers: { "POST /api/bulk/a/b": busy } });
  const started = here.client.start("a", "b", {}).catch((error) => error.code);
  for (let n = 0; n < 70; n++) await here.after(1_000);
  assert.equal(await started, "DRAINING");
  assert.ok(here.requests.length < 20);
});

test("a server that asks for more patience than there is left is not waited for", async () => {
  const busy = { status: 503, body: { code: "DRAINING", detail: "later" }, headers: { "Retry-After": "61" } };
  const here = world({ answers: { "POST /api/bulk/a/b": busy } });
  await assert.rejects(here.client.start("a", "b", {}), { code: "DRAINING" });
  assert.equal(here.requests.filter(({ method }) => method === "POST").length, 1);
});

test("every address lies below the mount, and names cannot lead out of it", async () => {
  const here = world({ url: "https://h/bulk", answers: { "GET /bulk/api/jobs/..%2F..%2Fx": { body: { id: "x" } } } });
  await settle();
  assert.equal(here.socket().url, "wss://h/bulk/ws");
  assert.equal((await here.client.job("../../x").get()).id, "x");
});

test("a client that disconnects says so and leaves nothing behind", async () => {
  const { client, socket, states, sub, after, sockets } = await following();
  client.disconnect();
  assert.equal(states.at(-1).to, "disconnected");
  assert.equal(socket().closed, true);
  await assert.rejects(sub.finished());
  await after(120_000);
  assert.equal(sockets.length, 1);
});
