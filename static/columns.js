// Which columns of a resource are shown, in which order, and how a value looks: what people call the item first, then
// what filters may use. What the reader chose is kept in this browser.

import { make } from "./dom.js";
import { menu } from "./menu.js";
import { count, exactTime, named, text, when } from "./messages.js";

const SHOWN = 6, MAX_CELL = 200, LABEL = "label";
const INSTANT = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?$/;
const NUMBERS = new Set(["integer", "real", "number"]);

/** Write a value as the reader writes such; what is no text or number of people stays as it is. */
export function cellText(value, column = {}) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return column.key ? String(value) : Number.isInteger(value) ? count(value) : String(value);
  const words = String(value);
  return words.length > MAX_CELL ? `${words.slice(0, MAX_CELL)}…` : words;
}

/** Build the cell of a value. */
export function cellOf(value, column) {
  if (typeof value === "string" && value.length < 40 && INSTANT.test(value)) {
    const iso = value.replace(" ", "T");
    if (!Number.isNaN(Date.parse(iso))) return make("time", { datetime: value, title: exactTime(iso), text: when(iso) });
  }
  return value === null ? make("span", { class: "muted", "aria-label": text("isEmpty"), text: "–" }) : cellText(value, column);
}

/** Choose the columns of a resource; `changed()` is called when the reader chooses others. */
export function columnChoice(info, changed) {
  const slot = `bulkops:columns:${info.name}`;
  let labelColumn = null, chosen = stored(slot);

  /** Which column the label is, the first rows tell. */
  function learn(items) {
    if (labelColumn !== null || !items.length) return false;
    const is = ({ name }) => items.every(({ label, row }) => String(row[name] ?? "") === label);
    labelColumn = info.columns.find((column) => is(column) && column.filter)?.name ?? info.columns.find(is)?.name ?? "";
    return true;
  }

  const others = () => info.columns.filter(({ name }) => name !== labelColumn);
  const usual = () => {
    const first = [...others().filter(({ filter }) => filter), ...others().filter(({ filter, sort }) => !filter && !sort)];
    return first.slice(0, SHOWN).map(({ name }) => name);
  };

  function columns() {
    const names = chosen ?? usual(), label = info.columns.find(({ name }) => name === labelColumn);
    const first = { name: LABEL, label: named(labelColumn || "item"), sort: label?.sort ? label.name : undefined, cell: (item) => cellText(item.label) };
    const shown = others().filter(({ name }) => names.includes(name));
    return [first, ...shown.map((column, place) => ({
      name: column.name, label: named(column.name), sort: column.sort ? column.name : undefined, end: NUMBERS.has(column.type),
      priority: place < 2 ? 1 : place < 4 ? 2 : 3, cell: ({ row }) => cellOf(row[column.name], { key: column.sort && !column.filter }),
    }))];
  }

  const choose = menu(text("columns"), () => others().map(({ name }) => {
    const box = make("input", { type: "checkbox", checked: (chosen ?? usual()).includes(name) });
    box.addEventListener("change", () => {
      const before = chosen ?? usual();
      chosen = box.checked ? [...before, name] : before.filter((each) => each !== name);
      localStorage.setItem(slot, JSON.stringify(chosen));
      changed();
    });
    return make("label", {}, box, named(name));
  }), { picture: "columns", names: "square", caption: null });

  return { learn, columns, menu: choose.element };
}

function stored(slot) {
  try {
    const found = JSON.parse(localStorage.getItem(slot));
    return Array.isArray(found) ? found : null;
  } catch {
    return null;
  }
}
