// Why items of a job failed, by cause: how many, what the first said, and a way to try just those again.

import { make, write } from "./dom.js";
import { count, text } from "./messages.js";

const AGAIN_MS = 3_000;

/** Build `{button, element}`; `fetch(job)` resolves with the groups, `retry(codes)` starts those again. */
export function failureList({ fetch, retry, complain }) {
  const element = make("ul", { class: "groups", part: "failures", hidden: true });
  const button = make("button", { type: "button", class: "link", "aria-expanded": "false", on: { click: () => open(element.hidden) } });
  let job = null, told = null, timer = null;

  async function open(wanted) {
    element.hidden = !wanted;
    button.setAttribute("aria-expanded", String(wanted));
    if (wanted) await load();
  }

  async function load() {
    const wanted = `${job.failed} ${job.terminal}`;
    if (told === wanted) return;
    told = wanted;
    try {
      const { items } = await fetch(job);
      element.replaceChildren(...items.map(group));
    } catch (error) {
      told = null;
      complain(error);
    }
  }

  function group({ code, count: n, sample_message: message, first_item: item }) {
    const words = make("div", { class: "cause" }, make("span", {}, make("strong", { text: count(n) }), ` ${message}`), make("span", { class: "note", text: text("failureFirst", { code, item }) }));
    const may = job.terminal && job.allowed_actions.includes("retry");
    return make("li", {}, words, may ? make("button", { type: "button", text: text("retryThese"), "aria-label": text("retryCode", { n, code }), on: { click: () => retry([code]) } }) : null);
  }

  /** Say how many there are; an open list is looked at again, not too often. */
  function show(now) {
    const ended = now.terminal && !job?.terminal;
    job = now;
    write(button, text("failures", { n: job.failed }));
    if (!job.failed) element.hidden = true;
    if (element.hidden || (timer && !ended)) return;
    clearTimeout(timer);
    timer = setTimeout(() => { timer = null; if (element.isConnected && !element.hidden) load(); }, ended ? 0 : AGAIN_MS);
  }

  return { button, element, show, open };
}
