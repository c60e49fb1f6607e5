// The client's rule of the protocol, frame by frame: no gap, no duplicate, no lost ending.

import assert from "node:assert/strict";
import { test } from "node:test";

import { following, frame, settle } from "./scripted.mjs";

const subscribed = (socket, more) => {
  const { id, since } = socket.subscriptions().at(-1);
  socket.say({ type: "subscribed", re: id, sub: "s1", recovered: true, from: since, head: since, ...more });
};

test("events are applied once and in order, and the cursor follows them", async () => {
  const { seen, sub, socket } = await following();
  socket().say(frame("e:10", "e:14", [12, 14]), frame("e:14", "e:15", [15]));
  assert.deepEqual(seen, [12, 14, 15]);
  assert.equal(sub.cursor, "e:15");
});

test("what was applied before is dropped, also within a frame", async () => {
  const { seen, sub, socket } = await following();
  socket().say(frame("e:10", "e:14", [12, 14]), frame("e:10", "e:14", [12, 14]), frame("e:12", "e:16", [14, 16]));
  assert.deepEqual(seen, [12, 14, 16]);
  assert.equal(sub.cursor, "e:16");
});

test("an advance frame moves the cursor without an event", async () => {
  const { seen, sub, socket, stored } = await following();
  socket().say(frame("e:10", "e:50", []), frame("e:50", "e:51", [51]));
  assert.deepEqual(seen, [51]);
  assert.equal(sub.cursor, "e:51");
  assert.equal(stored.get("bulkops:http://h:1/:all"), "e:51");
});

test("a gap is not applied: it is asked for again from the last applied event", async () => {
  const { seen, socket } = await following();
  socket().say(frame("e:10", "e:11", [11]), frame("e:13", "e:14", [14]));
  assert.deepEqual(seen, [11]);
  assert.equal(socket().lastSince(), "e:11");
  subscribed(socket());
  socket().say(frame("e:11", "e:14", [13, 14]));
  assert.deepEqual(seen, [11, 13, 14]);
});

test("frames that were on their way when it asked again are not taken for the answer", async () => {
  const { seen, socket } = await following();
  socket().say(frame("e:13", "e:14", [14]), frame("e:14", "e:15", [15]), frame("e:10", "e:16", [16]));
  assert.deepEqual(seen, []);
  assert.equal(socket().subscriptions().length, 2);
});

test("an answer to an earlier subscription is not an answer to this one", async () => {
  const { seen, socket } = await following();
  const first = socket().subscriptions()[0].id;
  socket().say(frame("e:13", "e:14", [14]));
  socket().say({ type: "subscribed", re: first, sub: "s1", recovered: true, from: "e:10", head: "e:14" });
  socket().say(frame("e:10", "e:14", [14]));
  assert.deepEqual(seen, []);
});

test("a ping that knows more than we do uncovers a lost frame", async () => {
  const { socket } = await following();
  socket().say({ type: "ping", at: "", subs: { s1: "e:10" } });
  assert.equal(socket().subscriptions().length, 1);
  assert.deepEqual(socket().said.at(-1), { type: "pong" });
  socket().say({ type: "ping", at: "", subs: { s1: "e:12" } });
  assert.equal(socket().lastSince(), "e:10");
  assert.equal(socket().subscriptions().length, 2);
});

test("a frame of another epoch is a gap, and a log that was lost is replaced by the state", async () => {
  const answers = { "GET /api/jobs": { body: { items: [{ cursor: "f:7" }], next: null } } };
  const { seen, sub, socket } = await following({ kind: "all" }, "e:10", { answers });
  const resets = [];
  sub.on("reset", (lost) => resets.push(lost));
  socket().say(frame("f:3", "f:40", [40]));
  assert.equal(socket().subscriptions().length, 2);
  assert.equal(socket().lastSince(), "e:10");
  subscribed(socket(), { recovered: false, reason: "epoch", from: "f:6" });
  await settle();
  assert.equal(resets[0].reason, "epoch");
  assert.equal(socket().lastSince(), "f:7");
  subscribed(socket());
  socket().say(frame("f:7", "f:8", [8]));
  assert.deepEqual(seen, [8]);
});

test("a reset fetches the job, takes its cursor, and applies nothing meanwhile", async () => {
  let answer;
  const job = new Promise((resolve) => { answer = resolve; });
  const calls = [{ body: { id: "j", terminal: false, cursor: "e:10" } }, job];
  const answers = { "GET /api/jobs/j": () => calls.shift() };
  const { seen, sub, socket } = await following({ kind: "job", job: "j" }, "e:10", { answers });
  socket().say({ type: "reset", sub: "s1", reason: "trimmed", from: "e:90" }, frame("e:90", "e:91", [91]));
  assert.deepEqual(seen, []);
  answer({ body: { id: "j", terminal: false, cursor: "e:92" } });
  await settle();
  assert.equal(sub.cursor, "e:92");
  assert.equal(socket().lastSince(), "e:92");
});

