// The trash: what jobs took and may still be put back, found by its name, restored one by one or many at a time.

import { query } from "./api.js";
import { listView, rowButtons } from "./caretaking.js";
import { atMostEvery, make, write } from "./dom.js";
import { named, text } from "./messages.js";
import { button, distanceOf, instantOf, searchField } from "./parts.js";
import { Picks } from "./picks.js";
import { emptyNote } from "./problem.js";
import { go, href } from "./router.js";

const REFRESH_MS = 2_000;

const keyOf = ({ job, id }) => JSON.stringify([job, id]);

/** Open the trash; `q` of the address narrows it. */
export function open({ page, route, signal }) {
  let q = route.query.get("q") ?? "";
  const picks = new Picks(), may = page.can("operator");

  /** One undo for each job whose things are among `keys`. */
  async function restore(keys) {
    const byJob = new Map();
    for (const [job, id] of keys.map((key) => JSON.parse(key))) byJob.set(job, [...(byJob.get(job) ?? []), id]);
    for (const [job, ids] of byJob) {
      const undone = await page.attempt(() => page.client.job(job).undo({ ids }));
      if (!undone) return;
      page.live.take(undone);
    }
    picks.clear();
  }

  const found = (words) => go(href("trash", [], words ? { q: words } : {}), { replace: true });
  const search = searchField(page, { label: text("trashSearch"), value: q, found, signal });
  const said = make("span", { class: "number", role: "status" });
  const back = button(text("restorePicked"), () => restore(picks.named), { picture: "undo", names: "primary" });
  const bar = make("div", { class: "row", hidden: true }, said, back);
  picks.on(() => { bar.hidden = picks.isEmpty; write(said, text("picked", { n: picks.named.length })); });

  const { element, list } = listView({
    title: text("navTrash"), intro: text("trashIntro"), tools: [search.element, make("span", { class: "gap" }), bar], signal,
    fetch: ({ limit, page: token }) => page.ask("GET", `api/trash${query({ q, limit, page: token })}`),
    table: {
      idOf: keyOf, nameOf: ({ label }) => label.slice(0, 80), picks: may ? picks : null,
      columns: [
        { name: "label", label: named("item"), cell: ({ label, id }) => (label === id ? label : make("span", { dir: "auto" }, label.slice(0, 200), make("span", { class: "muted", text: ` ${id}` }))) },
        { name: "resource", label: named("resource"), priority: 2, cell: ({ resource, tenant }) => [named(resource), tenant].filter(Boolean).join(" · ") },
        { name: "deleted", label: text("deletedAt"), priority: 2, cell: ({ deleted_at: at }) => instantOf(at) },
        { name: "until", label: text("goneForGood"), priority: 3, cell: ({ undo_until: until }) => distanceOf(until) },
        { name: "acts", label: text("actions"), end: true, cell: (row) => rowButtons(make("a", { href: href("jobs", [row.job]), text: text("job") }), may && button(text("restore"), () => restore([keyOf(row)]), { picture: "undo" })) },
      ],
      empty: () => emptyNote(q ? { title: text("nothingFound"), detail: text("noTrashLikeThat"), picture: "search" } : { title: text("noTrashTitle"), detail: text("noTrash"), picture: "trash" }),
    },
  });
  const refresh = atMostEvery(REFRESH_MS, () => list.refresh(), signal);
  for (const name of ["changed", "ended", "reset"]) page.live.on(name, refresh, signal);
  return {
    element,
    update: (next) => {
      q = next.query.get("q") ?? "";
      search.set(q);
      picks.clear();
      list.load();
    },
  };
}
