// Beginning a task of a resource, such as "Commit changes" of photos: which project, why; its jobs follow by themselves.

import { openForm } from "./dialog.js";
import { form } from "./form.js";
import { menu } from "./menu.js";
import { text } from "./messages.js";
import { button } from "./parts.js";
import { go, href } from "./router.js";

const WITH_FILES = new Set(["upload_processing"]);
const SHOWN = 2;

/** Build a button for each task that this caller may begin here; what comes after the first is in a menu. */
export function taskButtons(page, info) {
  const one = (task) => button(`${task.label}…`, () => openTask(page, info, task));
  const all = info.tasks ?? [], rest = all.slice(SHOWN);
  return [...all.slice(0, SHOWN).map(one), ...(rest.length ? [menu(text("moreTasks"), () => rest.map(one)).element] : [])];
}

async function openTask(page, info, { type, label }) {
  const fields = form([
    { name: "project", label: text("project"), type: "text", required: true, hint: text("projectHint") },
    ...(WITH_FILES.has(type) ? [{ name: "files", label: text("onlyFiles"), type: "many" }] : []),
    { name: "reason", label: text("reason"), type: "text", hint: text("reasonHint") },
  ]);
  const submit = (values) => page.ask("POST", `api/tasks/${encodeURIComponent(type)}`, { resource: info.name, ...values });
  const task = await openForm({ title: label, form: fields, action: text("begin"), submit }).closed;
  if (task) go(href("jobs", [], { task_id: task.id }));
}
