// What a preview says, in sentences: how many, what is left alone and why, what goes with it, and examples.

import { make } from "./dom.js";
import { bytes, count, duration, text } from "./messages.js";

const SHOWN = 4;
const sentence = (words) => words.replace(/^./u, (first) => first.toUpperCase());

/** Write the paragraphs of a preview; `words` names its action and resource. */
export function facts(preview, words) {
  const { matched, eligible_count: eligible } = preview;
  if (matched === 0) return [make("p", { text: text("nothing") }), ...cautions(preview)];
  return [
    matched === null ? "" : make("p", { text: howMany(matched, eligible, words) }),
    leftAlone(preview),
    alsoGoes(preview.impact),
    preview.estimated_seconds >= 1 ? make("p", { class: "note", text: text("estimate", { time: duration(preview.estimated_seconds) }) }) : null,
    ...cautions(preview),
    examples(preview.sample),
  ].filter(Boolean);
}

function howMany(matched, eligible, { resource }) {
  if (eligible === null || eligible === matched) return text("allOf", { matched: count(matched), resource });
  return text("someOf", { eligible: count(eligible), matched: count(matched), resource });
}

/** Reasons with how often they were seen; of a long list the server names only the first, so it is the total that is exact. */
function leftAlone({ ineligible, ineligible_count: number }) {
  if (!number) return null;
  const reasons = new Map();
  for (const { code, reason } of ineligible) {
    const words = sentence(reason || code);
    reasons.set(words, (reasons.get(words) ?? 0) + 1);
  }
  const all = [...reasons], isWhole = ineligible.length === number;
  const items = all.slice(0, SHOWN).map(([words, n]) => make("li", { class: "note", text: isWhole && all.length > 1 ? text("reasonCounted", { n, reason: words }) : words }));
  return make("div", {}, make("p", { text: text(items.length ? "leftAloneWhy" : "leftAlone", { n: number }) }), items.length ? make("ul", {}, ...items) : null);
}

/** The rows of tables that hang on the items, and files; what is unknown is not mentioned. */
function alsoGoes({ rows, files, bytes: size }) {
  const others = Object.entries(rows).slice(1).filter(([, number]) => number);
  const parts = others.map(([table, n]) => text("rows", { table, n }));
  if (files) parts.push(text("files", { n: files }) + (size ? ` (${bytes(size)})` : ""));
  return parts.length ? make("p", { text: text("goesToo", { list: parts.join(", ") }) }) : null;
}

function cautions({ warnings }) {
  const others = warnings.filter(({ code }) => code !== "CONFIRMATION_REQUIRED");
  return others.map(({ detail }) => make("p", { class: "warn", text: sentence(detail) }));
}

function examples(sample) {
  if (!sample?.length) return null;
  const line = (row) => Object.values(row).filter((value) => typeof value === "string" && value).map((value) => value.slice(0, 60)).slice(0, SHOWN).join(" · ");
  const lines = sample.slice(0, SHOWN).map((row) => make("li", { dir: "auto", text: line(row) || String(Object.values(row)[0]) }));
  return make("div", { class: "sample" }, make("p", { text: text("example") }), make("ul", {}, ...lines));
}