test("the cursor is saved after the events were applied, never before", async () => {
  const { sub, socket, stored } = await following();
  const atEvent = [];
  sub.on("event", () => atEvent.push(stored.get("bulkops:http://h:1/:all")));
  socket().say(frame("e:10", "e:12", [11, 12]));
  assert.deepEqual(atEvent, ["e:10", "e:10"]);
  assert.equal(stored.get("bulkops:http://h:1/:all"), "e:12");
});

test("a reloaded tab goes on where its storage says", async () => {
  const { client, storage } = await following();
  client.disconnect();
  storage.setItem("bulkops:http://h:1/:job:j", "e:33");
  const later = await following({ kind: "job", job: "j" }, null, { storage });
  assert.equal(later.socket().lastSince(), "e:33");
});

test("a job's end is told once, ends the iteration, and leaves nothing stored", async () => {
  const answers = { "GET /api/jobs/j": { body: { terminal: false, cursor: "e:10" } } };
  const { sub, socket, stored, client } = await following({ kind: "job", job: "j" }, "e:10", { answers });
  const walked = (async () => {
    const kinds = [];
    for await (const event of sub) kinds.push(event.kind);
    return kinds;
  })();
  socket().say(frame("e:10", "e:11", [11]), frame("e:11", "e:12", [12], "completed"), frame("e:12", "e:13", [13]));
  assert.deepEqual(await walked, ["progress", "completed"]);
  assert.deepEqual(await sub.finished(), { seq: 12 });
  assert.equal(stored.size, 0);
  assert.equal(client.subs.size, 0);
  assert.equal(socket().said.at(-1).type, "unsubscribe");
});

test("a job that had ended before we followed is seen to have ended", async () => {
  const ended = { terminal: true, status: "completed", succeeded: 3, cursor: "e:10" };
  const { sub } = await following({ kind: "job", job: "j" }, "e:10", { answers: { "GET /api/jobs/j": { body: ended } } });
  assert.equal((await sub.finished()).succeeded, 3);
});

test("an end that the state knows before the events do waits for them", async () => {
  const ended = { terminal: true, status: "completed", cursor: "e:20" };
  const { sub, seen, socket } = await following({ kind: "job", job: "j" }, "e:10", { answers: { "GET /api/jobs/j": { body: ended } } });
  socket().say(frame("e:10", "e:12", [11, 12]), frame("e:12", "e:13", [13], "completed"));
  await sub.finished();
  assert.deepEqual(seen, [11, 12, 13]);
});

test("an end that no event tells any more is believed once we are as far as the state", async () => {
  const ended = { terminal: true, status: "cancelled", cursor: "e:20" };
  const answers = { "GET /api/jobs/j": { body: ended } };
  const { sub, socket } = await following({ kind: "job", job: "j" }, "e:10", { answers });
  socket().say(frame("e:10", "e:19", []));
  assert.equal(sub.waiting, false);
  socket().say(frame("e:19", "e:20", []));
  assert.equal((await sub.finished()).status, "cancelled");
});

test("a failed job that was resumed has not ended", async () => {
  const answers = { "GET /api/jobs/j": { body: { terminal: false, cursor: "e:10" } } };
  const { sub, socket, seen } = await following({ kind: "job", job: "j" }, "e:10", { answers });
  const kinds = ["failed", "resumed", "progress"];
  socket().say({ ...frame("e:10", "e:13", []), items: kinds.map((kind, n) => ({ seq: 11 + n, kind, data: { n } })) });
  socket().say(frame("e:13", "e:14", [14], "completed"));
  await sub.finished();
  assert.deepEqual(seen, [11, 12, 13, 14]);
});

test("a topic that is not ours is an error of its subscription alone", async () => {
  const { client, sub, socket } = await following();
  const other = client.subscribe({ kind: "job", job: "x" }, { since: "e:1" });
  const { id } = socket().subscriptions().at(-1);
  socket().say({ type: "error", re: id, code: "NOT_FOUND", message: "no such job", temporary: false });
  await assert.rejects(other.finished(), { code: "NOT_FOUND" });
  socket().say(frame("e:10", "e:11", [11]));
  assert.equal(sub.cursor, "e:11");
});

test("a listener that throws stops neither the others nor the cursor", async () => {
  const { sub, seen, socket, after } = await following();
  sub.on("event", () => { throw new Error("mine"); });
  socket().say(frame("e:10", "e:11", [11]));
  assert.deepEqual([seen, sub.cursor], [[11], "e:11"]);
  await assert.rejects(after(1), { message: "mine" });
});
