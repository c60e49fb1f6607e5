// The audit: who did what, newest first, append-only; of one job when the address names it, as a file for keeping.

import { query } from "./api.js";
import { listView } from "./caretaking.js";
import { make } from "./dom.js";
import { count, named, text } from "./messages.js";
import { instantOf } from "./parts.js";
import { emptyNote } from "./problem.js";
import { href } from "./router.js";

/** Say the details of an entry in a line: names and numbers, never values of rows. */
export function detailOf({ detail }) {
  const said = Object.entries(detail).filter(([, value]) => value !== null && (typeof value !== "object" || Object.keys(value).length));
  return said.map(([name, value]) => `${named(name)}: ${typeof value === "object" ? JSON.stringify(value) : typeof value === "number" ? count(value) : value}`).join(" · ");
}

/** Batches of a job that follow on each other are one row: their entries one by one are in the files. */
function gathered(entries) {
  const rows = [], open = new Map();
  for (const entry of entries) {
    const before = entry.verb === "batch" && open.get(entry.job);
    if (before) before.batches.push(entry.detail);
    else rows.push({ ...entry, batches: [entry.detail] });
    if (entry.verb !== "batch") open.clear();
    else if (!before) open.set(entry.job, rows.at(-1));
  }
  return rows;
}

const verbOf = ({ verb, batches: { length } }) => (length > 1 ? text("auditBatches", { n: length }) : named(verb));

function sumOf(row) {
  if (row.batches.length === 1) return detailOf(row);
  const sum = (name) => row.batches.reduce((all, detail) => all + (detail[name] ?? 0), 0);
  return [text("itemsDone", { n: sum("count") }), sum("exceptions") && text("auditExceptions", { n: sum("exceptions") })].filter(Boolean).join(" · ");
}

/** Open the audit. */
export function open({ page, route, signal }) {
  let job = route.query.get("job") ?? undefined;
  const file = (format) => make("a", { class: "button", href: page.url(`api/audit${query({ format, job })}`), download: "", text: text("downloadAs", { format: format.toUpperCase() }) });
  const files = make("span", { class: "row" });
  const narrowed = make("span", { class: "row" });
  const showScope = () => {
    files.replaceChildren(file("csv"), file("ndjson"));
    narrowed.replaceChildren(...(job ? [make("span", { class: "muted", text: text("auditOfJob") }), make("a", { href: href("jobs", [job]), text: text("showThatJob") }), make("a", { href: href("audit"), text: text("showAll") })] : []));
  };
  const { element, list } = listView({
    title: text("navAudit"), intro: text("auditIntro"), actions: [files], tools: [narrowed], signal,
    fetch: async ({ limit, page: token }) => {
      const found = await page.ask("GET", `api/audit${query({ job, limit, page: token })}`);
      return { ...found, shown: found.items.length, items: gathered(found.items) };
    },
    table: {
      idOf: ({ seq }) => String(seq), nameOf: verbOf,
      columns: [
        { name: "verb", label: text("whatHappened"), cell: verbOf },
        { name: "by", label: text("who"), cell: ({ user, tenant }) => [user, tenant].filter(Boolean).join(" · ") },
        { name: "about", label: text("about"), priority: 2, cell: ({ job: id, resource }) => (id ? make("a", { href: href("jobs", [id]), text: resource ? named(resource) : text("job") }) : resource ? named(resource) : "") },
        { name: "detail", label: text("details"), priority: 3, cell: sumOf },
        { name: "at", label: text("at"), end: true, cell: ({ at: when }) => instantOf(when) },
      ],
      empty: () => emptyNote({ title: text("noAuditTitle"), picture: "book" }),
    },
  });
  showScope();
  return { element, update: (next) => { job = next.query.get("job") ?? undefined; showScope(); list.load(); } };
}
