// A server made of lines: tests say what it sends and when, and read what the client said.

import assert from "node:assert/strict";
import { mock } from "node:test";

import { connect } from "../../static/bulkops.js";

/** Let everything run that waits for nothing but promises. */
export const settle = async () => {
  for (let turn = 0; turn < 60; turn++) await null;
};

class ScriptedSocket {
  readyState = 0;
  said = [];
  closed = false;

  constructor(url, protocols) { Object.assign(this, { url, protocols }); }
  send(text) { this.said.push(JSON.parse(text)); }
  close() { this.closed = true; this.readyState = 3; }

  say(...messages) {
    for (const message of messages) this.onmessage({ data: JSON.stringify(message) });
  }

  async drop(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
    await settle();
  }

  /** Open, and answer hello and every subscription as a server that has everything does. */
  async welcome({ head = "e:0", recover = () => ({ recovered: true }) } = {}) {
    this.readyState = 1;
    this.onopen();
    assert.equal(this.said[0].type, "hello");
    this.say({ type: "welcome", re: 1, epoch: "e", head, user: "ana", ping_ms: 20_000, limits: {}, expires_at: null });
    for (const { id, sub, since } of this.subscriptions())
      this.say({ type: "subscribed", re: id, sub, from: since === "now" ? head : since, head, ...recover(since) });
    await settle();
    return this;
  }

  subscriptions() { return this.said.filter(({ type }) => type === "subscribe"); }
  lastSince() { return this.subscriptions().at(-1)?.since; }
}

class ScriptedEventSource {
  listeners = {};
  closed = false;

  constructor(url) { this.url = url; }
  addEventListener(kind, listener) { this.listeners[kind] = listener; }
  say(kind, data, lastEventId = "") { this.listeners[kind]({ data: JSON.stringify(data), lastEventId }); }
  close() { this.closed = true; }
}

/** A world with a client in it; the clock is a hand's. `answers`: REST by "METHOD path", a value or a function. */
export function world({ answers = {}, ...options } = {}) {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const made = { sockets: [], sources: [], requests: [], states: [] };
  made.stored = new Map();
  made.storage = {
    getItem: (slot) => made.stored.get(slot) ?? null,
    setItem: (slot, value) => made.stored.set(slot, value),
    removeItem: (slot) => made.stored.delete(slot),
  };
  const register = (Kind, list) => function Made(...given) {
    const one = new Kind(...given);
    list.push(one);
    return one;
  };
  const fetch = async (url, init) => {
    const { pathname, search } = new URL(url);
    const body = init.body && JSON.parse(init.body);
    made.requests.push({ method: init.method, path: pathname + search, headers: init.headers, body });
    const answer = answers[`${init.method} ${pathname}`] ?? { status: 404, body: { code: "NOT_FOUND", detail: "no" } };
    const { status = 200, body: said, headers } = await (typeof answer === "function" ? answer(url, init) : answer);
    return new Response(JSON.stringify(said), { status, headers });
  };
  const client = connect({
    url: "http://h:1/", storage: made.storage, fetch, getTicket: () => undefined,
    WebSocket: register(ScriptedSocket, made.sockets), EventSource: register(ScriptedEventSource, made.sources), ...options,
  });
  client.on("state", (change) => made.states.push(change));
  const after = async (ms) => {
    mock.timers.tick(ms);
    await settle();
  };
  return { ...made, client, after, socket: () => made.sockets.at(-1), source: () => made.sources.at(-1) };
}

/** Follow `topic` from `since` over a socket that is up. */
export async function following(topic = { kind: "all" }, since = "e:10", options = {}) {
  const here = world(options);
  const sub = here.client.subscribe(topic, { since });
  const seen = [];
  sub.on("event", ({ seq }) => seen.push(seq));
  await settle();
  await here.socket().welcome({ head: since === "now" ? "e:10" : since, ...options.welcome });
  return { ...here, sub, seen };
}

export const frame = (prev, cursor, seqs, kind = "progress") =>
  ({ type: "events", sub: "s1", prev, cursor, items: seqs.map((seq) => ({ seq, kind, job: "j", data: { seq } })) });
