// What can be done with a job, as a row of buttons: its verbs, how fast it may be, why items failed, its report.
// Cancelling asks first, in the same place.

import { make } from "./dom.js";
import { rate, text } from "./messages.js";

const SPEEDS = [10, 50, 200, 1_000, 5_000];

/**
 * Build the row; `act(verb)` and `tune(body)` resolve when it was done or refused, `failures` is the button that shows
 * why items failed, `reportUrl(job, query)` says where the report is.
 */
export function verbRow({ act, tune, failures, reportUrl }) {
  const element = make("div", { class: "row verbs", part: "verbs" });
  let shown = null, asking = false, busy = false, job = null;

  function show(now) {
    job = now;
    const verbs = job.allowed_actions ?? [];
    if (asking && verbs.includes("cancel")) return; // the question stands until it is answered or moot
    asking = false;
    const wanted = [...verbs, job.failed > 0, job.terminal, job.max_items_per_second, busy].join();
    if (shown === wanted) return failures.show(job);
    shown = wanted;
    failures.show(job);
    const link = (words, query, part) => make("a", { href: reportUrl(job, query), download: true, text: words, part });
    keepFocus(() => element.replaceChildren(
      ...verbs.map(button),
      job.terminal ? "" : speed(),
      job.failed ? failures.button : "",
      job.terminal && job.total ? link(text("report"), "format=csv", "report") : "",
      job.terminal && job.failed ? link(text("reportFailed"), "format=csv&outcome=failed") : "",
    ));
  }

  function button(verb) {
    const click = () => (verb === "cancel" ? askCancel() : run(() => act(verb)));
    return make("button", { type: "button", text: text(verb), class: verb === "cancel" ? "danger" : "", disabled: busy, on: { click } });
  }

  function speed() {
    const now = job.max_items_per_second, all = [...new Set([...SPEEDS, ...(now ? [now] : [])])].sort((a, b) => a - b);
    const options = all.map((n) => make("option", { value: n, text: text("atMostPerSecond", { rate: rate(n) }) }));
    const select = make("select", { "aria-label": text("speed"), disabled: busy }, make("option", { value: "", text: text("fullSpeed") }), ...options);
    select.value = now ?? "";
    select.addEventListener("change", () => run(() => tune({ max_items_per_second: select.value ? Number(select.value) : null })));
    return select;
  }

  async function run(deed) {
    busy = true;
    asking = false;
    show(job);
    try {
      await deed();
    } finally {
      busy = false;
      show(job);
    }
  }

  function askCancel() {
    const leave = () => { asking = false; shown = null; show(job); element.querySelector("button")?.focus(); };
    const no = make("button", { type: "button", text: text("cancelNo"), on: { click: leave } });
    const yes = make("button", { type: "button", class: "danger", text: text("cancelYes"), on: { click: () => run(() => act("cancel")) } });
    asking = true;
    shown = null;
    element.replaceChildren(make("span", { class: "note", role: "alert", text: text("cancelSurely") }), yes, no);
    no.focus();
  }

  /** Whoever pressed a button that is replaced finds its successor under the keyboard. */
  function keepFocus(change) {
    const held = element.contains(element.getRootNode().activeElement) ? element.getRootNode().activeElement : null;
    change();
    if (held && !held.isConnected) (element.querySelector(":is(button, select):not(:disabled)") ?? element.querySelector("a"))?.focus();
  }

  return { element, show };
}
