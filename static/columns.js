// Which columns of a resource are shown, in which order, and how a value looks: what people call the item first, then
// what filters may use. What the reader chose is kept in this browser.

import { make } from "./dom.js";
import { menu } from "./menu.js";
import { bytes, count, exactTime, instantIn, named, text, when } from "./messages.js";

const SHOWN = 6, MAX_CELL = 200, LABEL = "label";
const NUMBERS = new Set(["integer", "real", "number"]);

/** Write a value as the reader writes such; what is no text or number of people stays as it is. */
export function cellText(value, column = {}) {
  if (value === null || value === undefined) return "";
  if (column.bytes && typeof value === "number") return bytes(value);
  if (typeof value === "number") return column.key ? String(value) : Number.isInteger(value) ? count(value) : String(value);
  const words = String(value);
  return words.length > MAX_CELL ? `${words.slice(0, MAX_CELL)}…` : words;
}

/** Build the cell of a value. */
export function cellOf(value, column) {
  const iso = instantIn(value);
  if (iso) return make("time", { datetime: value, title: exactTime(iso), text: when(iso) });
  return value === null ? make("span", { class: "muted", "aria-label": text("isEmpty"), text: "–" }) : cellText(value, column);
}

/** How a column is called, and what its values are; those of folders are of our own making. */
export const titleOf = ({ name }, { kind }) => (kind === "folder" && name === "mtime" ? text("changedAt") : named(name));
export const natureOf = ({ name, sort, filter }, { kind }) => ({ key: sort && !filter, bytes: kind === "folder" && name === "size" });

/** What an item is called, and beside it whether actions leave it out. */
function labelCell({ label, eligible, code }) {
  const words = cellText(label);
  return eligible ? words : make("span", { dir: "auto" }, words, make("span", { class: "mark", text: ` ${text(code === "PROTECTED" ? "markProtected" : "markNotEligible")}` }));
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

  /** Those that filters may use come first: they are what people look for. */
  const others = () => [true, false].flatMap((first) => info.columns.filter(({ name, filter }) => name !== labelColumn && Boolean(filter) === first));
  const usual = () => others().filter(({ filter, sort }) => filter || !sort).slice(0, SHOWN).map(({ name }) => name);

  function columns() {
    const names = chosen ?? usual(), label = info.columns.find(({ name }) => name === labelColumn);
    const first = { name: LABEL, label: named(labelColumn || "item"), sort: label?.sort ? label.name : undefined, cell: labelCell };
    const shown = others().filter(({ name }) => names.includes(name));
    return [first, ...shown.map((column, place) => ({
      name: column.name, label: titleOf(column, info), sort: column.sort ? column.name : undefined, end: NUMBERS.has(column.type),
      priority: place < 2 ? 1 : place < 4 ? 2 : 3, cell: ({ row }) => cellOf(row[column.name], natureOf(column, info)),
    }))];
  }

  const choose = menu(text("columns"), () => others().map((column) => {
    const { name } = column;
    const box = make("input", { type: "checkbox", checked: (chosen ?? usual()).includes(name) });
    box.addEventListener("change", () => {
      const before = chosen ?? usual();
      chosen = box.checked ? [...before, name] : before.filter((each) => each !== name);
      localStorage.setItem(slot, JSON.stringify(chosen));
      changed();
    });
    return make("label", {}, box, titleOf(column, info));
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
