// The dialog of an action: what it would do is looked up first and shown, options are chosen, the word is typed where
// one is asked for, and the start says how many were meant, so that nothing else is done.

import { at } from "./api.js";
import { openDialog } from "./dialog.js";
import { make, write } from "./dom.js";
import { fieldsOf, form } from "./form.js";
import { text } from "./messages.js";
import { takesAway } from "./pick_bar.js";
import { facts } from "./preview.js";
import { problemText } from "./problem.js";
import { href } from "./router.js";

const LOOK_AGAIN_MS = 350, PATIENCE_MS = 2_500;
const MORE = () => [
  { name: "run_at", label: text("runAt"), type: "time", hint: text("runAtHint") },
  { name: "canary", label: text("canary"), type: "number", min: 1, hint: text("canaryHint") },
  { name: "max_items_per_second", label: text("speedLimit"), type: "number", min: 0.01, whole: false },
  { name: "batch_size", label: text("batchSize"), type: "number", min: 1, max: 10_000 },
  { name: "atomic", label: text("atomic"), type: "flag" },
];

/** Open the dialog; resolves with the job that was started, undefined when none was. `body` is the selection. */
export function openAction(page, { info, action, body, count: expected, signal }) {
  return new ActionDialog(page, { info, action, body, expected, signal }).closed;
}

class ActionDialog {
  #page; #info; #action; #body; #nodes; #options; #more; #dialog; #preview = null; #turn = 0; #timer; #touched = false; #sending = null;

