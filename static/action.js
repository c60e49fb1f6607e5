// <bulk-action resource="receipts" action="delete" filter='{"status": "closed"}'>: a button that previews what it
// would do, asks for the word where one is needed, starts the job with the exact count, and shows its progress.

import { make, tell, write } from "./dom.js";
import { sheet } from "./elements_style.js";
import { text } from "./messages.js";
import { facts } from "./preview.js";
import { clientOf } from "./shared_client.js";

const PREVIEW_MS = 30_000;
const humanise = (name) => name.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());

export class BulkAction extends HTMLElement {
  client;
  /** Instead of the attributes: `{filter | ids | all | selection_id, exclude_ids?}`, options and tenant. */
  selection; options; tenant;
  #nodes; #preview; #turn = 0; #sending = null;

  connectedCallback() {
    if (this.#nodes) return;
    const close = () => this.#nodes.dialog.close();
    const nodes = (this.#nodes = {
      open: make("button", { type: "button", part: "button", class: "danger", on: { click: () => this.open() } }),
      dialog: make("dialog", { "aria-labelledby": "ask", part: "dialog", on: { close: () => { this.#turn++; this.#sending?.abort(); } } }),
      title: make("h2", { id: "ask", tabindex: -1 }), facts: make("div", { class: "facts" }),
      wordLabel: make("label", { hidden: true }), error: make("p", { class: "error", role: "alert" }),
      word: make("input", { autocomplete: "off", autocapitalize: "off", spellcheck: "false" }),
      close: make("button", { type: "button", text: text("notNow"), on: { click: close } }),
      again: make("button", { type: "button", text: text("again"), hidden: true, on: { click: () => this.#look() } }),
      go: make("button", { type: "submit", class: "go", part: "go" }), after: make("div", { class: "after" }),
    });
    nodes.open.append(make("slot", {}, `${humanise(this.getAttribute("action") ?? "")}…`));
    nodes.word.addEventListener("input", () => this.#judge());
    const submit = (event) => { event.preventDefault(); this.#start(); };
    const buttons = make("div", { class: "row" }, nodes.close, nodes.again, nodes.go);
    const form = make("form", { on: { submit } }, nodes.title, nodes.facts, nodes.wordLabel, nodes.error, buttons);
    nodes.dialog.append(form);
    const root = this.attachShadow({ mode: "open", delegatesFocus: true });
    root.adoptedStyleSheets = [sheet];
    root.append(nodes.open, nodes.dialog, nodes.after);
  }

  /** Show the preview, as the button does. */
  open() {
    this.#nodes.dialog.showModal();
    this.#look();
  }

  #json(name) {
    const given = this.getAttribute(name);
    return given === null ? undefined : JSON.parse(given);
  }

  #body() {
    const { selection = { filter: this.#json("filter"), ids: this.#json("ids") } } = this;
    const all = !this.selection && this.hasAttribute("all") ? { all: true } : {};
    const options = this.options ?? this.#json("options");
    const tenant = this.tenant ?? this.getAttribute("tenant") ?? undefined;
    return { ...selection, ...all, ...(options && { options }), ...(tenant && { tenant }) };
  }

  #names() {
    const [action, resource] = [this.getAttribute("action"), this.getAttribute("resource")];
    return { action: humanise(action), resource: humanise(this.getAttribute("resource-label") ?? resource).toLowerCase() };
  }

  async #look() {
    const nodes = this.#nodes, turn = ++this.#turn;
    this.#preview = undefined;
    write(nodes.title, text("askAll", this.#names()));
    write(nodes.error, "");
    nodes.facts.replaceChildren(make("p", { class: "note", role: "status", text: text("looking") }));
    for (const node of [nodes.wordLabel, nodes.again, nodes.go]) node.hidden = true;
    nodes.title.focus();
    try {
      const path = `api/bulk/${encodeURIComponent(this.getAttribute("resource"))}/validate`;
      const body = { action: this.getAttribute("action"), ...this.#body() };
      const preview = await clientOf(this).request("POST", path, body, { timeout: PREVIEW_MS });
      if (turn === this.#turn) this.#show(preview);
    } catch (error) {
      if (turn !== this.#turn) return;
      nodes.facts.replaceChildren();
      this.#complain(error);
    }
  }

  #show(preview) {
    const nodes = this.#nodes, number = preview.eligible_count ?? preview.matched;
    const words = { ...this.#names(), n: number ?? 0 };
    this.#preview = preview;
    write(nodes.title, number === null ? text("askAll", words) : text("ask", words));
    nodes.facts.replaceChildren(...facts(preview, words));
    write(nodes.go, number === null ? text("askAll", words).replace("?", "") : text("startButton", words));
    nodes.go.hidden = nodes.close.hidden = false;
    nodes.wordLabel.hidden = !preview.confirm || number === 0;
    if (!nodes.wordLabel.hidden) {
      const name = number === null ? "typeWordOnly" : "typeWord";
      nodes.word.value = "";
      nodes.wordLabel.replaceChildren(text(name, { ...words, word: preview.confirm }), nodes.word);
      nodes.word.focus();
    }
    this.#judge();
  }

  #judge() {
    const { confirm, eligible_count: eligible } = this.#preview;
    this.#nodes.go.disabled = eligible === 0 || Boolean(confirm && this.#nodes.word.value !== confirm);
  }

  async #start() {
    const nodes = this.#nodes, { confirm, matched } = this.#preview;
    nodes.go.disabled = true;
    write(nodes.go, text("starting"));
    write(nodes.error, "");
    const body = this.#body();
    if (confirm) body.confirm = nodes.word.value;
    if (matched !== null) body.expected_count = matched;
    const { signal } = (this.#sending = new AbortController());
    try {
      const job = await clientOf(this).start(this.getAttribute("resource"), this.getAttribute("action"), body, { signal });
      nodes.dialog.close();
      nodes.open.focus();
      if (tell(this, "bulk-started", job)) this.#follow(job);
    } catch (error) {
      if (signal.aborted) return; // whoever closes the dialog wants no later try
      this.#show(this.#preview);
      this.#complain(error);
    }
  }

  #complain(error) {
    write(this.#nodes.error, error.status ? error.message : text("offline"));
    this.#nodes.again.hidden = false;
    if (error.code === "COUNT_CHANGED") this.#nodes.go.disabled = true;
    tell(this, "bulk-error", error);
  }

  #follow(job) {
    const progress = make("bulk-progress");
    progress.client = this.client;
    progress.view = job;
    if (this.hasAttribute("url")) progress.setAttribute("url", this.getAttribute("url"));
    this.#nodes.after.replaceChildren(progress);
  }
}
