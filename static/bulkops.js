// The client of bulkops; bulkops.d.ts tells how to use it. A cursor goes in, every later event comes out, once and
// in order, over a WebSocket, else server-sent events, else polling. Nothing is saved before it was applied.

const SILENCE_MS = 25_000, STABLE_MS = 5_000, SOCKET_AGAIN_MS = 60_000, TRIES = 3;
const TIMEOUT_MS = 5_000, PATIENCE_MS = 60_000, POLL_S = 25;
const MAX_STREAMS = 4; // of the six connections that browsers open to a host
const ENDS = ["completed", "failed", "cancelled"];
const MOVES = ["queued", "started", "resumed", "progress", "paused"];
const KINDS = [...ENDS, ...MOVES, "updated", "changed", "task_completed"];

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const safe = encodeURIComponent;
const backOff = (n) => Math.min(20_000, 500 + Math.random() * Math.min(20_000, 500 * 2 ** n));
const comesBack = (code) => code !== 1000 && code !== 1009 && !(code >= 4500 && code < 5000);
const textOf = ({ kind, job, task_id }) => [kind, job ?? task_id].filter(Boolean).join(":");
const failure = (problem, status, wait) =>
  Object.assign(new Error(problem.detail ?? `status ${status}`), { status, code: problem.code, problem, wait });

function place(cursor) {
  const [epoch, seq] = cursor.split(":");
  return { epoch, seq: Number(seq) };
}

class Emitter {
  #listeners = new Map();

  on(name, listener) {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(listener));
    return () => all.delete(listener);
  }

  emit(name, value) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(value);
      } catch (error) {
        setTimeout(() => { throw error; }, 0); // a listener's own fault stops no other
      }
    }
  }
}

/** One followed topic: the client's rule, whatever carries the frames. */
class Subscription extends Emitter {
  waiting = true;
  #client; #mine; #first; #slot; #turn = 0; #over; #error; #end; #state; #checked;

  constructor(client, name, topic, since) {
    super();
    this.#client = client;
    this.name = name;
    this.topic = topic;
    this.#slot = `bulkops:${client.base}:${textOf(topic)}`;
    this.#first = since ?? client.stored(this.#slot) ?? "now";
    this.#end = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.#end.catch(() => {});
  }

