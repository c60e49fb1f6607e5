// The jobs that are under way, in the corner of every view: a bar, how fast, how long yet, pause and resume. What has
// ended leaves; whoever wants more opens the job.

import { make, write } from "./dom.js";
import { paceOf, statusOf, wordsOf } from "./figures.js";
import { icon } from "./icons.js";
import { text } from "./messages.js";
import { meter } from "./meter.js";
import { href } from "./router.js";

const SHOWN = 3;
const ANNOUNCE_MS = 15_000;
const FOLDED = "bulkops:tray";
const SMALL = "(max-width: 60rem), (max-height: 32rem)";

/** Build the tray; it hides itself while there is nothing to show. */
export function tray(page) {
  const list = make("ul", { class: "tray-list", id: "tray-list" });
  const title = make("span"), more = make("a", { href: href("jobs"), class: "tray-more", hidden: true });
  const fold = make("button", { type: "button", class: "quiet square", "aria-label": text("foldTray"), "aria-controls": "tray-list" }, icon("chevron"));
  const overall = meter(text("underWay"));
  const element = make("section", { class: "tray", "aria-label": text("underWay"), hidden: true }, make("div", { class: "tray-head" }, title, fold), list, more, overall.element);
  const entries = new Map();
  let announced = 0;

  const folded = (is) => {
    element.classList.toggle("folded", is);
    fold.setAttribute("aria-expanded", String(!is));
  };
  const wish = sessionStorage.getItem(FOLDED);
  folded(wish === null ? matchMedia(SMALL).matches : wish === "folded");
  fold.addEventListener("click", () => {
    const is = !element.classList.contains("folded");
    folded(is);
    sessionStorage.setItem(FOLDED, is ? "folded" : "open");
  });

  function show(job) {
    if (job.source !== "user" || job.status === "scheduled") return;
    if (job.terminal) entries.delete(job.id);
    else {
      if (!entries.has(job.id)) entries.set(job.id, entryOf(page, job.id));
      entries.get(job.id).show(job);
    }
    arrange();
    if (!job.terminal && job.total && Date.now() - announced > ANNOUNCE_MS) {
      announced = Date.now();
      page.announce(text("announce", wordsOf(job)));
    }
  }

  function arrange() {
    const ids = [...entries.keys()].sort().reverse(), shown = ids.slice(0, SHOWN);
    const wanted = shown.map((id) => entries.get(id).element);
    if (wanted.length !== list.childElementCount || wanted.some((each, place) => list.children[place] !== each)) list.replaceChildren(...wanted);
    element.hidden = ids.length === 0;
    more.hidden = ids.length <= SHOWN;
    write(title, text("jobsUnderWay", { n: ids.length }));
    write(more, text("moreJobs", { n: ids.length - SHOWN }));
    overall.show(sumOf(ids.map((id) => page.live.jobs.get(id)).filter((job) => job?.total)));
  }

  new ResizeObserver(() => element.parentElement?.style.setProperty("--tray", `${element.offsetHeight}px`)).observe(element);
  page.live.on("job", show);
  page.live.on("reset", () => {
    for (const id of entries.keys()) if (!page.live.jobs.has(id)) entries.delete(id);
    arrange();
  });
  return element;
}

/** How far all of them are, for the bar of a folded tray. */
function sumOf(jobs) {
  const sum = (name) => jobs.reduce((all, job) => all + job[name], 0);
  const counts = Object.fromEntries(["processed", "succeeded", "skipped", "failed"].map((name) => [name, sum(name)]));
  return { ...counts, status: "preparing", total: sum("total") || null }; // the status is said before there is a total
}

function entryOf(page, id) {
  const link = make("a", { href: href("jobs", [id]), dir: "auto" });
  const figures = make("div", { class: "tray-figures" });
  const bar = meter(text("progressBar"));
  const toggle = make("button", { type: "button", class: "quiet square" });
  const element = make("li", { "data-job": id }, make("div", { class: "tray-title" }, link, toggle), bar.element, figures);
  let verb = null;
  toggle.addEventListener("click", () => page.attempt(async () => page.live.take(await page.client.job(id)[verb]())));

  function show(job) {
    const words = wordsOf(job), wanted = ["pause", "resume"].find((each) => job.allowed_actions.includes(each));
    write(link, job.label);
    link.title = job.label;
    bar.element.setAttribute("aria-label", job.label);
    bar.show(job);
    const first = job.status === "running" && job.total ? [words.percent, text("progress", words)] : [statusOf(job)];
    write(figures, [...first, ...paceOf(job)].join(" · "));
    toggle.hidden = !wanted;
    if (wanted && wanted !== verb) {
      toggle.replaceChildren(icon(wanted === "pause" ? "pause" : "play"));
      toggle.setAttribute("aria-label", text(wanted));
    }
    verb = wanted;
  }

  return { element, show };
}
