// One item, in a panel at the side: all of its row, as text, and which jobs have touched it.

import { at } from "./api.js";
import { cellOf, natureOf, titleOf } from "./columns.js";
import { openDialog } from "./dialog.js";
import { make } from "./dom.js";
import { named, text } from "./messages.js";
import { badge } from "./meter.js";
import { instantOf } from "./parts.js";
import { problemNote } from "./problem.js";
import { href } from "./router.js";

const OUTCOMES = { succeeded: "outcomeSucceeded", failed: "outcomeFailed", skipped: "outcomeSkipped" };

/** Say why actions leave an item out. */
export const unfitText = ({ code }) => text("leftAloneBecause", { why: text(code === "PROTECTED" ? "whyProtected" : "whyNotEligible") });

/** Open the panel of an item. */
export function openItem(page, info, item, signal) {
  const history = make("div", { class: "stack", "aria-live": "polite" });
  const fit = item.eligible ? null : make("p", { class: "muted", text: unfitText(item) });
  const rows = info.columns.flatMap((column) => [make("dt", { text: titleOf(column, info) }), make("dd", { dir: "auto" }, wholeOf(item.row[column.name], natureOf(column, info)))]);
  const dialog = openDialog({ title: item.label.slice(0, 120), side: true, signal, body: [fit, make("dl", { class: "facts" }, ...rows), make("h3", { text: text("history") }), history].filter(Boolean) });
  load();
  return dialog;

  async function load() {
    try {
      const { items } = await page.ask("GET", at("bulk", info.name, "items", item.id, "history"));
      history.replaceChildren(...(items.length ? items.map((touch) => touchOf(touch, dialog)) : [make("p", { class: "muted", text: text("untouched") })]));
    } catch (error) {
      history.replaceChildren(problemNote(error, load));
    }
  }
}

/** Cells are cut short; here a text is whole. */
function wholeOf(value, nature) {
  return typeof value === "string" && value.length >= 40 ? value : cellOf(value ?? null, nature);
}

function touchOf(touch, dialog) {
  const link = make("a", { href: href("jobs", [touch.job]), text: touch.label, on: { click: () => dialog.close() } });
  const isPlain = touch.outcome === "succeeded" && touch.status === "completed"; // the badge says it
  const became = isPlain ? null : make("span", { class: touch.outcome === "failed" ? "bad small" : "muted small", text: [text(OUTCOMES[touch.outcome]), touch.code, touch.message].filter(Boolean).join(" · ") });
  return make("div", { class: "touch" }, make("div", { class: "row" }, link, badge({ status: touch.status })), became, make("span", { class: "muted small" }, touch.requested_by, " · ", instantOf(touch.created_at)));
}