  get cursor() { return this.#mine ? `${this.#mine.epoch}:${this.#mine.seq}` : this.#first; }
  finished() { return this.#end; }

  follow() {
    this.waiting = true;
    if (!this.#over) this.#client.attach(this);
  }

  begun({ recovered, reason, from }) {
    if (!recovered) return this.reset(reason, from);
    this.waiting = false;
    this.#mine ??= place(from);
    this.#save();
    this.check().catch(() => {}); // the next connection asks again
  }

  #lacks(cursor) {
    const { epoch, seq } = place(cursor);
    return epoch !== this.#mine.epoch || seq > this.#mine.seq;
  }

  frame({ prev, cursor, items }) {
    if (this.waiting || this.#over) return;
    if (this.#lacks(prev)) return this.follow();
    const mine = this.#mine;
    let end;
    for (const event of items) {
      if (event.seq <= mine.seq || this.#over) continue;
      mine.seq = event.seq;
      this.emit("event", event);
      end = this.#endAfter(event, end);
    }
    mine.seq = Math.max(mine.seq, place(cursor).seq);
    this.#save();
    if (end) this.end(end);
    else this.#settle();
  }

  /** A failed job may be resumed in the same frame. */
  #endAfter({ kind, data }, end) {
    if (this.topic.kind === "task") return kind === "task_completed" ? data : end;
    if (this.topic.kind !== "job" || MOVES.includes(kind)) return null;
    return ENDS.includes(kind) ? data : end;
  }

  sent(cursor) {
    if (!this.waiting && this.#lacks(cursor)) this.follow();
  }

  /** Events are lost for good; the state takes their place. */
  async reset(reason, from) {
    const turn = ++this.#turn, { kind, job, task_id } = this.topic;
    this.waiting = true;
    const path = { job: `jobs/${safe(job)}`, task: `tasks/${safe(task_id)}` }[kind] ?? "jobs";
    try {
      const state = await this.#client.request("GET", `api/${path}`, undefined, { patience: PATIENCE_MS });
      if (turn !== this.#turn || this.#over) return;
      this.#mine = place(state.cursor ?? state.items[0]?.cursor ?? from);
      this.emit("reset", { reason, state });
      this.#save();
      if (state.terminal) return this.end(state);
    } catch (error) {
      if (turn !== this.#turn) return;
      if (error.status) return this.end(null, error);
    }
    this.follow();
  }

  /** A job that ended before our cursor never says so. `surely`: nothing more will come. */
  async check(surely) {
    const isJob = this.topic.kind === "job";
    if (!surely && (!isJob || this.#checked)) return;
    const state = await this.#client.request("GET", isJob ? `api/jobs/${safe(this.topic.job)}` : "api/me");
    this.#checked = true;
    if (state.terminal && surely) this.end(state);
    if (state.terminal) this.#state = state;
    this.#settle();
  }

  #settle() {
    if (!this.waiting && this.#state && !this.#lacks(this.#state.cursor)) this.end(this.#state);
  }

  #save() { this.#client.stored(this.#slot, this.cursor); }

  end(data, error) {
    if (this.#over) return;
    this.#over = true;
    this.#error = error;
    this.#client.drop(this);
    if (data) {
      this.#client.stored(this.#slot, null);
      this.resolve(data);
    } else this.reject(error ?? new Error("unsubscribed"));
    if (error) this.emit("error", error);
    this.emit("end");
  }

  unsubscribe() { this.end(); }

  [Symbol.asyncIterator]() {
    const queue = [];
    let wake;
    const off = this.on("event", (event) => { queue.push(event); wake?.(); });
    this.on("end", () => wake?.());
    return (async function* (sub) {
      try {
        for (;;) {
          while (queue.length) yield queue.shift();
          if (sub.#error) throw sub.#error;
          if (sub.#over) return;
          await new Promise((done) => { wake = done; });
        }
      } finally {
        off();
      }
    })(this);
  }
}

class Socket {
  #client; #socket; #welcomed; #closed; #watch; #heard; #bye; #id = 1; #beat = SILENCE_MS;

  constructor(client) { this.#client = client; }

  async open() {
    const client = this.#client;
    this.#listen();
    try {
      const ticket = await client.ticket();
      if (this.#closed) return;
      const socket = (this.#socket = new client.WebSocket(client.at("ws").replace("http", "ws"), ["bulkops.v1"]));
      socket.onopen = () => this.#send({ type: "hello", id: 1, ticket });
      socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
      socket.onclose = ({ code, reason }) => this.#lost(code, reason);
      socket.onerror = () => {}; // close follows
    } catch (error) {
      client.failed(this, error);
    }
  }

  #send(message) { if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message)); }

  #listen() {
    this.#heard = Date.now();
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.#lost(1006, "silence"), this.#beat);
  }

  /** After a sleep timers are late, but clocks are not. */
  look() { if (Date.now() - this.#heard > this.#beat) this.#lost(1006, "silence"); }

  #hear(message) {
    if (this.#closed) return;
    this.#listen();
    const { subs } = this.#client, sub = subs.get(message.sub);
    const asked = [...subs.values()].find((each) => each.asked === message.re);
    switch (message.type) {
      case "welcome":
        this.#beat = message.ping_ms * 2;
        this.#welcomed = true;
        this.#client.up(this);
        return subs.forEach((each) => this.attach(each));
      case "subscribed": return asked?.begun(message);
      case "error":
        if (message.temporary) return setTimeout(() => asked?.follow(), 2_000);
        return asked?.end(null, failure({ ...message, detail: message.message }));
      case "events": return sub?.frame(message);
      case "reset": return sub?.reset(message.reason, message.from);
      case "ping":
        this.#send({ type: "pong" });
        for (const name in message.subs) subs.get(name)?.sent(message.subs[name]);
        return;
      case "bye": this.#bye = message;
    }
  }

  attach(sub) {
    if (!this.#welcomed) return;
    sub.asked = ++this.#id; // until it is answered, frames are the earlier subscription's
    this.#send({ type: "subscribe", id: sub.asked, sub: sub.name, topic: sub.topic, since: sub.cursor });
  }

  detach(sub) { this.#send({ type: "unsubscribe", id: ++this.#id, sub: sub.name }); }
  #lost(code, reason) { this.#client.lost(this, code, reason, this.#bye?.retry_after_ms); }

  close() {
    this.#closed = true;
    clearTimeout(this.#watch);
    if (this.#socket) this.#socket.onclose = null;
    this.#socket?.close();
  }
}

class Requests {
  constructor(client) { this.client = client; }

  open() {
    const { subs } = this.client;
    if (!subs.size) this.client.up(this);
    for (const sub of subs.values()) this.attach(sub);
  }

  async attach(sub) {
    this.detach(sub);
    sub.waiting = true;
    const turn = (sub.turn = new AbortController()), { signal } = turn;
    try {
      await this.run(sub, signal);
    } catch (error) {
      if (signal.aborted) return;
      if ([403, 404, 422].includes(error.status)) sub.end(null, error);
      else this.client.failed(this, error);
    }
  }

  async path(sub, more) {
    const ticket = await this.client.ticket();
    const query = { topic: textOf(sub.topic), since: sub.cursor, ...more, ...(ticket && { ticket }) };
    return `api/events?${new URLSearchParams(query)}`;
  }

  detach(sub) { sub.turn?.abort(); }
  close() { this.client.subs.forEach(this.detach); }
}

class Stream extends Requests {
  async run(sub, signal) {
    const { client } = this;
    if (client.subs.size > MAX_STREAMS) throw new RangeError("too many");
    const path = await this.path(sub);
    if (signal.aborted) return;
    const source = new client.EventSource(client.at(path));
    let ready, watch;
    const lost = (code, reason, wait) => signal.aborted || client.lost(this, code, reason, wait);
    const hear = () => {
      clearTimeout(watch);
      watch = setTimeout(lost, SILENCE_MS, 1006, "silence");
    };
    signal.onabort = () => { clearTimeout(watch); source.close(); };
    const on = (kind, act) => source.addEventListener(kind, ({ data, lastEventId }) => {
      if (signal.aborted) return;
      hear();
      act(JSON.parse(data), lastEventId);
    });
    on("ready", (data, from) => { ready = true; client.up(this); sub.begun({ ...data, from }); });
    for (const kind of KINDS) on(kind, (item, cursor) => sub.frame({ prev: item.prev, cursor, items: [item] }));
    on("reset", (data) => sub.reset(data.reason, data.from));
    on("ping", (data) => sub.sent(data.cursor));
    on("end", () => { this.detach(sub); sub.check(true).catch(() => this.attach(sub)); });
    on("bye", (data) => lost(data.code, data.reason, data.retry_after_ms));
    source.onerror = async () => {
      source.close();
      try {
        if (!ready) await sub.check(true); // 204 or 401: a stream shows no status
        lost(1006, "stream");
      } catch (error) {
        if (!signal.aborted) client.failed(this, error);
      }
    };
    hear();
  }
}

class Poll extends Requests {
  async run(sub, signal) {
    const { client } = this;
    while (!signal.aborted) {
      const many = client.subs.size > MAX_STREAMS;
      const path = await this.path(sub, { wait: many || sub.waiting ? 0 : POLL_S, limit: 200 });
      const page = await client.request("GET", path, undefined, { timeout: 2_000 * POLL_S, signal });
      if (signal.aborted) return;
      client.up(this);
      if (page.reset) return sub.reset(page.reset, page.cursor);
      if (sub.waiting) sub.begun({ recovered: true, from: page.prev });
      sub.frame(page);
      if (many) await sleep(2_000);
    }
  }
}

class Client extends Emitter {
  subs = new Map();
  #state = "disconnected"; #options; #transports; #level = 0; #line; #probe; #names = 0;
  #timer; #stable; #again; #tries = 0; #failed = 0; #refused; #stopped;

  constructor(options) {
    super();
    this.#options = options;
    this.WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.EventSource = options.EventSource ?? globalThis.EventSource;
    this.base = new URL(options.url ?? "/", globalThis.document?.baseURI).href.replace(/[?#].*|\/*$/g, "") + "/";
    const works = { ws: this.WebSocket, sse: this.EventSource, poll: true };
    this.#transports = (options.transports ?? ["ws", "sse", "poll"]).filter((name) => works[name]);
    globalThis.addEventListener?.("online", this.#online);
    globalThis.document?.addEventListener("visibilitychange", this.#visible);
    queueMicrotask(() => this.#connect());
  }

  at(path) { return this.base + path; }

  async ticket() {
    const { getTicket, fetch } = this.#options;
    if (getTicket) return getTicket();
    return fetch && (await this.request("POST", "api/tickets", {})).ticket;
  }

  stored(slot, cursor) {
    try {
      const { storage } = this.#options;
      if (cursor === undefined) return storage?.getItem(slot);
      if (cursor) storage?.setItem(slot, cursor);
      else storage?.removeItem(slot);
    } catch { /* costs a replay, not an event */ }
  }

  subscribe(topic, { since } = {}) {
    if (this.subs.size > 31) throw new RangeError("too many");
    const sub = new Subscription(this, `s${++this.#names}`, topic, since);
    this.subs.set(sub.name, sub);
    sub.follow();
    return sub;
  }

  attach(sub) { this.#line?.attach(sub); }

  drop(sub) {
    this.subs.delete(sub.name);
    this.#line?.detach(sub);
  }

  #to(to, code, reason) {
    const from = this.#state;
    this.#state = to;
    if (from !== to) this.emit("state", { from, to, code, reason, transport: this.#transports[this.#level] });
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#stopped) return;
    this.#to("connecting");
    this.#line = new { ws: Socket, sse: Stream, poll: Poll }[this.#transports[this.#level]](this);
    this.#line.open();
  }

  up(line) {
    if (line === this.#probe) {
      clearTimeout(this.#timer);
      this.#line?.close();
      this.#line = line;
      this.#probe = this.#timer = null;
      this.#level = this.#transports.indexOf("ws");
      this.#to("connecting");
    }
    if (this.#state === "connected") return;
    this.#refused = false;
    this.#stable = setTimeout(() => { this.#tries = this.#failed = this.#stable = 0; }, STABLE_MS);
    this.#to("connected");
  }

  failed(line, error) { this.lost(line, error.status === 401 ? 4501 : 1006, error.message, error.wait); }

  lost(line, code, reason, wait) {
    line.close();
    if (line === this.#probe) this.#probeIn(SOCKET_AGAIN_MS);
    if (line !== this.#line) return;
    this.#line = null;
    clearTimeout(this.#stable);
    const again = code === 4501 ? !this.#refused : comesBack(code);
    this.#refused = code === 4501;
    if (!again) return this.#stop(code, reason, failure({ detail: reason }, code));
    const stood = this.#state === "connected" && !this.#stable;
    if (!stood && globalThis.navigator?.onLine !== false) this.#failed++;
    if (this.#failed >= TRIES && this.#level + 1 < this.#transports.length) {
      this.#level++;
      this.#failed = 0;
      this.#probeIn(SOCKET_AGAIN_MS);
    }
    this.#to("connecting", code, reason);
    const ms = wait ? wait * (0.75 + Math.random() / 2) : backOff(this.#tries);
    this.#tries++;
    this.#timer = setTimeout(() => this.#connect(), ms);
  }

  #probeIn(ms) {
    clearTimeout(this.#again);
    this.#probe = null;
    if (this.#level > this.#transports.indexOf("ws") && this.#transports.includes("ws"))
      this.#again = setTimeout(() => (this.#probe = new Socket(this)).open(), ms);
  }

  #online = () => { // another network: the old line may be dead without a word
    this.#line?.close();
    this.#tries = this.#failed = this.#level = 0;
    this.#to("connecting", 1006, "online");
    this.#connect();
  };

  #visible = () => {
    if (document.visibilityState === "hidden") return;
    if (this.#timer) this.#connect();
    else this.#line?.look?.();
    if (!this.#probe) this.#probeIn(0);
  };

  #stop(code, reason, error) {
    this.#stopped = true;
    for (const timer of [this.#timer, this.#stable, this.#again]) clearTimeout(timer);
    for (const line of [this.#line, this.#probe]) line?.close();
    globalThis.removeEventListener?.("online", this.#online);
    globalThis.document?.removeEventListener("visibilitychange", this.#visible);
    this.#to("disconnected", code, reason);
    for (const sub of [...this.subs.values()]) sub.end(null, error);
  }

  disconnect() { this.#stop(1000, "disconnected"); }

  async request(method, path, body, { key, patience = 0, timeout = TIMEOUT_MS, signal } = {}) {
    const until = Date.now() + patience, { fetch = globalThis.fetch } = this.#options;
    const headers = { Accept: "application/json" };
    if (key) headers["Idempotency-Key"] = `"${key}"`;
    if (body) headers["Content-Type"] = "application/json";
    for (let n = 0; ; n++) {
      let after = 0;
      try {
        const ends = AbortSignal.any([AbortSignal.timeout(timeout), signal].filter(Boolean));
        const answer = await fetch(this.at(path), { method, headers, body: JSON.stringify(body), signal: ends });
        const text = await answer.text();
        if (answer.ok) return text && JSON.parse(text);
        after = 1000 * answer.headers.get("retry-after") || 0; // a date counts as none
        throw failure(text.startsWith("{") ? JSON.parse(text) : {}, answer.status, after);
      } catch (error) {
        const left = until - Date.now();
        if (error.status < 502 || error.code === "QUEUE_FULL" || signal?.aborted || left <= after) throw error;
        await sleep(Math.max(after, Math.min(backOff(n), left)));
      }
    }
  }

  /** One key for all tries makes one job. */
  #post(path, body = {}, options) {
    const key = crypto.getRandomValues(new Uint32Array(4)).join("-"); // randomUUID needs https
    return this.request("POST", path, body, { ...options, key, patience: PATIENCE_MS });
  }

  start(resource, action, body, options) {
    return this.#post(`api/bulk/${safe(resource)}/${safe(action)}`, body, options);
  }

  job(id) {
    const path = `api/jobs/${safe(id)}`;
    const job = { id, get: () => this.request("GET", path) };
    for (const verb of ["pause", "resume", "cancel", "retry", "undo"])
      job[verb] = (body) => this.#post(`${path}/${verb}`, body);
    return job;
  }
}

export const connect = (options = {}) => new Client(options);
