// The audit: who did what, newest first, append-only; of one job when the address names it, as a file for keeping.

import { query } from "./api.js";
import { listView } from "./caretaking.js";
import { make } from "./dom.js";
import { named, text } from "./messages.js";
import { instantOf } from "./parts.js";
import { emptyNote } from "./problem.js";
import { href } from "./router.js";

/** Say the details of an entry in a line: names and numbers, never values of rows. */
export function detailOf({ detail }) {
  return Object.entries(detail).map(([name, value]) => `${named(name)}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
}

/** Open the audit. */
export function open({ page, route, signal }) {
  let job = route.query.get("job") ?? undefined;
  const file = (format) => make("a", { class: "button", href: page.url(`api/audit${query({ format, job })}`), download: "", text: text("downloadAs", { format: format.toUpperCase() }) });
  const files = make("span", { class: "row" });
  const narrowed = make("span", { class: "row" });
  const showScope = () => {
    files.replaceChildren(file("csv"), file("ndjson"));
    narrowed.replaceChildren(...(job ? [make("a", { href: href("jobs", [job]), text: text("auditOfJob") }), make("a", { href: href("audit"), text: text("showAll") })] : []));
  };
  const { element, list } = listView({
    title: text("navAudit"), intro: text("auditIntro"), actions: [files], tools: [narrowed], signal,
    fetch: ({ limit, page: token }) => page.ask("GET", `api/audit${query({ job, limit, page: token })}`),
    table: {
      idOf: ({ seq }) => String(seq), nameOf: ({ verb }) => named(verb),
      columns: [
        { name: "verb", label: text("whatHappened"), cell: ({ verb }) => named(verb) },
        { name: "by", label: text("who"), cell: ({ user, tenant }) => [user, tenant].filter(Boolean).join(" · ") },
        { name: "about", label: text("about"), priority: 2, cell: ({ job: id, resource }) => (id ? make("a", { href: href("jobs", [id]), text: resource ? named(resource) : text("job") }) : resource ? named(resource) : "") },
        { name: "detail", label: text("details"), priority: 3, cell: detailOf },
        { name: "at", label: text("at"), end: true, cell: ({ at: when }) => instantOf(when) },
      ],
      empty: () => emptyNote({ title: text("noAuditTitle"), picture: "book" }),
    },
  });
  showScope();
  return { element, update: (next) => { job = next.query.get("job") ?? undefined; showScope(); list.load(); } };
}
