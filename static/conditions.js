// What narrows a list of items: conditions on columns, a search, an order. The address writes them as the API does
// (`status.eq=closed&created_at.lt=-30d&q=oak&sort=-number`); a start gets them as its filter.

import { text } from "./messages.js";

export const OPERATORS = { eq: "is", ne: "isNot", like: "contains", gte: "atLeast", lt: "below", lte: "atMost", gt: "above", in: "isOneOf", is_null: "isEmpty" };
const NUMBERS = new Set(["integer", "real", "number"]);
const OWN = new Set(["q", "search_in", "sort", "deleted", "tenant", "limit", "page"]);

/** Read what an address asks for. */
export function readWishes(query) {
  const conditions = [];
  for (const [name, value] of query) {
    if (OWN.has(name)) continue;
    const [, column, operator] = /^(.+)\.(\w+)$/s.exec(name) ?? [];
    if (OPERATORS[operator]) conditions.push({ column, operator, value });
    else conditions.push({ column: name, operator: "eq", value });
  }
  const get = (name) => query.get(name) || undefined;
  return { conditions, q: get("q"), searchIn: get("search_in"), sort: get("sort"), deleted: get("deleted") === "true", tenant: get("tenant") };
}

/** Write what is wished into an address. */
export function writeWishes({ conditions, q, searchIn, sort, deleted, tenant }) {
  const pairs = conditions.map(({ column, operator, value }) => [`${column}.${operator}`, value]);
  const own = { q, search_in: searchIn, sort, deleted: deleted ? "true" : undefined, tenant };
  return [...pairs, ...Object.entries(own).filter(([, value]) => value)];
}

/** Write the query of the API: a search in one column is a condition, so that a start can have it too. */
export function itemsQuery(wishes, more) {
  const { q, sort, deleted, tenant } = wishes;
  const pairs = Object.entries(filterOf(wishes, []) ?? {}).flatMap(([column, tests]) =>
    Object.entries(tests).map(([operator, value]) => [`${column}.${operator}`, Array.isArray(value) ? value.join(",") : String(value)]));
  const own = { q: wishes.searchIn ? undefined : q, sort, deleted: deleted || undefined, tenant, ...more };
  return new URLSearchParams([...pairs, ...Object.entries(own).filter(([, value]) => value !== undefined && value !== null)]);
}

/** Write the filter of a start, null when there is no condition; columns say what is a number. */
export function filterOf({ conditions, q, searchIn }, columns) {
  const all = q && searchIn ? [...conditions, { column: searchIn, operator: "like", value: q }] : conditions;
  const filter = {};
  for (const { column, operator, value } of all) {
    const type = columns.find(({ name }) => name === column)?.type;
    const tests = (filter[column] ??= {}), written = writtenValue(operator, value, NUMBERS.has(type));
    if (operator === "eq" && ("eq" in tests || "in" in tests)) {
      tests.in = [...(tests.in ?? [tests.eq]), written];
      delete tests.eq;
    } else tests[operator] = written;
  }
  return Object.keys(filter).length ? filter : null;
}

function writtenValue(operator, value, isNumber) {
  const one = (each) => (isNumber && each.trim() !== "" && Number.isFinite(Number(each)) ? Number(each) : each);
  if (operator === "in") return value.split(",").map((each) => one(each.trim()));
  if (operator === "is_null") return value !== "false";
  if (operator === "like") return /[%_]/.test(value) ? value : `%${value}%`;
  return one(value);
}

/** Say a condition in words. */
export function conditionText({ column, operator, value }) {
  const name = column.replaceAll("_", " ");
  if (operator === "is_null") return `${name} ${text(value === "false" ? "isNotEmpty" : "isEmpty")}`;
  return `${name} ${text(OPERATORS[operator])} ${value}`;
}

/** Say the filter of a job in words, as its selection has it. */
export function filterText(filter) {
  const sayOne = (column, tests) => {
    if (tests === null) return conditionText({ column, operator: "is_null", value: "true" });
    if (Array.isArray(tests)) return conditionText({ column, operator: "in", value: tests.join(", ") });
    if (typeof tests !== "object") return conditionText({ column, operator: "eq", value: tests });
    return Object.entries(tests).map(([operator, value]) => conditionText({ column, operator, value: [value].flat().join(", ") })).join(", ");
  };
  return Object.entries(filter ?? {}).map(([column, tests]) => sayOne(column, tests)).join(", ");
}
