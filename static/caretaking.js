// What the views that look after things share: a list in pages under a head, a secret that is shown once, a question
// before a row is removed.

import { make } from "./dom.js";
import { confirmed, openDialog } from "./dialog.js";
import { icon } from "./icons.js";
import { text } from "./messages.js";
import { pages } from "./pages.js";
import { button, code, viewHead } from "./parts.js";
import { problemNote } from "./problem.js";
import { dataTable, pager } from "./table.js";

/**
 * Build a view that is one list: `table` are the options of table.js, `tools` the nodes above it. Returns `{element,
 * list, table}`; the first page is on its way.
 */
export function listView({ title, intro, actions, tools = [], table: options, fetch, signal }) {
  const table = dataTable({ caption: title, ...options });
  const list = pages({ fetch, table, problem: problemNote, signal });
  const bar = tools.length ? make("div", { class: "tools" }, ...tools) : null;
  const foot = make("footer", { class: "view-foot" }, make("span"), pager(list));
  const element = make("div", { class: "view full" }, viewHead(title, { intro, actions }), ...(bar ? [bar] : []), table.element, foot);
  list.load();
  return { element, list, table };
}

/** Build the buttons at the end of a row. */
export const rowButtons = (...nodes) => make("span", { class: "row" }, ...nodes.filter(Boolean));

/** Build a button that is a picture; its words are for the pointer and the screen reader. */
export const pictureButton = (words, act, picture) =>
  make("button", { type: "button", class: "square quiet", title: words, "aria-label": words, on: { click: act } }, icon(picture));

/** Show a secret that nobody will see again, with a way to copy it. */
export function showSecret({ title, secret, hint }) {
  const copy = button(text("copy"), async () => {
    try {
      await navigator.clipboard.writeText(secret);
      copy.textContent = text("copied");
    } catch {
      getSelection().selectAllChildren(shown); // without a permission the reader copies by hand
    }
  });
  const shown = code(secret);
  const done = button(text("secretKept"), () => dialog.close(), { names: "primary" });
  const body = [make("p", { text: hint }), make("div", { class: "secret" }, shown, copy), make("p", { class: "muted small", text: text("shownOnce") })];
  const dialog = openDialog({ title, body, buttons: [done] });
  done.focus();
  return dialog.closed;
}

/** Ask, then remove something and look again; a refusal is said in a toast. */
export async function removed(page, list, { title, message, action, path }) {
  if (!(await confirmed({ title, message, action }))) return;
  if ((await page.attempt(async () => { await page.ask("DELETE", path); return true; })) === null) return;
  list.refresh();
}
