// Webhooks: whom the server tells of jobs, how the last message went, and the messages of one: those that nobody took
// can be sent again.

import { at, query } from "./api.js";
import { listView, pictureButton, removed, rowButtons, showSecret } from "./caretaking.js";
import { openDialog, openForm } from "./dialog.js";
import { make } from "./dom.js";
import { form } from "./form.js";
import { text } from "./messages.js";
import { button, code, distanceOf, instantOf } from "./parts.js";
import { emptyNote, problemNote } from "./problem.js";
import { href } from "./router.js";

const EVENTS = { started: "hookOnStarted", progress: "hookOnProgress", paused: "hookOnPaused", completed: "hookOnCompleted", failed: "hookOnFailed", cancelled: "hookOnCancelled" };
const STATES = { delivered: "stateDelivered", pending: "statePending", dead: "stateDead", active: "stateActive", disabled: "stateDisabled" };
const TONES = { delivered: "good", pending: "live", dead: "bad", active: "good", disabled: "bad" };
const MAX_MESSAGES = 50;

const badgeOf = (state) => make("span", { class: "badge", "data-tone": TONES[state], text: text(STATES[state]) });

/** Open the webhooks. */
export function open({ page, signal }) {
  async function add() {
    const fields = form([
      { name: "url", label: text("hookUrl"), type: "text", required: true, hint: text("hookUrlHint"), placeholder: "https://" },
      { name: "events", label: text("hookEvents"), type: "many", value: ["completed", "failed"], choices: Object.entries(EVENTS).map(([name, key]) => [name, text(key)]) },
      { name: "description", label: text("hookDescription"), type: "text" },
      ...(page.me.tenant === null ? [{ name: "tenant", label: text("tenant"), type: "text", hint: text("wholeInstallation") }] : []),
    ]);
    const submit = (body) => page.ask("POST", "api/webhooks", body);
    const made = await openForm({ title: text("hookAdd"), form: fields, action: text("hookAddYes"), submit, signal }).closed;
    if (!made) return;
    list.load();
    showSecret({ title: text("hookMade"), secret: made.secret, hint: text("hookMadeHint") });
  }

  async function test(row) {
    if (await page.attempt(() => page.ask("POST", at("webhooks", row.id, "test")))) page.toast(text("hookTested"), { action: { label: text("hookMessages"), act: () => openMessages(page, row, signal) } });
  }

  const remove = (row) => removed(page, list, { title: text("hookRemoveTitle"), message: text("hookRemoveMessage", { url: row.url }), action: text("remove"), path: at("webhooks", row.id) });
  const { element, list } = listView({
    title: text("navWebhooks"), intro: text("hooksIntro"), actions: [button(text("hookAdd"), add, { picture: "plus", names: "primary" })], signal,
    fetch: ({ limit, page: token }) => page.ask("GET", `api/webhooks${query({ limit, page: token })}`),
    table: {
      idOf: ({ id }) => id, nameOf: ({ url }) => url, open: (row) => openMessages(page, row, signal),
      columns: [
        { name: "url", label: text("hookUrl"), cell: ({ url }) => code(url) },
        { name: "status", label: text("status"), cell: ({ status }) => badgeOf(status) },
        { name: "events", label: text("hookEvents"), priority: 3, cell: ({ events, tenant }) => [events.map((name) => text(EVENTS[name] ?? name)).join(", "), tenant].filter(Boolean).join(" · ") },
        { name: "last", label: text("hookLast"), priority: 2, cell: ({ last_delivery: last }) => (last ? make("span", {}, `${last.result} `, distanceOf(last.at)) : text("never")) },
        { name: "acts", label: text("actions"), end: true, cell: (row) => rowButtons(row.status === "active" && button(text("hookTest"), () => test(row)), pictureButton(text("remove"), () => remove(row), "trash")) },
      ],
      empty: () => emptyNote({ title: text("noHooksTitle"), detail: text("noHooks"), picture: "hook" }),
    },
  });
  return { element };
}

/** The messages of one webhook, newest first, in a panel at the side. */
function openMessages(page, hook, signal) {
  const place = make("div", { class: "stack", "aria-live": "polite" });
  const dialog = openDialog({ title: text("hookMessages"), side: true, signal, body: [code(hook.url), place] });
  load();

  async function load() {
    try {
      const { items } = await page.ask("GET", `${at("webhooks", hook.id, "deliveries")}${query({ limit: MAX_MESSAGES })}`);
      place.replaceChildren(...(items.length ? items.map(messageOf) : [make("p", { class: "muted", text: text("noMessages") })]));
    } catch (error) {
      place.replaceChildren(problemNote(error, load));
    }
  }

  function messageOf(message) {
    const { id, type, job, state, attempts, result, next_attempt_at: next, created_at: made } = message;
    const again = async () => { if (await page.attempt(() => page.ask("POST", at("webhooks", hook.id, "deliveries", id, "resend")))) load(); };
    const about = job ? make("a", { href: href("jobs", [job]), text: type, on: { click: () => dialog.close() } }) : make("span", { text: type });
    const how = [result, text("attempts", { n: attempts })].filter(Boolean).join(" · ");
    return make("div", { class: "touch" }, make("div", { class: "row" }, about, badgeOf(state), state === "dead" ? button(text("tryAgain"), again) : null), make("span", { class: "muted small", text: how }), make("span", { class: "muted small" }, instantOf(made), next && state === "pending" ? ` · ${text("hookNext")} ` : "", next && state === "pending" ? distanceOf(next) : ""));
  }
}
