// Random stories against a model of the server: frames get lost or doubled, sockets die, the log is trimmed,
// filtered and lost. Whatever happens, nothing is applied twice, and nothing is missed but what a reset replaced.

import assert from "node:assert/strict";
import { test } from "node:test";

import { settle, world } from "./scripted.mjs";

const STORIES = 400, STEPS = 60;

/** A small generator (mulberry32, public domain, T. Ettinger), so that a seed tells its story again. */
function dice(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

class ModelServer {
  epoch = 0; head = 0; floor = 1; visible = []; sent = null;

  cursor(seq = this.head) { return `e${this.epoch}:${seq}`; }
  append(isVisible) {
    this.head++;
    if (isVisible) this.visible.push(this.head);
  }
  trim(to) {
    this.floor = Math.max(this.floor, to);
    this.visible = this.visible.filter((seq) => seq >= this.floor);
  }
  lose() {
    this.epoch++;
    Object.assign(this, { head: this.head % 7, floor: 1, visible: [] });
  }
  loss(since) {
    const [epoch, seq] = since.split(":");
    if (epoch !== `e${this.epoch}`) return "epoch";
    if (Number(seq) > this.head) return "ahead";
    return Number(seq) + 1 < this.floor ? "trimmed" : null;
  }
  begin({ id, sub, since }) {
    const reason = this.loss(since);
    this.sent = reason ? this.head : Number(since.split(":")[1]);
    const more = reason ? { recovered: false, reason } : { recovered: true };
    return { type: "subscribed", re: id, sub, from: this.cursor(this.sent), head: this.cursor(), ...more };
  }
  next(most) {
    if (this.sent > this.head || this.sent + 1 < this.floor) {
      this.sent = this.head;
      return { type: "reset", sub: "s1", reason: "trimmed", from: this.cursor() };
    }
    const found = this.visible.filter((seq) => seq > this.sent).slice(0, most);
    const prev = this.cursor(this.sent);
    this.sent = found.length === most ? found.at(-1) : this.head;
    return { type: "events", sub: "s1", prev, cursor: this.cursor(this.sent), items: found.map((seq) => ({ seq, kind: "updated", data: {} })) };
  }
}

async function tell(seed) {
  const random = dice(seed), chance = (p) => random() < p;
  const server = new ModelServer();
  for (let n = 0; n < 5; n++) server.append(chance(0.5));
  let connected = null, answered = 0;
  const state = () => ({ body: { items: [{ cursor: server.cursor() }], next: null } });
  const here = world({ answers: { "GET /api/jobs": state } });
  const sub = here.client.subscribe({ kind: "all" }, { since: server.cursor() });
  let expected = { epoch: server.epoch, after: server.head }, applied = [];
  sub.on("event", ({ seq }) => applied.push({ seq, epoch: Number(sub.cursor.slice(1).split(":")[0]) }));
  sub.on("reset", () => { expected = { epoch: server.epoch, after: Number(sub.cursor.split(":")[1]) }; applied = []; });
  const everSeen = new Set();
  sub.on("event", ({ seq }) => {
    const key = sub.cursor.split(":")[0] + ":" + seq;
    assert.ok(!everSeen.has(key), `seed ${seed}: ${key} was applied twice`);
    everSeen.add(key);
  });

  /** Answer what was asked. */
  const serve = async () => {
    for (let round = 0; round < 20; round++) {
      await settle();
      const asked = connected?.subscriptions() ?? [];
      if (answered === asked.length) return;
      for (; answered < asked.length; answered++) connected.say(server.begin(asked[answered]));
    }
    throw new Error(`seed ${seed}: it asks again and again`);
  };
  const open = async () => {
    while (connected !== here.socket() || connected.closed) {
      const socket = here.socket();
      if (socket && !socket.closed && socket.readyState === 0) {
        connected = socket;
        answered = 0;
        socket.readyState = 1;
        socket.onopen();
        socket.say({ type: "welcome", re: 1, ping_ms: 20_000 });
      } else await here.after(1_000);
    }
    await serve();
  };
  const ping = () => connected.say({ type: "ping", at: "", subs: { s1: server.cursor(server.sent) } });
  await settle();
  await open();
  for (let step = 0; step < STEPS; step++) {
    const roll = random();
    if (roll < 0.45) server.append(chance(0.6));
    else if (roll < 0.75) {
      const next = server.next(1 + Math.floor(random() * 3));
      if (chance(0.75)) connected.say(next);
      if (chance(0.15)) connected.say(next);
    } else if (roll < 0.83) ping();
    else if (roll < 0.93) {
      connected.closed = true;
      await connected.drop(1006);
      await open();
    } else if (roll < 0.97) server.trim(server.head - Math.floor(random() * 4));
    else if (chance(0.4)) {
      server.lose();
      connected.closed = true;
      await connected.drop(1006);
      await open();
    }
    await serve();
  }
  for (let n = 0; n < 40; n++) {
    connected.say(server.next(200));
    await serve();
    ping();
    await serve();
  }
  assert.equal(sub.cursor, server.cursor(), `seed ${seed}`);
  assert.equal(expected.epoch, server.epoch, `seed ${seed}`);
  const seqs = applied.map(({ seq }) => seq);
  assert.deepEqual(seqs, [...seqs].sort((a, b) => a - b), `seed ${seed}: out of order`);
  const missed = server.visible.filter((seq) => seq > expected.after && !seqs.includes(seq));
  assert.deepEqual(missed, [], `seed ${seed}`);
  here.client.disconnect();
}

test(`${STORIES} random stories: never twice, never missed`, async () => {
  for (let seed = 1; seed <= STORIES; seed++) await tell(seed);
});
