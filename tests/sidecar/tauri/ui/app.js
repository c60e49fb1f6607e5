// The page: one button that deletes, one that takes it back. A job that runs while the sidecar dies goes on when it
// is back, and so does this page's view of it.

import { follow } from "./sidecar.js";

const STATES = {
  starting: "Starting…",
  ready: "Ready",
  restarting: "The background service ended and is started again.",
  failed: "The background service cannot be started.",
  stopped: "Stopped",
};
const ENDS = { ok: "done", partial: "partly done", none: "failed" };
const part = (id) => document.getElementById(id);
let client, job, followed;

function show({ state, message }) {
  part("state").textContent = [STATES[state], message].filter(Boolean).join(" ");
  part("delete").disabled = part("undo").disabled = state !== "ready";
}

function use(fresh) {
  client = fresh;
  if (job) watch(job);
}

async function act(begin) {
  part("result").textContent = "";
  try {
    job = await begin();
    await watch(job);
  } catch (error) {
    part("result").textContent = error.message;
  }
}

async function watch({ id, cursor }) {
  followed?.unsubscribe();
  const mine = (followed = client.subscribe({ kind: "job", job: id }, { since: cursor }));
  part("progress").hidden = false;
  mine.on("event", ({ data }) => {
    if (data.total) part("progress").value = data.processed / data.total;
  });
  const end = await mine.finished();
  if (mine !== followed) return;
  part("progress").hidden = true;
  part("result").textContent = `${ENDS[end.outcome] ?? end.status}: ${end.succeeded} of ${end.total}`;
}

part("delete").addEventListener("click", () => act(() => client.start("notes", "delete", { all: true })));
part("undo").addEventListener("click", () => act(() => client.job(job.id).undo()));

const transports = new URLSearchParams(location.search).get("transports")?.split(",");
follow({ show, use, transports });
