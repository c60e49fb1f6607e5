// A table of rows: sorted by its heads, moved through with the arrow keys, its rows picked by their boxes. It keeps
// the rows it has when it is shown anew, so that nothing jumps and the keyboard stays where it is.

import { make, write } from "./dom.js";
import { icon } from "./icons.js";
import { text } from "./messages.js";

const SKELETONS = 12, LONG = 24;

/**
 * Build a table. `columns`: `[{name, label, cell(row), sort?, end?, priority?, mono?}]`: `cell` returns a text or a node,
 * `sort` is what the API calls it, priority 2 and 3 go first when room is short. `idOf(row)` tells rows apart,
 * `nameOf(row)` is what they are called, `picks` is a Picks of picks.js, `open(row, button)` is for Enter and a click
 * on the first cell, `sorted(sort)` is told of a wish, `dress(tr, row)` may mark a row.
 */
export function dataTable(options) {
  return new Table(options);
}

class Table {
  #options; #rows = new Map(); #head; #body; #all; #note; #heads = [];

  constructor(options) {
    this.#options = options;
    const { caption, picks } = options;
    this.#head = make("tr");
    this.#body = make("tbody");
    this.#note = make("div", { class: "table-note", hidden: true });
    const table = make("table", {}, make("caption", { class: "unseen", text: caption }), make("thead", {}, this.#head), this.#body);
    this.element = make("div", { class: "table-place", role: "region", "aria-label": caption, tabindex: 0 }, table, this.#note);
    this.columns(options.columns);
    this.#body.addEventListener("keydown", (event) => this.#move(event));
    this.#body.addEventListener("click", (event) => this.#click(event));
    if (picks) picks.on(() => this.#showPicks());
  }

  /** The rows that are shown, in order. */
  get rows() { return [...this.#rows.values()].map(({ row }) => row); }

  /** Show other columns from now on. */
  columns(columns) {
    this.#options.columns = columns;
    this.#heads = columns.map((column) => this.#headOf(column));
    this.#head.replaceChildren(...(this.#options.picks ? [make("th", { class: "pick", scope: "col" }, this.#pickAll())] : []), ...this.#heads);
    const rows = this.rows;
    this.#rows.clear();
    this.#body.replaceChildren();
    if (rows.length) this.show(rows);
  }

  #headOf({ label, sort, end, priority = 1 }) {
    const names = [end && "end", `p${priority}`].filter(Boolean).join(" ");
    if (!sort || !this.#options.sorted) return make("th", { class: names, scope: "col", text: label });
    const turn = () => {
      const now = this.#options.sort;
      this.#options.sorted(now === sort ? `-${sort}` : now === `-${sort}` ? null : sort);
    };
    const head = make("th", { class: names, scope: "col" }, make("button", { type: "button", class: "sort", on: { click: turn } }, label, make("span", { class: "arrow", "aria-hidden": "true" })));
    head.sort = sort;
    return head;
  }

  #pickAll() {
    const pick = () => {
      const ids = this.rows.map(this.#options.idOf);
      if (this.#all.checked) this.#options.picks.add(ids);
      else this.#options.picks.drop(ids);
    };
    this.#all = make("input", { type: "checkbox", "aria-label": text("pickPage"), on: { change: pick } });
    return this.#all;
  }

  /** Say by what the rows are sorted: a name, "-" before it for downwards, null for the order of their keys. */
  sort(sort) {
    this.#options.sort = sort;
    for (const head of this.#heads.filter((each) => each.sort)) {
      const down = sort === `-${head.sort}`;
      if (down || sort === head.sort) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  /** Hold the place of rows that are on their way. */
  wait() {
    this.element.setAttribute("aria-busy", "true");
    if (this.#rows.size) return;
    const width = this.#options.columns.length + (this.#options.picks ? 1 : 0);
    const row = () => make("tr", { class: "skeleton" }, ...Array.from({ length: width }, () => make("td", {}, make("i"))));
    this.#note.hidden = true;
    this.#body.replaceChildren(...Array.from({ length: SKELETONS }, row));
  }

  /** Show rows; what stands in their place when there are none is `empty()`. */
  show(rows) {
    const { idOf, empty } = this.#options, before = this.#rows;
    const held = this.#body.contains(document.activeElement) ? document.activeElement.closest("tr") : null;
    const place = [...this.#body.children].indexOf(held);
    this.#rows = new Map(rows.map((row) => [idOf(row), this.#entry(row, before.get(idOf(row)))]));
    this.#body.replaceChildren(...[...this.#rows.values()].map(({ tr }) => tr));
    this.element.removeAttribute("aria-busy");
    this.#note.hidden = rows.length > 0 || !empty;
    if (!rows.length && empty) this.#note.replaceChildren(empty());
    this.#showPicks();
    this.#focusable(held?.isConnected ? held : this.#body.children[Math.max(0, place)] ?? this.#body.lastElementChild);
    if (held && !held.isConnected) this.#body.querySelector("tr[tabindex='0']")?.focus();
  }

  /** Show a note in the place of the rows. */
  fail(note) {
    this.#rows.clear();
    this.#body.replaceChildren();
    this.element.removeAttribute("aria-busy");
    this.#note.replaceChildren(note);
    this.#note.hidden = false;
  }

  /** Dress all rows again: what they look like depends on more than themselves. */
  dress() {
    for (const { tr, row } of this.#rows.values()) this.#options.dress?.(tr, row);
  }

  focus() { (this.#body.querySelector("tr[tabindex='0']") ?? this.element).focus(); }

  /** The row that holds the keyboard, if any. */
  get current() { return [...this.#rows.values()].find(({ tr }) => tr.contains(document.activeElement))?.row; }

  #entry(row, before) {
    const said = JSON.stringify(row);
    const tr = before?.tr ?? make("tr", { tabindex: -1 });
    if (before?.said !== said) tr.replaceChildren(...this.#cells(row));
    this.#options.dress?.(tr, row);
    return { tr, row, said };
  }

  #cells(row) {
    const { columns, picks, idOf, nameOf, open } = this.#options;
    const id = idOf(row), name = nameOf ? nameOf(row) : id;
    const box = picks && make("input", { type: "checkbox", tabindex: -1, "aria-label": text("pick", { name }) });
    const cells = columns.map(({ cell, end, priority = 1, mono }, place) => {
      const shown = cell(row), names = [end && "end", mono && "mono", `p${priority}`].filter(Boolean).join(" ");
      const isText = typeof shown === "string", title = isText && shown.length > LONG ? shown : null;
      const inside = place === 0 && open ? make("button", { type: "button", class: "open", tabindex: -1, dir: "auto" }, shown) : shown;
      const own = { class: names, title, dir: isText && !end ? "auto" : null }; // what is cut short is cut at its own end
      return place === 0 ? make("th", { ...own, scope: "row" }, inside) : make("td", own, inside ?? "");
    });
    return [...(box ? [make("td", { class: "pick" }, box)] : []), ...cells];
  }

  #entryOf(node) {
    const tr = node.closest?.("tr");
    return [...this.#rows.values()].find((each) => each.tr === tr);
  }

  #click(event) {
    const entry = this.#entryOf(event.target), { picks, idOf, open } = this.#options;
    if (!entry) return;
    this.#focusable(entry.tr);
    if (event.target.closest("td.pick") && picks) {
      if (event.shiftKey) this.#pickTo(entry);
      else picks.toggle(idOf(entry.row));
      this.#showPicks();
    } else if (event.target.closest(".open")) open(entry.row);
  }

  /** From the row picked last to this one. */
  #pickTo(entry) {
    const { picks, idOf } = this.#options, ids = [...this.#rows.keys()];
    const [from, to] = [ids.indexOf(picks.last), ids.indexOf(idOf(entry.row))].sort((a, b) => a - b);
    picks.add(ids.slice(Math.max(from, 0), to + 1));
  }

  #focusable(tr) {
    for (const each of this.#body.children) each.tabIndex = each === tr ? 0 : -1;
  }

  #step(by) {
    const all = [...this.#body.children], now = all.indexOf(document.activeElement?.closest("tr"));
    const next = all[Math.max(0, Math.min(all.length - 1, now + by))];
    if (!next) return;
    this.#focusable(next);
    next.focus();
  }

  /** Move up and down from wherever the keyboard is; `x` and Enter act on the row that holds it. */
  key(name) {
    const { picks, idOf, open } = this.#options;
    if (name === "down" || name === "up") return this.#step(name === "down" ? 1 : -1);
    const row = this.current;
    if (!row) return this.focus();
    if (name === "pick" && picks) picks.toggle(idOf(row));
    if (name === "open") open?.(row);
  }

  #move(event) {
    const name = { ArrowDown: "down", ArrowUp: "up", Enter: "open", " ": "pick" }[event.key];
    if (!name || (event.target.matches("button, a, input, select") && (name === "open" || name === "pick"))) return;
    event.preventDefault();
    this.key(name);
  }

  #showPicks() {
    const { picks, idOf } = this.#options;
    if (!picks) return;
    let picked = 0;
    for (const { tr, row } of this.#rows.values()) {
      const is = picks.has(idOf(row));
      picked += is;
      tr.classList.toggle("picked", is);
      const box = tr.querySelector("td.pick input");
      if (box) box.checked = is;
    }
    this.#all.checked = picked > 0 && picked === this.#rows.size;
    this.#all.indeterminate = picked > 0 && picked < this.#rows.size;
    this.#all.disabled = this.#rows.size === 0;
  }
}

/** Build a sentence and the two buttons below a list in keyset pages. */
export function pager(list) {
  const say = make("span", { class: "muted number", role: "status" });
  const button = (name, act) => make("button", { type: "button", class: "square", "aria-label": text(name), on: { click: act } }, icon(name === "pageBack" ? "previous" : "next"));
  const back = button("pageBack", () => list.back()), on = button("pageOn", () => list.next());
  const element = make("div", { class: "pager" }, say, back, on);
  list.on(() => {
    write(say, list.words());
    for (const [node, may] of [[back, list.hasBack], [on, list.hasNext]]) {
      if (!may && document.activeElement === node) (node === back ? on : back).focus();
      node.disabled = !may;
    }
  });
  return element;
}
