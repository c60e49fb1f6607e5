// The file deletion queue: files whose rows are gone and that still wait, and those that nobody could remove. It can be
// worked off now; what ended badly can be tried again or given up.

import { at, query } from "./api.js";
import { listView, removed, rowButtons } from "./caretaking.js";
import { atMostEvery, make, write } from "./dom.js";
import { bytes, count, named, text } from "./messages.js";
import { button, code, distanceOf, instantOf } from "./parts.js";
import { emptyNote } from "./problem.js";

const REFRESH_MS = 2_000, BATCH = 1_000, ATTEMPTS = 8;
const TONES = { dead: "bad", refused: "bad", shared: "warn", superseded: "warn", missing: "warn", moving: "live", purging: "live" };
const STATES = {
  queued: "stateQueued", moving: "stateMoving", purging: "statePurging", restoring: "stateRestoring", trashed: "stateTrashed", dead: "stateDead",
  refused: "stateRefused", shared: "stateShared", superseded: "stateSuperseded", missing: "stateMissing",
};
const FIGURES = { pending: "queuePending", retrying: "queueRetrying", dead: "queueDead", bytes: "queueBytes", oldest: "queueOldest" };
const AGAIN = new Set(["dead", "refused", "shared", "superseded", "missing"]);

/** Open the queue. */
export function open({ page, signal }) {
  const figures = Object.fromEntries(Object.keys(FIGURES).map((name) => [name, make("dd", { class: "number", text: "–" })]));
  const facts = make("dl", { class: "tiles" }, ...Object.entries(figures).map(([name, dd]) => make("div", {}, make("dt", { text: text(FIGURES[name]) }), dd)));

  async function recount() {
    const stats = await page.ask("GET", "api/cleanup/stats", undefined, { signal }).catch(() => null);
    if (!stats) return;
    for (const name of ["pending", "retrying", "dead"]) write(figures[name], count(stats[name]));
    write(figures.bytes, bytes(stats.bytes));
    figures.oldest.replaceChildren(stats.oldest_at ? distanceOf(stats.oldest_at) : "–");
  }

  async function run() {
    go.disabled = true;
    const done = await page.attempt(() => page.ask("POST", `api/cleanup/run${query({ batch_size: BATCH, max_attempts: ATTEMPTS })}`));
    go.disabled = false;
    if (done) page.toast(text("queueRan", { n: done.removed + done.missing }), { detail: text("queueRanDetail", done) });
    again();
  }

  async function requeue(row) {
    if (await page.attempt(() => page.ask("POST", at("cleanup", "items", row.id, "requeue")))) again();
  }

  const drop = (row) => removed(page, list, { title: text("dropTitle"), message: text("dropMessage", { path: row.path }), action: text("dropYes"), path: at("cleanup", "items", row.id) });
  const go = button(text("queueRun"), run, { picture: "play", names: "primary" });
  const { element, list } = listView({
    title: text("navQueue"), intro: text("queueIntro"), actions: [go], tools: [facts], signal,
    fetch: ({ limit, page: token }) => page.ask("GET", `api/cleanup/items${query({ limit, page: token })}`),
    table: {
      idOf: ({ id }) => String(id), nameOf: ({ path }) => path,
      columns: [
        { name: "path", label: text("file"), cell: ({ path }) => code(path) },
        { name: "state", label: text("status"), cell: ({ state }) => make("span", { class: "badge", "data-tone": TONES[state] ?? "plain", text: STATES[state] ? text(STATES[state]) : named(state) }) },
        { name: "error", label: text("queueWhy"), priority: 2, cell: ({ error, attempts }) => [attempts ? text("attempts", { n: attempts }) : "", error ?? ""].filter(Boolean).join(" · ") },
        { name: "size", label: text("size"), end: true, priority: 3, cell: ({ bytes: size }) => (size === null ? "" : bytes(size)) },
        { name: "since", label: text("since"), priority: 3, cell: ({ created_at: since }) => instantOf(since) },
        { name: "acts", label: text("actions"), end: true, cell: (row) => rowButtons(AGAIN.has(row.state) && button(text("requeue"), () => requeue(row)), AGAIN.has(row.state) && button(text("drop"), () => drop(row), { names: "danger" })) },
      ],
      empty: () => emptyNote({ title: text("noQueueTitle"), detail: text("noQueue"), picture: "check" }),
    },
  });
  const again = atMostEvery(REFRESH_MS, () => { recount(); list.refresh(); }, signal);
  for (const name of ["changed", "ended", "reset"]) page.live.on(name, again, signal);
  recount();
  return { element };
}
