// The line between the tools and the rows: while nothing is selected the states and how many there are of each, else
// what is selected and what can be done with it. Its height is the same.

import { make, write } from "./dom.js";
import { menu } from "./menu.js";
import { count, text } from "./messages.js";
import { MAX_IDS } from "./picks.js";

const SHOWN_ACTIONS = 3, SHOWN_STATES = 8;
const OF_DELETED = new Set(["restore", "purge"]);

/** Whether an action takes items out of sight, which its button shows. */
export const takesAway = ({ name }) => ["delete", "purge", "remove"].includes(name);

/** The actions that fit what is shown: of deleted items those that take such, of the others the rest. */
export function actionsFor(info, deleted) {
  return info.actions.filter(({ name }) => !info.soft_delete || OF_DELETED.has(name) === deleted);
}

/**
 * Build the line; `picks` is what is selected, `act(action)` opens an action, `wish(changes)` narrows the list,
 * `scope()` tells `{total, capped, canAll, wishes}`.
 */
export function pickBar({ info, picks, act, wish, scope }) {
  const states = make("div", { class: "states" });
  const said = make("strong", { class: "number", role: "status" });
  const all = make("button", { type: "button", class: "link", on: { click: () => picks.all() } });
  const cannot = make("span", { class: "muted small" });
  const clear = make("button", { type: "button", class: "link", text: text("clearPicks"), on: { click: () => picks.clear() } });
  const actions = make("div", { class: "row actions" });
  const picked = make("div", { class: "picked-line", hidden: true }, make("div", { class: "row" }, said, all, cannot, clear), actions);
  const element = make("div", { class: "pick-bar" }, states, picked);
  let shownFor = null;

  function show() {
    const { total, capped, canAll, wishes } = scope(), none = picks.isEmpty;
    states.hidden = !none;
    picked.hidden = none;
    if (shownFor !== wishes.deleted) {
      shownFor = wishes.deleted;
      actions.replaceChildren(...actionButtons(actionsFor(info, wishes.deleted), act));
    }
    if (none) return showStates(wishes);
    const n = picks.count(capped ? null : total), left = picks.isAll ? picks.named.length : 0;
    write(said, n === null ? text(left ? "pickedAllBut" : "pickedAll", { total, n: left }) : text(left ? "pickedOfAll" : "picked", { n, total, left }));
    const offers = !picks.isAll && total > picks.named.length;
    all.hidden = !offers || !canAll;
    cannot.hidden = !picks.isFull && (!offers || canAll);
    write(cannot, picks.isFull ? text("pickLimit", { n: MAX_IDS }) : text("searchOneColumn"));
    write(all, text(capped ? "pickMany" : "pickAllMatching", { n: total }));
  }

  function showStates({ conditions, deleted, q, tenant }) {
    const by = Object.entries(info.counts.by_status ?? {}).slice(0, SHOWN_STATES), column = statusColumn(info);
    const is = (value) => conditions.some((each) => each.column === column && each.operator === "eq" && each.value === value);
    const others = conditions.filter((each) => each.column !== column);
    const isNarrowed = others.length || q || tenant; // the counts are of everything
    if (deleted || !column || !by.length) return states.replaceChildren();
    states.replaceChildren(...by.map(([value, n]) => {
      const turn = () => wish({ conditions: is(value) ? others : [...others, { column, operator: "eq", value }] });
      return make("button", { type: "button", class: "state-button", "aria-pressed": String(is(value)), on: { click: turn } }, make("span", { dir: "auto", text: value.slice(0, 40) || text("isEmpty") }), isNarrowed ? null : make("span", { class: "number", text: count(n) }));
    }));
  }

  picks.on(show);
  return { element, show, focus: () => [...actions.querySelectorAll("button")].find((each) => each.checkVisibility())?.focus() };
}

const statusColumn = ({ columns, kind }) => columns.find(({ name, filter }) => name === (kind === "folder" ? "kind" : "status") && filter)?.name;

function actionButtons(all, act) {
  const button = (action, names = "") => make("button", { type: "button", class: [names, takesAway(action) ? "danger" : ""].join(" "), text: `${action.label}…`, on: { click: () => act(action) } });
  const first = all.slice(0, SHOWN_ACTIONS), rest = all.slice(SHOWN_ACTIONS);
  const more = rest.length ? menu(text("moreActions"), () => rest.map((action) => button(action)), { names: "more-actions" }) : null;
  const narrow = all.length > 1 ? menu(text("actions"), () => all.map((action) => button(action)), { names: "primary" }) : null;
  const wide = make("div", { class: "row wide-actions" }, ...first.map((action) => button(action)), more?.element);
  narrow?.element.classList.add("narrow-actions");
  return narrow ? [wide, narrow.element] : [make("div", { class: "row" }, ...first.map((action) => button(action)))];
}
