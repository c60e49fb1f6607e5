// What a job's state says in words and numbers; nothing is said that the state does not know.

import { count, duration, percent, rate, text, time } from "./messages.js";

/** How much is done, in percent with one decimal, floored as the server does: an event of an end has none itself. */
export const shareOf = ({ total, processed }) => (total ? Math.floor((1000 * processed) / total) / 10 : 100);

/** What its status is called: a completed job is not simply done when something failed. */
export function statusOf({ status, outcome }) {
  return text(status === "completed" && outcome && outcome !== "ok" ? outcome : status);
}

/** The words that sentences about a job are filled in with. */
export function wordsOf(job) {
  const words = { label: job.label, status: statusOf(job), percent: "" };
  for (const name of ["total", "processed", "succeeded", "failed", "skipped"])
    if (job[name] !== null) words[name] = count(job[name]);
  if (job.total !== null) words.percent = percent(shareOf(job));
  return words;
}

/** The line below the bar: pairs of a text and a class. */
export function figuresOf(job) {
  const words = wordsOf(job), figures = [], running = job.status === "running";
  const add = (name, values, names = "") => figures.push([text(name, values), names]);
  if (job.total === null && !job.terminal) add("preparingItems", {}, "main");
  if (job.total !== null) {
    figures.push([words.percent, "main"]);
    add("progress", words, "main");
  }
  if (running && job.items_per_second) add("perSecond", { rate: rate(job.items_per_second) });
  if (running && job.eta_seconds !== null) add("left", { time: duration(job.eta_seconds) });
  if (job.failed) add("failedCount", { count: words.failed }, "fails");
  if (job.skipped) add("skipped", { count: words.skipped });
  if (job.terminal && job.active_seconds) add("took", { time: duration(job.active_seconds) });
  if (job.allowed_actions?.includes("undo")) add("undoUntil", { time: time(job.undo_until) });
  return figures;
}

const LIVE = new Set(["preparing", "running", "pausing", "cancelling"]);

/** Which colour its status has. */
export function toneOf({ status, outcome, failed = 0 }) {
  if (LIVE.has(status)) return "live";
  if (status === "paused") return "warn";
  if (status === "failed" || (status === "completed" && (failed || (outcome && outcome !== "ok")))) return "bad";
  return status === "completed" ? "good" : "plain";
}

/** How fast and how long yet, in few words; empty when nothing is known. */
export function paceOf({ status, items_per_second: speed, eta_seconds: left }) {
  if (status !== "running") return [];
  return [speed && text("perSecond", { rate: rate(speed) }), left !== null && left !== undefined && text("left", { time: duration(left) })].filter(Boolean);
}
