// One resource: find its items, select some or all that match, act on them, see them go. What is asked for stands in
// the address; what is selected is a filter and exclusions, never a list of everything.

import { openAction } from "./act.js";
import { at } from "./api.js";
import { columnChoice } from "./columns.js";
import { filterOf, itemsQuery, readWishes, writeWishes } from "./conditions.js";
import { atMostEvery, make } from "./dom.js";
import { filterBar } from "./filter_bar.js";
import { Going } from "./going.js";
import { openItem, unfitText } from "./item.js";
import { text } from "./messages.js";
import { pages } from "./pages.js";
import { viewHead } from "./parts.js";
import { pickBar } from "./pick_bar.js";
import { Picks } from "./picks.js";
import { emptyNote, problemNote } from "./problem.js";
import { go, href } from "./router.js";
import { dataTable, pager } from "./table.js";
import { taskButtons } from "./task.js";

const REFRESH_MS = 1_000, RECOUNT_MS = 2_000;
const SIZES = [25, 50, 100, 200], SIZE = "bulkops:rows";

/** Open a resource. */
export async function open({ page, route, signal }) {
  const [name] = route.path;
  if (!name) return { element: make("div", { class: "view" }, viewHead(text("navResources")), emptyNote({ title: text("noResourcesTitle"), detail: text("noResources") })) };
  const info = await page.ask("GET", at("bulk", name, "info"));
  const browse = new Browse(page, info, signal);
  browse.update(route);
  return { element: browse.element, update: (next) => browse.update(next) };
}

/** What narrows a list, and so says which one it is; its order does not. */
const listOf = ({ sort, ...narrowing }) => JSON.stringify(narrowing);

class Browse {
  #page; #info; #signal; #wishes; #picks = new Picks(); #going; #list; #table; #bar; #tools; #choice;

