// Schedules: what starts by the calendar, when it does next and how it went last; one can be made of any action, run
// now, or removed.

import { at, query } from "./api.js";
import { listView, pictureButton, removed, rowButtons } from "./caretaking.js";
import { filterText } from "./conditions.js";
import { openForm } from "./dialog.js";
import { atMostEvery, make } from "./dom.js";
import { fieldsOf, form } from "./form.js";
import { named, text } from "./messages.js";
import { button, code, distanceOf } from "./parts.js";
import { emptyNote } from "./problem.js";
import { href } from "./router.js";

const REFRESH_MS = 2_000;
const RESULTS = { started: "resultStarted", skipped_running: "resultRunning", nothing_due: "resultNothing", revoked: "resultRevoked" };
const CALM = new Set(["started", "skipped_running", "nothing_due"]);
const ORIGINS = { config: "originConfig", built_in: "originBuiltIn" };

/** Open the schedules. */
export function open({ page, signal, resources }) {
  async function add() {
    const chosen = await chooseAction(resources, signal);
    if (!chosen) return;
    const made = await openForm({ title: text("scheduleAdd"), intro: text("scheduleOf", { action: chosen.action.label, resource: chosen.resource.label }), form: formOf(page, chosen), action: text("scheduleAddYes"), submit: (values) => page.ask("POST", "api/schedules", bodyOf(values, chosen)), signal }).closed;
    if (made) list.load();
  }

  async function run(row) {
    const job = await page.attempt(() => page.ask("POST", at("schedules", row.id, "run")));
    if (!job) return;
    page.live.take(job);
    again();
  }

  const remove = (row) => removed(page, list, { title: text("scheduleRemoveTitle"), message: text("scheduleRemoveMessage", { name: row.name }), action: text("remove"), path: at("schedules", row.id) });
  const actable = resources.some(({ actions }) => actions.length);
  const { element, list } = listView({
    title: text("navSchedules"), intro: text("schedulesIntro"), actions: actable ? [button(text("scheduleAdd"), add, { picture: "plus", names: "primary" })] : [], signal,
    fetch: ({ limit, page: token }) => page.ask("GET", `api/schedules${query({ limit, page: token })}`),
    table: {
      idOf: ({ id }) => id, nameOf: ({ name }) => name,
      dress: (tr, { enabled }) => tr.classList.toggle("unfit", !enabled),
      columns: [
        { name: "name", label: text("scheduleName"), cell: ({ name, origin }) => make("span", { dir: "auto" }, name, ORIGINS[origin] ? make("span", { class: "muted", text: ` ${text(ORIGINS[origin])}` }) : null) },
        { name: "what", label: text("scheduleWhat"), priority: 2, cell: (row) => whatOf(row) },
        { name: "when", label: text("scheduleWhen"), priority: 2, cell: ({ cron, every, timezone }) => (cron ? make("span", {}, code(cron), make("span", { class: "muted small", text: ` ${timezone}` })) : text("scheduleEvery", { every })) },
        { name: "next", label: text("scheduleNext"), cell: ({ enabled, next_at: next }) => (enabled ? distanceOf(next) : text("switchedOff")) },
        { name: "last", label: text("scheduleLast"), priority: 3, cell: lastOf },
        { name: "acts", label: text("actions"), end: true, cell: (row) => rowButtons(button(text("runNow"), () => run(row), { picture: "play" }), row.origin === "api" && pictureButton(text("remove"), () => remove(row), "trash")) },
      ],
      empty: () => emptyNote({ title: text("noSchedulesTitle"), detail: text("noSchedules"), picture: "clock" }),
    },
  });
  const again = atMostEvery(REFRESH_MS, () => list.refresh(), signal);
  for (const name of ["ended", "reset"]) page.live.on(name, again, signal);
  return { element };
}

function whatOf({ action, resource, body, tenant }) {
  const which = body.filter ? filterText(body.filter) : body.all ? text("selectionAll") : "";
  return [`${named(action)} ${named(resource).toLowerCase()}`, which, tenant].filter(Boolean).join(" · ");
}

function lastOf({ last_at: last, last_job: job, last_result: result }) {
  if (!last && !job) return text("never");
  const words = make("span", { class: CALM.has(result) ? "muted" : "bad", text: RESULTS[result] ? text(RESULTS[result]) : result });
  const at = last ? distanceOf(last) : text("byHand");
  return make("span", {}, job ? make("a", { href: href("jobs", [job]) }, at) : at, " ", result ? words : "");
}

/** Ask first what shall be done to what: the fields of the rest hang on it. */
async function chooseAction(resources, signal) {
  const pairs = resources.flatMap((resource) => resource.actions.map((action) => ({ resource, action })));
  const choices = pairs.map(({ resource, action }, place) => [String(place), `${resource.label}: ${action.label}`]);
  const fields = form([{ name: "what", label: text("scheduleWhat"), type: "choice", required: true, value: "0", choices }]);
  const place = await openForm({ title: text("scheduleAdd"), form: fields, action: text("goOn"), submit: ({ what }) => what, signal }).closed;
  return place === undefined ? null : pairs[Number(place)];
}

function formOf(page, { resource, action }) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";
  const columns = resource.columns.filter(({ filter }) => filter).map(({ name }) => [name, named(name)]);
  return form([
    { name: "name", label: text("scheduleName"), type: "text", required: true },
    { name: "cron", label: text("scheduleCron"), type: "text", required: true, value: "0 3 * * *", hint: text("scheduleCronHint") },
    { name: "timezone", label: text("scheduleZone"), type: "text", required: true, value: zone },
    ...(columns.length ? [
      { name: "column", label: text("scheduleColumn"), type: "choice", choices: columns, none: text("scheduleEverything") },
      { name: "operator", label: text("operator"), type: "choice", required: true, value: "eq", choices: [["eq", text("is")], ["lt", text("below")], ["gte", text("atLeast")], ["like", text("contains")]] },
      { name: "value", label: text("value"), type: "text", hint: text("scheduleValueHint") },
    ] : []),
    ...fieldsOf(action.options?.properties),
    ...(resource.tenanted && page.me.tenant === null ? [{ name: "tenant", label: text("tenant"), type: "text", hint: text("wholeInstallation") }] : []),
    ...(action.confirm ? [{ name: "confirm", label: text("typeWordOnly", { word: action.confirm }), type: "text", required: true }] : []),
  ]);
}

const OWN = new Set(["name", "cron", "timezone", "tenant", "confirm", "column", "operator", "value"]);

function bodyOf(values, { resource, action }) {
  const { name, cron, timezone, tenant, confirm, column, operator, value = "" } = values;
  const options = Object.fromEntries(Object.entries(values).filter(([key]) => !OWN.has(key)));
  const which = column ? { filter: { [column]: { [operator]: operator === "like" ? `%${value}%` : value } } } : { all: true };
  return { name, cron, timezone, resource: resource.name, action: action.name, options, tenant, confirm, ...which };
}
