// The resources of the caller: how many items, in which states, and the deletion of those that a filter matches.

import { make, write } from "./dom.js";
import { conditions } from "./filter.js";
import { count, text } from "./messages.js";

const REFRESH_MS = 1_000;

/** Build the section; `ask` asks the API, `started` gets the job of a start. */
export function resourceSection({ ask, client, me, started }) {
  const list = make("div", { class: "stack" });
  const section = make("section", { "aria-labelledby": "resources" }, make("h2", { id: "resources", text: text("resources") }), list);
  const cards = new Map(), due = new Map();

  async function load() {
    const { items } = await ask("GET", "api/resources");
    const infos = await Promise.all(items.map(({ name }) => ask("GET", `api/bulk/${encodeURIComponent(name)}/info`)));
    cards.clear();
    for (const info of infos) cards.set(info.name, card(info, { client, me, started }));
    const empty = make("p", { class: "empty", text: text("noResources") });
    list.replaceChildren(...(cards.size ? cards.values() : [empty]));
  }

  /** Count a resource again, at most once a second. */
  function refresh(name) {
    if (!cards.has(name) || due.has(name)) return;
    due.set(name, setTimeout(async () => {
      due.delete(name);
      try {
        cards.get(name)?.show(await ask("GET", `api/bulk/${encodeURIComponent(name)}/info`));
      } catch { /* the next change asks again */ }
    }, REFRESH_MS));
  }

  return { section, load, refresh };
}

function card(info, { client, me, started }) {
  const number = make("span", { class: "number" });
  const shares = make("div", { class: "shares", "aria-hidden": "true" });
  const states = make("p", { class: "muted number" });
  const head = make("div", { class: "head" }, make("h3", { text: info.label }), number);
  const element = make("article", { class: "card resource" }, head, shares, states);
  element.show = ({ counts }) => {
    const { total, by_status: byStatus, deleted } = counts;
    write(number, total === null ? text("countUnknown") : text("countItems", { count: count(total) }));
    const all = Object.entries(byStatus ?? {});
    const named = all.map(([status, n]) => `${status} ${count(n)}`);
    if (deleted) named.push(text("inTrash", { count: count(deleted) }));
    write(states, named.join(" · "));
    shares.hidden = !all.length;
    shares.replaceChildren(...all.map(([, n]) => {
      const share = make("i");
      share.style.flex = String(n);
      return share;
    }));
  };
  element.show(info);
  const action = info.actions.find(({ name }) => name === "delete");
  if (action) element.append(deletion(info, action, { client, me, started }));
  return element;
}

function deletion(info, action, { client, me, started }) {
  const element = make("bulk-action", { resource: info.name, action: action.name, "resource-label": info.label });
  element.client = client;
  element.options = {};
  element.append(text("previewDelete"));
  element.addEventListener("bulk-started", (event) => {
    event.preventDefault(); // its progress belongs into the list of jobs
    started(event.detail);
  });
  const filter = conditions(info, info.counts.by_status ?? {}, (selection) => { element.selection = selection; });
  if (me.tenant === null && info.tenanted) filter.append(tenantField(element));
  const choices = Object.entries(action.options.properties).filter(([, option]) => option.type === "boolean");
  filter.append(...choices.map(([name, { title }]) => choice(element, name, title ?? name)), element);
  return make("details", {}, make("summary", { text: text("deleteBy") }), filter);
}

function tenantField(element) {
  const field = make("input", { placeholder: text("tenantHint"), autocomplete: "off" });
  field.addEventListener("input", () => { element.tenant = field.value.trim() || undefined; });
  return make("label", { class: "line" }, text("tenant"), field);
}

function choice(element, name, title) {
  const box = make("input", { type: "checkbox" });
  box.addEventListener("change", () => {
    const { [name]: before, ...others } = element.options;
    element.options = box.checked ? { ...others, [name]: true } : others;
  });
  return make("label", { class: "line" }, box, title);
}
