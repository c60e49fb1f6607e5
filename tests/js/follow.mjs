// Follows one job of a real server and tells the story, one JSON line for each thing it sees.
// Environment: URL, KEY, JOB, SINCE, TRANSPORTS (comma), MODULES (a folder with node_modules).

import { createRequire } from "node:module";

import { connect } from "../../static/bulkops.js";

const { URL: url, KEY, JOB: job, SINCE: since, TRANSPORTS, MODULES } = process.env;
const require = createRequire(`${MODULES}/`);
const { WebSocket } = require("ws");
const { EventSource } = require("eventsource");
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const client = connect({
  url, WebSocket, EventSource, transports: TRANSPORTS.split(","),
  fetch: (at, init = {}) => fetch(at, { ...init, headers: { ...init.headers, "X-API-Key": KEY } }),
});
client.on("state", ({ to, code, transport }) => tell({ state: to, code, transport }));
const sub = client.subscribe({ kind: "job", job }, { since });
sub.on("event", ({ seq, kind, data }) => tell({ seq, kind, processed: data.processed }));
sub.on("reset", ({ reason }) => tell({ reset: reason }));
const done = await sub.finished();
tell({ finished: done.status, outcome: done.outcome, succeeded: done.succeeded, total: done.total });
client.disconnect();
