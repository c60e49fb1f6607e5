// The jobs, newest first, those of one task under the task's name; what goes on is live. One job has a page of its
// own: job.js.

import { at, query } from "./api.js";
import { atMostEvery, make } from "./dom.js";
import { wordsOf } from "./figures.js";
import { icon } from "./icons.js";
import { openJob } from "./job.js";
import { badge, meter } from "./meter.js";
import { count, text } from "./messages.js";
import { pages } from "./pages.js";
import { distanceOf, instantOf, viewHead } from "./parts.js";
import { emptyNote, problemNote } from "./problem.js";
import { go, href } from "./router.js";
import { dataTable, pager } from "./table.js";

const STATUSES = ["scheduled", "preparing", "queued", "running", "paused", "completed", "failed", "cancelled"];
const UNDER_WAY = "scheduled,preparing,queued,running,pausing,paused,cancelling";
const REFRESH_MS = 2_000;

/** Open the list, or the job that the address names. */
export function open({ page, route, signal, resources }) {
  if (route.path.length) return openJob({ page, id: route.path[0], signal });
  let wanted = filtersOf(route);
  const tasks = new Map();

  const table = dataTable({
    caption: text("navJobs"), idOf: ({ job, task }) => job?.id ?? `task-${task.id}`, nameOf: ({ job, task }) => (job ?? task).label,
    columns: columnsOf(), open: ({ job }) => job && go(href("jobs", [job.id])),
    dress: (tr, { job, task }) => { tr.classList.toggle("task-row", Boolean(task)); tr.classList.toggle("of-task", Boolean(job?.task_id)); },
    empty: () => emptyNote(isNarrowed(wanted) ? { title: text("nothingFound"), detail: text("noJobsLikeThat"), picture: "filter" } : { title: text("noJobsTitle"), detail: text("noJobs"), picture: "jobs" }),
  });

  async function fetch({ limit, page: token }) {
    const found = await page.ask("GET", `api/jobs${query({ ...wanted, limit, page: token })}`);
    const missing = [...new Set(found.items.map(({ task_id: id }) => id).filter(Boolean))];
    await Promise.all(missing.map(async (id) => tasks.set(id, await page.ask("GET", at("tasks", id)).catch(() => null))));
    return { ...found, shown: found.items.length, items: grouped(found.items, tasks) };
  }

  const list = pages({ fetch, table, limit: 50, problem: problemNote, signal });
  const refresh = atMostEvery(REFRESH_MS, () => list.refresh(), signal);
  for (const name of ["ended", "task", "reset"]) page.live.on(name, refresh, signal);
  page.live.on("job", (job) => {
    const shown = table.rows.some((row) => row.job?.id === job.id);
    if (shown) table.show(table.rows.map((row) => (row.job?.id === job.id ? { job } : row)));
    else refresh();
  }, signal);

  const tools = make("div", { class: "tools" });
  const showTools = () => tools.replaceChildren(...toolsOf(wanted, resources));
  const element = make("div", { class: "view full" }, viewHead(text("navJobs")), tools, table.element, make("footer", { class: "view-foot" }, make("span"), pager(list)));
  showTools();
  list.load();
  return { element, update: (next) => { wanted = filtersOf(next); showTools(); list.load(); } };
}

function filtersOf({ query: given }) {
  const names = ["status", "resource", "action", "project", "task_id", "show_maintenance"];
  return Object.fromEntries(names.filter((name) => given.has(name)).map((name) => [name, given.get(name)]));
}

const isNarrowed = ({ show_maintenance: shown, ...others }) => Object.keys(others).length > 0;

/** Jobs of one task stand below it, where the newest of them would be. */
function grouped(jobs, tasks) {
  const rows = [], seen = new Set();
  for (const job of jobs) {
    const task = job.task_id && tasks.get(job.task_id);
    if (!task) rows.push({ job });
    else if (!seen.has(task.id)) {
      seen.add(task.id);
      rows.push({ task }, ...jobs.filter((each) => each.task_id === task.id).map((each) => ({ job: each })));
    }
  }
  return rows;
}

function columnsOf() {
  return [
    { name: "label", label: text("job"), cell: ({ job, task }) => labelOf(job, task) },
    { name: "status", label: text("status"), cell: ({ job, task }) => statusCell(job ?? task) },
    { name: "progress", label: text("progressBar"), priority: 3, cell: ({ job, task }) => progressOf(job ?? task) },
    { name: "by", label: text("who"), priority: 3, cell: ({ job, task }) => [(job ?? task).requested_by, (job ?? task).tenant].filter(Boolean).join(" · ") },
    { name: "at", label: text("started"), end: true, priority: 2, cell: ({ job, task }) => startOf(job ?? task) },
  ];
}

function labelOf(job, task) {
  const why = job?.reason ? make("span", { class: "muted p2", text: ` “${job.reason.slice(0, 80)}”` }) : null;
  const project = task?.project ? make("span", { class: "muted", text: ` ${task.project}` }) : null;
  return make("span", { dir: "auto" }, task ? icon("jobs") : null, (job ?? task).label, why, project);
}

/** Where there is no room for the bar, what goes on says how far it is beside its status. */
function statusCell(job) {
  const far = job.status === "running" && job.total ? make("span", { class: "muted small in-short", text: wordsOf(job).percent }) : null;
  return far ? make("span", { class: "line" }, badge(job), far) : badge(job);
}

function startOf({ status, run_at: at, started_at: started, created_at: created }) {
  return status === "scheduled" ? distanceOf(at) : instantOf(started ?? created);
}

function progressOf(job) {
  const bar = meter(job.label), { total, processed, failed, skipped } = job;
  bar.show(job);
  const words = total === null ? "" : processed === total ? text("itemsDone", { n: total }) : text("progress", { processed, total });
  const fails = failed ? make("span", { class: "bad", text: text("failedCount", { count: count(failed) }) }) : null;
  const skips = skipped ? make("span", { class: "muted", text: text("skipped", { count: count(skipped) }) }) : null;
  return make("span", { class: "job-progress" }, bar.element, make("span", { class: "muted", text: words }), fails, skips);
}

function toolsOf(wanted, resources) {
  const set = (more) => go(href("jobs", [], Object.fromEntries(Object.entries({ ...wanted, ...more }).filter(([, value]) => value))), { replace: true });
  const select = (name, label, choices) => {
    const element = make("select", { "aria-label": label, on: { change: () => set({ [name]: element.value }) } }, make("option", { value: "", text: label }), ...choices.map(([value, words]) => make("option", { value, text: words })));
    element.value = wanted[name] ?? "";
    return element;
  };
  const maintenance = make("input", { type: "checkbox", checked: wanted.show_maintenance === "true", on: { change: ({ target }) => set({ show_maintenance: String(target.checked) }) } });
  const actions = [...new Map(resources.flatMap(({ actions: all }) => all.map(({ name, label }) => [name, label]))).entries()];
  return [
    select("status", text("anyStatus"), [[UNDER_WAY, text("underWay")], ...STATUSES.map((status) => [status, text(status)])]),
    select("resource", text("anyResource"), resources.map(({ name, label }) => [name, label])),
    select("action", text("anyAction"), actions),
    make("span", { class: "gap" }),
    make("label", { class: "line" }, maintenance, text("showMaintenance")),
  ];
}
