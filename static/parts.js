// Small parts that many views have: the head of a view, an instant, a name in type of one width, the search field.

import { make } from "./dom.js";
import { icon } from "./icons.js";
import { exactTime, fromNow, text, when } from "./messages.js";

const TYPING_MS = 250;

/** Build the head of a view: its one h1, a sentence that teaches, and what stands at the far end. */
export function viewHead(title, { intro, actions = [] } = {}) {
  const head = make("header", { class: "view-head" }, make("h1", { text: title }), actions.length ? make("div", { class: "row" }, ...actions) : null);
  return intro ? make("div", { class: "stack-tight" }, head, make("p", { class: "view-intro", text: intro })) : head;
}

/** Build the cell of an instant: short, the whole of it as its title; empty for none. */
export const instantOf = (iso) => (iso ? make("time", { datetime: iso, title: exactTime(iso), text: when(iso) }) : "");

/** Build the cell of an instant that is ahead, or just gone: "in 29 days". */
export const distanceOf = (iso) => (iso ? make("time", { datetime: iso, title: exactTime(iso), text: fromNow(iso) }) : "");

/** Build a text of one width, for ids, addresses and patterns. */
export const code = (words) => make("span", { class: "mono", dir: "auto", text: words });

/** Build a button of a row or a head. */
export function button(words, act, { picture, names = "" } = {}) {
  return make("button", { type: "button", class: names, on: { click: act } }, picture ? icon(picture) : null, words);
}

/** Build a search field; `found(words)` is called when typing pauses, `/` brings the keyboard here. */
export function searchField(page, { label, value = "", found, signal }) {
  const input = make("input", { type: "search", "aria-label": label, placeholder: label, value, autocomplete: "off", spellcheck: "false" });
  let timer;
  const say = () => { clearTimeout(timer); if (input.value.trim() !== value) found((value = input.value.trim())); };
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(say, TYPING_MS); });
  input.addEventListener("keydown", ({ key }) => { if (key === "Enter") say(); });
  signal?.addEventListener("abort", () => clearTimeout(timer));
  page.shortcuts.add([{ keys: ["/"], text: "keySearch", act: () => input.select() }], { signal, title: "keysHere" });
  const set = (words) => { clearTimeout(timer); value = words; input.value = words; };
  return { element: make("div", { class: "search" }, icon("search"), input), input, set };
}
