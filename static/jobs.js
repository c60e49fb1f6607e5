// The jobs, newest first, each a live <bulk-progress>. They share one subscription to everything the caller may
// see: a list of any length costs one stream.

import { make } from "./dom.js";
import { count, text, time } from "./messages.js";

const PAGE = 25;

/** Build the section; `ask` asks the API. */
export function jobSection({ ask, client }) {
  const list = make("ul", { class: "stack" });
  const empty = make("p", { class: "empty", text: text("noJobs"), hidden: true });
  const more = make("button", { type: "button", class: "more", text: text("more"), hidden: true });
  const title = make("h2", { id: "jobs", text: text("jobs") });
  const section = make("section", { "aria-labelledby": "jobs" }, title, make("div", { class: "stack" }, empty, list, more));
  const entries = new Map(), asked = new Set();
  let next = null, subscription = null;

  async function page(token) {
    const { items, next: following } = await ask("GET", `api/jobs?limit=${PAGE}${token ? `&page=${encodeURIComponent(token)}` : ""}`);
    next = following;
    more.hidden = !next;
    return items;
  }

  /** Fill the list anew, and follow from where it stands; resolves with the subscription. */
  async function load() {
    const jobs = await page();
    subscription ??= follow(jobs[0]?.cursor ?? "earliest");
    entries.clear();
    list.replaceChildren();
    jobs.forEach(show);
    empty.hidden = entries.size > 0;
    return subscription;
  }

  function follow(since) {
    const all = client.subscribe({ kind: "all" }, { since });
    all.on("event", (event) => {
      const isNew = event.job && event.source === "user" && event.kind !== "changed" && !entries.has(event.job);
      if (isNew && isYoung(event.job)) fetchJob(event.job);
    });
    return all;
  }

  /** Ids grow with time; jobs older than the last one shown are on a page that was not asked for. */
  const isYoung = (id) => !next || id > [...entries.keys()].sort()[0];

  async function fetchJob(id) {
    if (asked.has(id)) return;
    asked.add(id);
    try {
      show(await client.job(id).get());
    } catch { /* its next event asks again */ }
    asked.delete(id);
  }

  function show(job) {
    if (entries.has(job.id)) return entries.get(job.id);
    const entry = row(job, client, subscription);
    entries.set(job.id, entry);
    const older = [...list.children].find((each) => each.dataset.job < job.id);
    list.insertBefore(entry, older ?? null);
    empty.hidden = true;
    return entry;
  }

  more.addEventListener("click", async () => {
    const first = (await page(next)).map(show)[0];
    first?.focus();
  });
  list.addEventListener("bulk-undo", adopt);
  list.addEventListener("bulk-retry", adopt);
  function adopt(event) {
    event.preventDefault(); // a new job is a new entry
    reveal(event.detail);
  }

  /** Show a job that was just started, and take the reader there. */
  function reveal(job) {
    const entry = show(job);
    entry.focus({ preventScroll: true });
    entry.scrollIntoView({ block: "nearest" });
  }

  return { section, load, reveal };
}

function row(job, client, subscription) {
  const progress = make("bulk-progress", {}, make("p", { slot: "about", class: "muted", text: about(job) }));
  progress.client = client;
  progress.subscription = subscription;
  progress.view = job;
  return make("li", { class: "card job", tabindex: -1, "data-job": job.id }, progress);
}

/** Who, when, whose, and which items, in one line. */
function about(job) {
  const parts = [text("by", { user: job.requested_by, time: time(job.created_at) })];
  if (job.tenant) parts.push(text("ofTenant", { tenant: job.tenant }));
  if (job.undo_of) parts.push(text("undoOf"));
  else if (job.retry_of) parts.push(text("retryOf"));
  else parts.push(chosen(job.selection));
  if (job.reason) parts.push(`“${job.reason}”`);
  return parts.join(" · ");
}

function chosen({ kind, filter, count: number }) {
  if (kind === "all") return text("selectedAll");
  if (kind === "filter") return Object.entries(filter).map(([column, test]) => `${column}: ${written(test)}`).join(", ");
  return text("selectedIds", { count: count(number ?? 0) });
}

function written(test) {
  if (Array.isArray(test)) return test.join(" / ");
  if (test === null || typeof test !== "object") return String(test);
  return Object.entries(test).map(([operator, value]) => `${operator} ${Array.isArray(value) ? value.join(" / ") : value}`).join(", ");
}
