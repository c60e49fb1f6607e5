// What is said when a job ends: one toast, with the way back where there is one, and a notification of the browser for
// those who allow it. Each ending is told once in a tab, also when it came while the tab was being reloaded or asleep.

import { at } from "./api.js";
import { text } from "./messages.js";
import { statusOf, toneOf, wordsOf } from "./figures.js";
import { href } from "./router.js";

const WATCHED = "bulkops:watched";
const MAX_WATCHED = 50;

/** Tell of endings until `signal`. */
export function endings(page, signal) {
  const watched = new Set(JSON.parse(sessionStorage.getItem(WATCHED) ?? "[]"));
  const told = new Set();
  const keep = () => sessionStorage.setItem(WATCHED, JSON.stringify([...watched].slice(-MAX_WATCHED)));
  const isMine = (job) => job.requested_by === page.me.user && job.source === "user";

  function ended(job) {
    if (watched.delete(job.id)) keep();
    if (told.has(job.id) || !isMine(job)) return;
    told.add(job.id);
    if (!job.task_id || toneOf(job) === "bad") tell(page, job);
  }

  page.live.on("job", (job) => {
    if (!isMine(job) || job.terminal || watched.has(job.id)) return;
    watched.add(job.id);
    keep();
  }, signal);
  page.live.on("ended", ended, signal);
  page.live.on("task", (event) => tellTask(page, event), signal);
  for (const id of watched) caughtUp(id);

  /** A job of before the reload: it is under way still, or its ending is told now. */
  async function caughtUp(id) {
    const job = await page.ask("GET", at("jobs", id)).catch((error) => {
      if (error.status === 404) watched.delete(id);
      return null;
    });
    if (job?.terminal) ended(job);
  }
}

function tell(page, job) {
  const words = wordsOf(job), isGood = toneOf(job) !== "bad";
  const undo = job.allowed_actions.includes("undo");
  const detail = [text("endDetail", words), job.failed && text("failedCount", { count: words.failed }), job.skipped && text("skipped", { count: words.skipped })].filter(Boolean).join(", ");
  page.toast(text("endTitle", words), {
    tone: isGood ? "plain" : "bad", detail,
    link: location.hash !== href("jobs", [job.id]) && { href: href("jobs", [job.id]), label: text("details") },
    action: undo && { label: text("undo"), picture: "undo", act: () => undoJob(page, job) },
  });
  notify(job, text("endTitle", words), detail);
}

/** Put back what a job took; what was refused is said in a toast. */
export function undoJob(page, job) {
  return page.attempt(async () => page.live.take(await page.client.job(job.id).undo()));
}

/** The server has a sentence for a task that went well, and none for one that did not. */
function tellTask(page, { source, task_id: id, data }) {
  if (source === "maintenance") return;
  const title = data.message ?? text("endTitle", { label: data.label, status: statusOf(data) });
  page.toast(title, { tone: data.message ? "plain" : "bad", link: { href: href("jobs", [], { task_id: id }), label: text("details") } });
}

/** The tag lets several tabs say it once. */
function notify(job, title, body) {
  if (document.visibilityState === "visible" || globalThis.Notification?.permission !== "granted") return;
  const note = new Notification(title, { body, tag: job.id });
  note.onclick = () => { focus(); location.hash = href("jobs", [job.id]); note.close(); };
}
