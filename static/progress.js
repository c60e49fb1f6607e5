// <bulk-progress job="ID">: one job, live: bar, counts, verbs, failures. Its state comes from the API, its changes
// from events; it shows nothing that neither has said.

import { make, tell, write } from "./dom.js";
import { sheet } from "./elements_style.js";
import { failureList } from "./failures.js";
import { figuresOf, shareOf, statusOf, wordsOf } from "./figures.js";
import { text } from "./messages.js";
import { clientOf } from "./shared_client.js";
import { Samples, throughputChart } from "./throughput.js";
import { verbRow } from "./verbs.js";

const ANNOUNCE_MS = 10_000;
const PATIENCE = { patience: 60_000 };
const epochOf = (cursor) => cursor.split(":")[0];
const seqOf = (cursor) => Number(cursor.split(":")[1]);

export class BulkProgress extends HTMLElement {
  static observedAttributes = ["job"];

  /** A connection, and a subscription to "all" that several elements share; both may be left out. */
  client; subscription;
  /** Where the chart's course is kept, when somebody keeps it; the attribute `chart` shows it, `failures` opens them. */
  samples;
  #view; #seq = 0; #early; #sub; #off = []; #turn = 0; #running = false; #nodes; #announced = 0; #opened = false;

  /** The job as it is known, null before that. */
  get view() { return this.#view ?? null; }

  /** Show a job that was just fetched, instead of fetching it again. */
  set view(job) {
    this.#take(job);
    this.setAttribute("job", job.id);
  }

  connectedCallback() {
    this.#build();
    this.#follow();
  }

  disconnectedCallback() { this.#leave(); }

  attributeChangedCallback(name, before, after) {
    if (before === after || !this.isConnected) return;
    if (this.#view?.id !== after) this.#view = undefined;
    this.#follow();
  }

  #leave() {
    this.#turn++;
    for (const off of this.#off.splice(0)) off();
    this.#sub?.unsubscribe();
    this.#sub = undefined;
  }

  /** Listen first, then fetch: what happens in between has a seq beyond the fetched cursor, and is kept. */
  async #follow() {
    this.#leave();
    const id = this.getAttribute("job"), turn = this.#turn;
    if (!id) return;
    this.#running = Boolean(this.#view && !this.#view.terminal);
    this.#render();
    if (this.subscription) {
      const listen = (event) => event.job === id && this.#hear(event);
      this.#off = [this.subscription.on("event", listen), this.subscription.on("reset", () => this.#load())];
    }
    const behind = seqOf(this.subscription?.cursor ?? "") > this.#seq;
    if ((behind || !this.#view) && !(await this.#load())) return;
    if (turn !== this.#turn || this.subscription || this.#view.terminal) return;
    this.#sub = clientOf(this).subscribe({ kind: "job", job: id }, { since: this.#view.cursor });
    this.#sub.on("event", (event) => this.#hear(event));
    this.#sub.on("reset", () => this.#load());
    this.#sub.on("error", (error) => this.#complain(error));
  }

  async #load() {
    const turn = this.#turn, id = this.getAttribute("job");
    this.#early ??= [];
    try {
      const job = await clientOf(this).request("GET", `api/jobs/${encodeURIComponent(id)}`, undefined, PATIENCE);
      if (turn !== this.#turn) return false;
      if (seqOf(job.cursor) >= this.#seq || epochOf(job.cursor) !== epochOf(this.#view.cursor)) this.#take(job);
      else return this.#load();
      return true;
    } catch (error) {
      if (turn === this.#turn) this.#complain(error);
      return false;
    } finally {
      const early = this.#early ?? [];
      this.#early = undefined;
      if (turn === this.#turn && this.#view) early.forEach((event) => this.#hear(event));
    }
  }

  #take(job) {
    this.#view = job;
    this.#seq = seqOf(job.cursor);
    this.#render();
    if (!job.terminal) this.#running = true;
    else if (this.#running) {
      this.#running = false;
      this.#announce(text("announceEnd", wordsOf(this.#view)), true);
      tell(this, "bulk-finished", job);
    }
  }

  #hear(event) {
    if (!this.#view) return void this.#early?.push(event);
    if (event.seq <= this.#seq || event.kind === "changed") return;
    const { items, ...data } = event.data;
    this.#seq = event.seq;
    this.#view = { ...this.#view, ...data };
    this.#render();
    tell(this, "bulk-changed", this.#view);
    if (event.kind === "progress") this.#announce(text("announce", wordsOf(this.#view)));
    else this.#load(); // only the job itself says which verbs it takes now
  }

  #announce(words, now = false) {
    if (!now && Date.now() - this.#announced < ANNOUNCE_MS) return;
    this.#announced = Date.now();
    if (this.#nodes) write(this.#nodes.live, words);
  }

  #complain(error) {
    if (!this.#nodes) return;
    const words = error.status === 404 ? text("gone") : error.status ? error.message : text("offline");
    write(this.#nodes.error, words);
    if (!this.#view) write(this.#nodes.label, "");
    tell(this, "bulk-error", error);
  }

  #build() {
    if (this.#nodes) return;
    const part = (tag, name, more = {}) => make(tag, { class: name, part: name, ...more });
    const nodes = (this.#nodes = {
      label: part("span", "label", { id: "label", text: text("loading") }), status: part("span", "status"),
      bar: part("div", "bar", {
        role: "progressbar", "aria-labelledby": "label", "aria-valuemin": 0, "aria-valuemax": 100,
      }),
      done: make("i", { class: "done" }), skip: make("i", { class: "skip" }), fail: make("i", { class: "fail" }),
      figures: part("div", "figures"), note: part("p", "note"), error: part("p", "error", { role: "alert" }),
      live: make("div", { class: "unseen", role: "status" }),
      chart: this.hasAttribute("chart") ? throughputChart() : null,
    });
    this.samples ??= nodes.chart ? new Samples() : undefined;
    nodes.failures = failureList({
      fetch: (job) => clientOf(this).request("GET", `api/jobs/${job.id}/errors`),
      retry: (codes) => this.#act("retry", { codes }), complain: (error) => this.#complain(error),
    });
    nodes.verbs = verbRow({
      act: (verb) => this.#act(verb), tune: (body) => this.#tune(body), failures: nodes.failures,
      reportUrl: (job, query) => new URL(`${job.links.report}?${query}`, clientOf(this).base).href,
    });
    nodes.bar.append(nodes.done, nodes.skip, nodes.fail);
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    root.append(
      make("header", {}, nodes.label, nodes.status), make("slot", { name: "about" }),
      nodes.bar, nodes.figures, ...(nodes.chart ? [nodes.chart.element] : []), nodes.note, nodes.error,
      nodes.verbs.element, nodes.failures.element, nodes.live,
    );
  }

  #render() {
    const nodes = this.#nodes, job = this.#view;
    if (!nodes || !job) return;
    write(nodes.label, job.label);
    write(nodes.status, statusOf(this.#view));
    nodes.status.classList.toggle("good", job.status === "completed" && job.outcome === "ok");
    nodes.status.classList.toggle("bad", job.status === "failed" || (job.terminal && job.failed > 0));
    this.#renderBar(job);
    this.#renderFigures(job);
    const why = job.error ?? job.status_reason;
    write(nodes.note, why && why.code !== "USER" ? why.message || why.code : "");
    nodes.verbs.show(job);
    if (job.failed && this.hasAttribute("failures") && !this.#opened) this.openFailures();
    if (nodes.chart) this.#renderChart(job);
  }

  #renderChart(job) {
    this.samples.add(job);
    this.#nodes.chart.show(this.samples);
    const isEmpty = this.samples.rates().length < 2;
    this.#nodes.chart.element.hidden = job.terminal && isEmpty;
  }

  #renderBar(job) {
    const { bar, done, skip, fail } = this.#nodes;
    const unknown = job.total === null && !job.terminal;
    bar.classList.toggle("unknown", unknown);
    bar.classList.toggle("still", ["paused", "cancelled", "failed"].includes(job.status));
    if (job.total === null) bar.removeAttribute("aria-valuenow");
    else bar.setAttribute("aria-valuenow", shareOf(job));
    const { processed = "", total = "" } = wordsOf(this.#view);
    bar.setAttribute("aria-valuetext", job.total === null ? statusOf(this.#view) : text("progress", { processed, total }));
    const widths = [[done, job.succeeded], [skip, job.skipped], [fail, job.failed]];
    for (const [segment, n] of widths) segment.style.inlineSize = job.total ? `${(100 * n) / job.total}%` : "";
    if (job.total === 0 && job.status === "completed") done.style.inlineSize = "100%";
  }

  #renderFigures(job) {
    const figures = figuresOf(job);
    const spans = this.#nodes.figures.children;
    while (spans.length > figures.length) spans[spans.length - 1].remove();
    figures.forEach(([words, names = ""], place) => {
      const span = spans[place] ?? this.#nodes.figures.appendChild(make("span"));
      span.className = names;
      write(span, words);
    });
  }

  /** Show why items failed, as the button does. */
  openFailures() {
    this.#opened = true;
    return this.#nodes.failures.open(true);
  }

  async #tune(body) {
    try {
      this.#take(await clientOf(this).request("PATCH", `api/jobs/${this.#view.id}`, body));
    } catch (error) {
      this.#complain(error);
    }
  }

  async #act(verb, body) {
    write(this.#nodes.error, "");
    try {
      const job = await clientOf(this).job(this.#view.id)[verb](body);
      if (job.id !== this.#view.id) return void (tell(this, `bulk-${verb}`, job) && (this.view = job));
      const followed = this.#sub && !this.#view.terminal;
      this.#take(job);
      if (!this.subscription && !followed) this.#follow();
      this.#announce(text("announceStatus", wordsOf(this.#view)), true);
    } catch (error) {
      this.#complain(error);
    }
  }
}
