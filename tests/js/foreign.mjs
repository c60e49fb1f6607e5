// Clients that nobody here wrote follow one job: partysocket over the WebSocket, eventsource over the stream.
// Environment: URL, KEY, JOB, SINCE, MODULES.

import { createRequire } from "node:module";

const { URL: url, KEY, JOB: job, SINCE: since, MODULES } = process.env;
const require = createRequire(`${MODULES}/`);
const { WebSocket: Plain } = require("ws");
const { default: Party } = require("partysocket/ws");
const { EventSource } = require("eventsource");
const headers = { "X-API-Key": KEY };

class WithKey extends Plain {
  constructor(address, protocols) { super(address, protocols, { headers }); }
}

const overSocket = new Promise((done) => {
  const socket = new Party(`${url.replace("http", "ws")}/ws`, ["bulkops.v1"], { WebSocket: WithKey });
  const send = (message) => socket.send(JSON.stringify(message));
  const kinds = [];
  socket.onopen = () => send({ type: "hello", id: 1 });
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "welcome") send({ type: "subscribe", id: 2, sub: "a", topic: { kind: "job", job }, since });
    if (message.type === "ping") send({ type: "pong" });
    for (const { kind } of message.items ?? []) kinds.push(kind);
    if (!kinds.includes("completed")) return;
    socket.close();
    done(kinds);
  };
});

const overStream = new Promise((done) => {
  const source = new EventSource(`${url}/api/jobs/${job}/events?since=${since}`, {
    fetch: (at, init) => fetch(at, { ...init, headers: { ...init.headers, ...headers } }),
  });
  const kinds = [];
  for (const kind of ["queued", "updated", "started", "progress", "completed"]) {
    source.addEventListener(kind, () => kinds.push(kind));
  }
  source.addEventListener("end", () => { source.close(); done(kinds); });
});

process.stdout.write(`${JSON.stringify({ socket: await overSocket, stream: await overStream })}\n`);
