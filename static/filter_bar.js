// The tools over a list of items: search, in all columns or in one; conditions as chips; the tenant, for those who
// have none of their own; deleted items.

import { OPERATORS, conditionText } from "./conditions.js";
import { make } from "./dom.js";
import { icon } from "./icons.js";
import { menu } from "./menu.js";
import { named, text } from "./messages.js";
import { searchField } from "./parts.js";

const TIMES = /(_at|_on|date|time)$/i;
let lists = 0;

/** Build the tools; `wish(changes)` is called with what shall be different; `show(wishes)` says what is. */
export function filterBar(page, { info, wish, signal }) {
  const columns = info.columns.filter(({ filter }) => filter);
  const known = make("datalist", { id: `known-${++lists}` }, ...Object.keys(info.counts.by_status ?? {}).map((value) => make("option", { value })));
  const search = searchField(page, { label: text("searchIn", { resource: info.label.toLowerCase() }), found: (q) => wish({ q: q || undefined }), signal });
  const scope = make("select", { class: "scope", "aria-label": text("searchScope") }, make("option", { value: "", text: text("anyColumn") }), ...columns.map(({ name }) => make("option", { value: name, text: named(name) })));
  scope.addEventListener("change", () => wish({ searchIn: scope.value || undefined }));
  const chips = make("ul", { class: "chips", "aria-label": text("conditions") });
  let now = { conditions: [] };
  const add = (condition) => wish({ conditions: [...now.conditions, condition] });
  const adder = columns.length ? menu(text("addCondition"), () => [conditionForm(columns, known.id, add, adder)], { picture: "filter" }) : null;
  const tenant = page.me.tenant === null && info.tenanted ? tenantField(wish) : null;
  const trash = info.soft_delete ? make("input", { type: "checkbox", on: { change: ({ target }) => wish({ deleted: target.checked, conditions: now.conditions }) } }) : null;
  const element = make("div", { class: "tools" }, columns.length ? make("div", { class: "searching" }, search.element, scope) : null, adder?.element, chips, known, make("span", { class: "gap" }), tenant, trash && make("label", { class: "line" }, trash, text("deletedItems")));

  function show(wishes) {
    now = wishes;
    search.set(wishes.q ?? "");
    scope.value = wishes.searchIn ?? "";
    if (tenant) tenant.value = wishes.tenant ?? "";
    if (trash) trash.checked = wishes.deleted;
    chips.replaceChildren(...wishes.conditions.map((condition, place) => chip(condition, () => wish({ conditions: now.conditions.toSpliced(place, 1) }))));
    chips.hidden = !wishes.conditions.length;
  }

  return { element, show };
}

function chip(condition, remove) {
  const words = conditionText(condition);
  return make("li", {}, make("span", { dir: "auto", text: words.slice(0, 80) }), make("button", { type: "button", "aria-label": text("removeCondition", { condition: words.slice(0, 80) }), on: { click: remove } }, icon("close")));
}

function tenantField(wish) {
  const field = make("input", { class: "tenant", "aria-label": text("tenant"), placeholder: text("tenantHint"), autocomplete: "off", spellcheck: "false" });
  field.addEventListener("change", () => wish({ tenant: field.value.trim() || undefined }));
  return field;
}

function conditionForm(columns, knownId, add, place) {
  const column = make("select", {}, ...columns.map(({ name }) => make("option", { value: name, text: named(name) })));
  const operator = make("select", {}, ...Object.entries(OPERATORS).map(([value, name]) => make("option", { value, text: text(name) })));
  const value = make("input", { autocomplete: "off", spellcheck: "false" });
  const field = (name, input) => {
    input.id = `${knownId}-${name}`;
    return make("div", { class: "field" }, make("label", { for: input.id, text: text(name) }), input);
  };
  const holder = field("value", value), hint = make("p", { class: "hint", text: text("timeHint") });
  holder.append(hint);
  const fit = () => {
    holder.hidden = operator.value === "is_null";
    hint.hidden = !TIMES.test(column.value);
    if (column.value === "status") value.setAttribute("list", knownId);
    else value.removeAttribute("list");
  };
  column.addEventListener("change", fit);
  operator.addEventListener("change", fit);
  if (columns.some(({ name }) => name === "status")) column.value = "status";
  fit();
  const submit = (event) => {
    event.preventDefault();
    place.panel.hidePopover();
    add({ column: column.value, operator: operator.value, value: operator.value === "is_null" ? "true" : value.value });
  };
  return make("form", { class: "fields", on: { submit } }, field("column", column), field("operator", operator), holder, make("button", { type: "submit", class: "primary", "data-stay": true, text: text("apply") }));
}
