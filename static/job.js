// One job: its progress with the chart, why items failed, and its story below.

import { at } from "./api.js";
import { make } from "./dom.js";
import { icon } from "./icons.js";
import { text } from "./messages.js";
import { viewHead } from "./parts.js";
import { go, href } from "./router.js";
import { story } from "./story.js";

/** Open the page of a job. */
export async function openJob({ page, id, signal }) {
  const job = await page.ask("GET", at("jobs", id));
  const progress = make("bulk-progress", { chart: true, failures: true });
  progress.client = page.client;
  progress.subscription = page.live.subscription;
  progress.samples = page.live.course(id);
  progress.view = job;
  const another = (event) => {
    event.preventDefault(); // a new job has a page of its own
    page.live.take(event.detail);
    go(href("jobs", [event.detail.id]));
  };
  for (const name of ["bulk-undo", "bulk-retry"]) progress.addEventListener(name, another, { signal });
  const back = make("a", { class: "back", href: href("jobs") }, icon("previous"), text("navJobs"));
  const sections = [make("section", { class: "card job-card", "aria-label": text("progressBar") }, progress), story({ page, job, signal })];
  return { element: make("div", { class: "view job-view" }, make("div", { class: "stack-tight" }, back, viewHead(job.label)), ...sections) };
}
