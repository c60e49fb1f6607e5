// A bar that says how much of a job is done, skipped and failed; and the badge of its status.

import { make, write } from "./dom.js";
import { shareOf, statusOf, toneOf } from "./figures.js";
import { text } from "./messages.js";

/** Build a bar; `show(job)` sets it. */
export function meter(label) {
  const parts = ["done", "skip", "fail"].map((name) => make("i", { class: name }));
  const element = make("div", { class: "meter", role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 }, ...parts);
  const show = (job) => {
    const counts = [job.succeeded ?? job.processed - job.failed, job.skipped ?? 0, job.failed];
    counts.forEach((n, place) => { parts[place].style.inlineSize = job.total ? `${(100 * n) / job.total}%` : "0"; });
    if (job.total === null) element.removeAttribute("aria-valuenow");
    else element.setAttribute("aria-valuenow", shareOf(job));
    const values = job.total === null ? {} : { processed: job.processed, total: job.total };
    element.setAttribute("aria-valuetext", job.total === null ? statusOf(job) : text("progress", values));
  };
  return { element, show };
}

/** Build the badge of a status. */
export function badge(job) {
  return make("span", { class: "badge", "data-tone": toneOf(job), text: statusOf(job) });
}

/** Let a badge say another status. */
export function rebadge(element, job) {
  element.dataset.tone = toneOf(job);
  write(element, statusOf(job));
}
