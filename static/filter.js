// The conditions of a resource's filter, as rows of column, comparison and value; what they select is a body for
// a start: a filter, or everything when there is no condition.

import { make } from "./dom.js";
import { text } from "./messages.js";

/** Comparisons: what the API calls them, and how their value is written there. */
const OPERATORS = {
  is: (value) => value,
  isNot: (value) => ({ ne: value }),
  contains: (value) => ({ like: `%${value}%` }),
  atLeast: (value) => ({ gte: value }),
  below: (value) => ({ lt: value }),
  isEmpty: () => ({ is_null: true }),
};
const NUMBERS = new Set(["integer", "real", "number"]);
let lists = 0;

/** Build the conditions of `resource`; `changed` is called with the selection whenever it changes. */
export function conditions(resource, byStatus, changed) {
  const columns = resource.columns.filter((column) => column.filter);
  const rows = make("div", { class: "stack" });
  const known = make("datalist", { id: `known-${++lists}` }, ...Object.keys(byStatus).map((value) => make("option", { value })));
  const hint = make("p", { class: "muted", text: text("everything") });
  const tellChange = () => {
    hint.hidden = rows.childElementCount > 0;
    changed(selectionOf([...rows.children].map((row) => row.condition())));
  };
  const add = () => {
    const row = condition(columns, known.id, tellChange);
    rows.append(row);
    row.querySelector("select").focus();
    tellChange();
  };
  const button = make("button", { type: "button", class: "add", text: text("addCondition"), on: { click: add } });
  queueMicrotask(tellChange);
  return make("div", { class: "filter" }, rows, hint, columns.length ? button : null, known);
}

function condition(columns, knownId, changed) {
  const column = make("select", { "aria-label": text("column") }, ...columns.map(({ name }) => make("option", { value: name, text: name })));
  const names = Object.keys(OPERATORS);
  const operator = make("select", { "aria-label": text("operator") }, ...names.map((name) => make("option", { value: name, text: text(name) })));
  const value = make("input", { class: "value", "aria-label": text("value"), list: knownId, autocomplete: "off" });
  const remove = make("button", { type: "button", "aria-label": text("removeCondition"), text: "×" });
  const row = make("div", { class: "condition", role: "group" }, column, operator, value, remove);
  if (columns.some(({ name }) => name === "status")) column.value = "status";
  remove.addEventListener("click", () => {
    const add = row.closest(".filter").querySelector(".add");
    row.remove();
    add.focus();
    changed();
  });
  row.addEventListener("input", () => {
    value.hidden = operator.value === "isEmpty";
    value.toggleAttribute("list", column.value === "status");
    if (column.value === "status") value.setAttribute("list", knownId);
    changed();
  });
  row.condition = () => {
    const { type } = columns.find(({ name }) => name === column.value);
    const written = NUMBERS.has(type) && operator.value !== "contains" && value.value.trim() !== "" ? Number(value.value) : value.value;
    return { column: column.value, test: OPERATORS[operator.value](Number.isNaN(written) ? value.value : written) };
  };
  return row;
}

/** Several conditions on one column hold together; two equal-tos cannot both be said, so they become alternatives. */
export function selectionOf(given) {
  if (!given.length) return { all: true };
  const filter = {};
  for (const { column, test } of given) {
    const before = filter[column];
    const isPlain = (each) => typeof each !== "object" || Array.isArray(each);
    if (before === undefined) filter[column] = test;
    else if (isPlain(before) && isPlain(test)) filter[column] = [before, test].flat();
    else {
      const asTest = (each) => (!isPlain(each) ? each : Array.isArray(each) ? { in: each } : { eq: each });
      filter[column] = { ...asTest(before), ...asTest(test) };
    }
  }
  return { filter };
}