  constructor(page, { info, action, body, expected, signal }) {
    Object.assign(this, { closed: null });
    [this.#page, this.#info, this.#action, this.#body] = [page, info, action, body];
    const nodes = (this.#nodes = this.#build());
    const later = () => { this.#touched = true; clearTimeout(this.#timer); this.#timer = setTimeout(() => this.#look(), LOOK_AGAIN_MS); };
    this.#options = form(fieldsOf(action.options.properties), { pointer: "/options", changed: later });
    this.#more = form([{ name: "reason", label: text("reason"), hint: text("reasonHint"), type: "text", max: 500 }, ...MORE()]);
    const [reason, ...rest] = [...this.#more.element.children];
    nodes.more.append(make("div", { class: "fields" }, ...rest));
    nodes.form.append(nodes.preview, this.#options.element, reason, nodes.more, nodes.wordField, nodes.error, make("div", { class: "dialog-foot" }, nodes.no, nodes.again, nodes.go));
    this.#dialog = openDialog({ title: this.#title(expected), body: nodes.form, wide: true, signal });
    this.closed = this.#dialog.closed.then((job) => { this.#turn++; clearTimeout(this.#timer); this.#sending?.abort(); return job; });
    this.#look();
  }

  #build() {
    const nodes = {
      preview: make("div", { class: "preview", "aria-live": "polite", "aria-busy": "true" }),
      more: make("details", { class: "more" }, make("summary", { text: text("moreOptions") })),
      word: make("input", { autocomplete: "off", autocapitalize: "off", spellcheck: "false", "aria-describedby": "word-error" }),
      wordText: make("span"), wordError: make("p", { class: "error", id: "word-error" }), error: make("div", { class: "error", role: "alert" }),
      no: make("button", { type: "button", text: text("notNow"), on: { click: () => this.#dialog.close() } }),
      again: make("button", { type: "button", text: text("again"), hidden: true, on: { click: () => this.#look() } }),
      go: make("button", { type: "submit", class: `primary ${takesAway(this.#action) ? "danger" : ""}`, disabled: true, text: this.#action.label }),
      form: make("form", { class: "form act", novalidate: true }),
    };
    nodes.wordField = make("div", { class: "field word", hidden: true }, make("label", {}, nodes.wordText, nodes.word), nodes.wordError);
    nodes.word.addEventListener("input", () => { write(nodes.wordError, ""); this.#judge(); });
    nodes.form.addEventListener("submit", (event) => { event.preventDefault(); if (!nodes.go.disabled) this.#start(); });
    return nodes;
  }

  #words(n) {
    return { action: this.#action.label, resource: this.#info.label.toLowerCase(), n: n ?? 0 };
  }

  #title(n) { return text(n === null || n === undefined ? "askAll" : "ask", this.#words(n)); }

  #startWords() {
    const number = this.#preview.eligible_count ?? this.#preview.matched;
    return text(number === null ? "startPlain" : "startButton", this.#words(number));
  }

  #asked() {
    const options = this.#options.values(), { atomic } = this.#more.values();
    return { ...this.#body, ...(Object.keys(options).length && { options }), ...(atomic && { atomic }) };
  }

  async #look() {
    if (this.#sending) return;
    const nodes = this.#nodes, turn = ++this.#turn;
    this.#preview = null;
    this.#judge();
    nodes.again.hidden = true;
    nodes.error.replaceChildren();
    nodes.preview.hidden = false;
    nodes.preview.setAttribute("aria-busy", "true");
    if (!nodes.preview.childElementCount) nodes.preview.append(...["", "", ""].map(() => make("i", { class: "bone" })));
    try {
      const found = await this.#page.ask("POST", at("bulk", this.#info.name, "validate"), { action: this.#action.name, ...this.#asked() });
      if (turn === this.#turn) this.#show(found);
    } catch (error) {
      if (turn === this.#turn) this.#complain(error);
    }
  }

  #show(found) {
    const nodes = this.#nodes, number = found.eligible_count ?? found.matched, words = this.#words(number);
    const isFirst = nodes.preview.querySelector(".bone") !== null;
    this.#preview = found;
    this.#options.complain({ problem: {} });
    nodes.preview.removeAttribute("aria-busy");
    nodes.preview.replaceChildren(...facts(found, words, { undoDays: this.#action.undoable ? this.#info.limits.trash_days : 0 }));
    this.#dialog.retitle(this.#title(number));
    write(nodes.go, this.#startWords());
    nodes.wordField.hidden = !found.confirm || number === 0;
    if (found.confirm) write(nodes.wordText, text(number === null ? "typeWordOnly" : "typeWord", { ...words, word: found.confirm }));
    this.#judge();
    const { scrollHeight, clientHeight } = this.#dialog.body; // what is to be read first must not scroll out of sight
    if (isFirst && scrollHeight <= clientHeight) (nodes.wordField.hidden ? nodes.go : nodes.word).focus();
  }

  #judge() {
    const found = this.#preview;
    this.#nodes.go.disabled = !found || found.eligible_count === 0 || Boolean(found.confirm && this.#nodes.word.value !== found.confirm);
  }

  async #start() {
    const nodes = this.#nodes, { confirm, matched } = this.#preview;
    const body = { ...this.#asked(), ...this.#more.values(), ...(confirm && { confirm: nodes.word.value }), ...(matched !== null && { expected_count: matched }) };
    const { signal } = (this.#sending = new AbortController());
    const waits = setTimeout(() => nodes.error.replaceChildren(text("startWaits")), PATIENCE_MS);
    nodes.go.disabled = true;
    write(nodes.go, text("starting"));
    nodes.error.replaceChildren();
    try {
      this.#dialog.close(await this.#page.client.start(this.#info.name, this.#action.name, body, { signal }));
    } catch (error) {
      if (signal.aborted) return; // whoever closes the dialog wants no later try
      this.#sending = null;
      write(nodes.go, this.#startWords());
      this.#judge();
      this.#complain(error);
    } finally {
      clearTimeout(waits);
    }
  }

  /** Each refusal where it belongs: at its field, at the word, or above the buttons with what helps. */
  #complain(error) {
    const nodes = this.#nodes;
    nodes.preview.removeAttribute("aria-busy");
    for (const bone of nodes.preview.querySelectorAll(".bone")) bone.remove();
    nodes.preview.hidden = !nodes.preview.childElementCount;
    const isAsked = error.code === "CONFIRMATION_REQUIRED";
    if (isAsked && !nodes.wordField.hidden) return write(nodes.wordError, problemText(error));
    if (error.status === 422 && !this.#nodes.preview.childElementCount && !this.#touched) {
      nodes.preview.hidden = false;
      nodes.preview.append(make("p", { class: "muted", text: text("fillIn") }));
      return this.#options.focus();
    }
    const atOptions = this.#options.complain(error), atMore = !atOptions && this.#more.complain(error);
    if (atMore && nodes.more.querySelector(".error:not(:empty)")) nodes.more.open = true;
    if (atOptions || atMore) return;
    const job = error.problem?.job ?? error.problem?.job_id;
    nodes.error.replaceChildren(make("span", { text: problemText(error) }), job ? make("a", { href: href("jobs", [job]), text: text("showThatJob"), on: { click: () => this.#dialog.close() } }) : "");
    const isStale = isAsked || error.code === "COUNT_CHANGED";
    nodes.again.hidden = error.status === 403 || Boolean(this.#preview && !isStale);
    if (isStale) nodes.go.disabled = true;
  }
}
