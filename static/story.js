// The story of a job: who wanted it, when and why, of which items, what it led to, what was made, and its reports.

import { at, query } from "./api.js";
import { detailOf } from "./audit.js";
import { filterText } from "./conditions.js";
import { make } from "./dom.js";
import { bytes, named, text } from "./messages.js";
import { distanceOf, instantOf } from "./parts.js";
import { href } from "./router.js";

const MAX_ENTRIES = 100;
const OUTCOMES = { succeeded: "reportSucceeded", failed: "reportOfFailed", skipped: "reportSkipped" };

/** Build the story of `job`; it looks again when the job ends. */
export function story({ page, job, signal }) {
  const facts = make("dl", { class: "facts" }), files = make("div", { class: "stack" }), audit = make("div", { class: "stack-tight" });
  const element = make("section", { class: "card stack", "aria-label": text("story") }, make("h2", { text: text("story") }), facts, files, page.can("admin") ? auditPart(page, job, audit) : null);

  function show(now) {
    facts.replaceChildren(...factsOf(now).flatMap(([label, value]) => [make("dt", { text: text(label) }), make("dd", { dir: "auto" }, value)]));
    files.replaceChildren(...(now.artifacts ?? []).map((made) => artifactOf(page, made)), ...(now.terminal ? [reportsOf(page, now)] : []));
  }

  async function look() {
    const now = await page.ask("GET", at("jobs", job.id)).catch(() => null);
    if (now) show(now);
  }

  show(job);
  page.live.on("ended", ({ id }) => { if (id === job.id) look(); }, signal);
  return element;
}

function factsOf(job) {
  const who = [job.requested_by, job.tenant].filter(Boolean).join(" · ");
  const link = (id) => id && make("a", { class: "mono", href: href("jobs", [id]), text: id });
  const options = Object.entries(job.options ?? {}).map(([name, value]) => `${named(name)}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
  const task = job.task_id && make("a", { href: href("jobs", [], { task_id: job.task_id }), text: [named(job.task_type ?? "task"), job.project].filter(Boolean).join(" · ") });
  const all = [
    ["who", who], ["why", job.reason], ["selectionWhich", selectionOf(job)], ["options", options], ["task", task],
    ["created", instantOf(job.created_at)], ["starts", job.status === "scheduled" && distanceOf(job.run_at)], ["started", instantOf(job.started_at)], ["finished", instantOf(job.finished_at)],
    ["statusWhy", job.status_reason?.message ?? job.error?.message], ["undoOf", link(job.undo_of)], ["retryOf", link(job.retry_of)],
    ["undoLeft", job.undo_until && job.allowed_actions.includes("undo") ? distanceOf(job.undo_until) : null], ["jobId", make("span", { class: "mono", text: job.id })],
  ];
  return all.filter(([, value]) => value);
}

function selectionOf({ selection }) {
  const { kind, filter, count: n, exclude_count: without } = selection;
  const which = kind === "filter" ? filterText(filter) : kind === "all" ? text("selectionAll") : text("selectionIds", { n: n ?? 0 });
  return without ? `${which}, ${text("selectionWithout", { n: without })}` : which;
}

function artifactOf(page, { name, status, bytes: size, rows, download_url: url, expires_at: ends }) {
  if (status !== "ready") return make("p", { class: "muted", text: text("artifactNotReady", { name }) });
  const figures = [size === null ? "" : bytes(size), rows === null ? "" : text("records", { n: rows })].filter(Boolean).join(" · ");
  return make("div", { class: "row" }, make("a", { class: "button", href: page.url(url), download: "", text: name }), make("span", { class: "muted small" }, figures, ends ? " · " : "", ends ? distanceOf(ends) : ""));
}

function reportsOf(page, job) {
  const link = (outcome, words) => make("a", { class: "button", href: page.url(`${at("jobs", job.id, "report")}${query({ format: "csv", outcome })}`), download: "", text: words });
  const some = Object.entries(OUTCOMES).filter(([outcome]) => job[outcome] > 0).map(([outcome, key]) => link(outcome, text(key)));
  return make("div", { class: "row" }, link(undefined, text("report")), ...(some.length > 1 ? some : []));
}

/** The entries are fetched when a reader opens them. */
function auditPart(page, job, place) {
  const more = make("a", { href: href("audit", [], { job: job.id }), text: text("auditAll") });
  const part = make("details", { class: "audit-part" }, make("summary", { text: text("navAudit") }), place, more);
  part.addEventListener("toggle", async () => {
    if (!part.open) return;
    const found = await page.attempt(() => page.ask("GET", `api/audit${query({ job: job.id, limit: MAX_ENTRIES })}`));
    place.replaceChildren(...(found?.items ?? []).map((entry) => make("p", { class: "small" }, instantOf(entry.at), " ", make("strong", { text: named(entry.verb) }), ` ${entry.user} `, make("span", { class: "muted", text: detailOf(entry) }))));
  });
  return part;
}
