// The keys of the page, in one place: a view says which it has while it is open, the help says them all. Single
// letters wait while something is being typed, while a dialog is open, and when the reader has turned them off.

import { text } from "./messages.js";

const OFF = "bulkops:shortcuts";

export class Shortcuts {
  #scopes = [];

  constructor() {
    addEventListener("keydown", (event) => this.#press(event));
  }

  get on() { return localStorage.getItem(OFF) !== "off"; }
  set on(wanted) { localStorage.setItem(OFF, wanted ? "on" : "off"); }

  /** Add keys: `[{keys: ["/"], text: "keySearch", act}]`; they end with `signal`. The latest are asked first. */
  add(entries, { signal, title } = {}) {
    const scope = { entries, title };
    this.#scopes.unshift(scope);
    signal?.addEventListener("abort", () => { this.#scopes = this.#scopes.filter((each) => each !== scope); });
  }

  /** What the help shows: `[{title, entries}]`. */
  get scopes() { return this.#scopes.map(({ entries, title }) => ({ title: text(title ?? "keysEverywhere"), entries })); }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || !this.on) return;
    const [node] = event.composedPath();
    const typing = node.matches?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
    const presses = event.key === "Enter" && node.matches?.("a, button, summary, input"); // Enter is theirs
    if (typing || presses || document.querySelector("dialog[open], [popover]:popover-open")) return;
    for (const { entries } of this.#scopes) {
      const entry = entries.find(({ keys }) => keys.includes(event.key));
      if (!entry) continue;
      event.preventDefault();
      return void entry.act(event);
    }
  }
}
