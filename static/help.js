// The overlay behind `?`: the keys of this view and of the whole page, and a switch for those who dictate or hold
// other keys.

import { openDialog } from "./dialog.js";
import { make } from "./dom.js";
import { text } from "./messages.js";

/** Open the help of what is open now. */
export function openHelp(page) {
  const { shortcuts } = page;
  const toggle = make("input", { type: "checkbox", checked: shortcuts.on });
  toggle.addEventListener("change", () => { shortcuts.on = toggle.checked; });
  const merged = new Map();
  for (const { title, entries } of shortcuts.scopes) merged.set(title, [...(merged.get(title) ?? []), ...entries]);
  const groups = [...merged].map(([title, entries]) => make("section", {}, make("h3", { text: title }), make("dl", { class: "keys" }, ...entries.flatMap(lineOf))));
  openDialog({ title: text("keysTitle"), body: [...groups, make("label", { class: "line" }, toggle, text("keysOn"))] });
}

function lineOf({ keys, text: name }) {
  return [make("dt", {}, ...keys.map((key) => make("kbd", { text: key }))), make("dd", { text: text(name) })];
}