  constructor(page, info, signal) {
    Object.assign(this, { element: make("div", { class: "view full browse" }) });
    [this.#page, this.#info, this.#signal] = [page, info, signal];
    this.#choice = columnChoice(info, () => this.#table.columns(this.#choice.columns()));
    this.#going = new Going(page, info.name, { changed: () => this.#table.dress(), ended: (job, mine) => this.#ended(mine), signal });
    this.#table = this.#buildTable();
    const limit = Number(localStorage.getItem(SIZE)) || 50;
    this.#list = pages({ fetch: (asked) => this.#fetch(asked), table: this.#table, limit, problem: problemNote, signal });
    const wish = (changes) => this.#wish(changes);
    this.#bar = pickBar({ info, picks: this.#picks, act: (action) => this.#act(action), wish, scope: () => this.#scope() });
    this.#tools = filterBar(page, { info, wish, signal });
    this.#list.on(() => this.#wishes && this.#bar.show());
    const foot = make("footer", { class: "view-foot" }, this.#sizes(), pager(this.#list));
    this.element.append(viewHead(info.label, { actions: [...taskButtons(page, info), this.#choice.menu] }), this.#tools.element, this.#bar.element, this.#table.element, foot);
    this.#listen();
  }

  #buildTable() {
    return dataTable({
      caption: this.#info.label, columns: this.#choice.columns(), picks: this.#info.actions.length ? this.#picks : null,
      idOf: ({ id }) => id, nameOf: ({ label }) => label.slice(0, 80), open: (item) => openItem(this.#page, this.#info, item, this.#signal),
      sorted: (sort) => this.#wish({ sort: sort ?? undefined }), dress: (tr, item) => this.#dress(tr, item), empty: () => this.#empty(),
    });
  }

  #listen() {
    const refresh = atMostEvery(REFRESH_MS, () => this.#refresh(), this.#signal);
    const recount = atMostEvery(RECOUNT_MS, () => this.#recount(), this.#signal);
    const { live, shortcuts } = this.#page;
    live.on("changed", ({ resource }) => { if (resource === this.#info.name) { refresh(); recount(); } }, this.#signal);
    live.on("reset", () => { refresh(); recount(); }, this.#signal);
    shortcuts.add(this.#keys(), { signal: this.#signal, title: "keysHere" });
  }

  #keys() {
    const picks = this.#picks, table = this.#table, list = this.#list;
    return [
      { keys: ["j", "k"], text: "keyMove", act: ({ key }) => table.key(key === "j" ? "down" : "up") },
      { keys: ["x"], text: "keyPick", act: () => table.key("pick") },
      { keys: ["*"], text: "keyPickPage", act: () => picks.add(table.rows.map(({ id }) => id)) },
      { keys: ["A"], text: "keyPickAll", act: () => { if (this.#scope().canAll) picks.all(); } },
      { keys: ["Escape"], text: "keyClear", act: () => picks.clear() },
      { keys: ["o", "Enter"], text: "keyOpen", act: () => table.key("open") },
      { keys: ["."], text: "keyActions", act: () => this.#bar.focus() },
      { keys: ["[", "]"], text: "keyPages", act: ({ key }) => (key === "[" ? list.back() : list.next()) },
    ];
  }

  update(route) {
    const before = this.#wishes, wishes = (this.#wishes = readWishes(route.query));
    this.#tools.show(wishes);
    this.#table.sort(wishes.sort ?? null);
    if (before && listOf(before) !== listOf(wishes)) this.#picks.clear(); // it was of another list
    this.#bar.show();
    this.#list.load();
  }

  #wish(changes) { go(href("resources", [this.#info.name], writeWishes({ ...this.#wishes, ...changes }))); }

  async #fetch({ limit, page: token }) {
    const path = `${at("bulk", this.#info.name, "items")}?${itemsQuery(this.#wishes, { limit, page: token })}`;
    const found = await this.#page.ask("GET", path, undefined, { signal: this.#signal });
    if (this.#choice.learn(found.items)) this.#table.columns(this.#choice.columns());
    return found;
  }

  async #refresh() {
    const before = this.#table.rows.map(({ id }) => id);
    const found = await this.#list.refresh();
    if (!found) return;
    const here = new Set(found.items.map(({ id }) => id));
    this.#picks.prune(before.filter((id) => !here.has(id) && this.#going.stateOf(id, listOf(this.#wishes))));
  }

  async #recount() {
    const { counts } = await this.#page.ask("GET", at("bulk", this.#info.name, "info")).catch(() => ({}));
    if (!counts) return;
    this.#info.counts = counts;
    this.#bar.show();
  }

  #scope() {
    const { total = 0, total_capped: capped = false } = this.#list.answer;
    return { total, capped, canAll: !this.#wishes.q || Boolean(this.#wishes.searchIn), wishes: this.#wishes };
  }

  #dress(tr, item) {
    const { id, eligible } = item;
    const state = this.#going.stateOf(id, listOf(this.#wishes));
    tr.classList.toggle("gone", state === "gone");
    tr.classList.toggle("going", state === "going" && eligible);
    tr.classList.toggle("unfit", !eligible);
    tr.title = eligible ? "" : unfitText(item);
  }

  #empty() {
    const { conditions, q, deleted, tenant } = this.#wishes;
    if (!conditions.length && !q && !tenant)
      return emptyNote(deleted ? { title: text("noDeletedTitle"), detail: text("noDeleted"), picture: "trash" } : { title: text("noItemsTitle", { resource: this.#info.label.toLowerCase() }), detail: text("noItems") });
    const reset = make("button", { type: "button", text: text("showAll"), on: { click: () => this.#wish({ conditions: [], q: undefined, searchIn: undefined, tenant: undefined }) } });
    return emptyNote({ title: text("nothingFound"), detail: text("noItemsLikeThat"), action: reset, picture: "filter" });
  }

  #sizes() {
    const select = make("select", { "aria-label": text("rowsPerPage") }, ...SIZES.map((n) => make("option", { value: n, text: text("rowsShown", { n }) })));
    select.value = Number(localStorage.getItem(SIZE)) || 50;
    select.addEventListener("change", () => { localStorage.setItem(SIZE, select.value); this.#list.resize(Number(select.value)); });
    return select;
  }

  async #act(action) {
    const picks = this.#picks, { total, capped } = this.#scope();
    const body = { ...picks.selection(filterOf(this.#wishes, this.#info.columns)), ...(this.#wishes.tenant && { tenant: this.#wishes.tenant }) };
    const job = await openAction(this.#page, { info: this.#info, action, body, count: picks.count(capped ? null : total), signal: this.#signal });
    if (!job) return void (document.activeElement === document.body && this.#bar.focus()); // its menu has closed
    this.#going.begin(job, { all: picks.isAll, ids: picks.named, list: listOf(this.#wishes) });
    picks.clear();
    this.#table.dress();
    this.#page.live.take(job);
    this.#table.focus();
  }

  /** When a job of this tab ends, search and selection are cleared and the first page is shown; others look again. */
  #ended(mine) {
    this.#recount();
    if (!mine || !this.#picks.isEmpty) return this.#refresh();
    if (this.#wishes.q) return this.#wish({ q: undefined, searchIn: undefined });
    this.#list.load();
  }
}
