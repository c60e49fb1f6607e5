// What a preview says, in sentences: how many, what is left alone and why, what goes with it, and examples.

import { make } from "./dom.js";
import { bytes, count, duration, instantIn, text, when } from "./messages.js";

const SHOWN = 4;
const sentence = (words) => words.replace(/^./u, (first) => first.toUpperCase());

/**
 * Write the paragraphs of a preview; `words` names its action and resource, `undoDays` says for how long the action can
 * be undone, as far as that is known.
 */
export function facts(preview, words, { undoDays = 0 } = {}) {
  const { matched, eligible_count: eligible, estimated_seconds: seconds } = preview;
  if (matched === 0) return [make("p", { text: text("nothing") }), ...cautions(preview)];
  const isFinal = preview.warnings.some(({ code }) => code === "FINAL");
  return [
    matched === null ? "" : make("p", { text: howMany(matched, eligible, words) }),
    leftAlone(preview),
    alsoGoes(preview.impact),
    undoDays && !isFinal ? make("p", { class: "can-undo", text: text("canUndo", { n: undoDays }) }) : null,
    ...cautions(preview),
    seconds >= 1 ? make("p", { class: "note", text: text("estimate", { time: duration(seconds) }) }) : null,
    examples(preview.sample, matched),
  ].filter(Boolean);
}

function howMany(matched, eligible, { resource }) {
  if (eligible === null || eligible === matched) return text("allOf", { n: matched, resource });
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
  const words = ({ code, detail }) => (code === "JOB_ACTIVE" ? text("jobActive") : `${sentence(detail)}.`);
  return others.map((each) => make("p", { class: each.code === "FINAL" ? "warn final" : "warn", text: words(each) }));
}

/** Some of the items, by what tells them apart. */
function examples(sample, matched) {
  if (!sample?.length) return null;
  const shown = sample.slice(0, SHOWN), differs = (name) => shown.length === 1 || shown.some((row) => row[name] !== shown[0][name]);
  const words = (row) => Object.entries(row).filter(([name, value]) => typeof value === "string" && value && differs(name)).map(([, value]) => (instantIn(value) ? when(instantIn(value)) : value.slice(0, 60)));
  const line = (row) => words(row).slice(0, SHOWN).join(" · ");
  const lines = shown.map((row) => make("li", { dir: "auto", text: line(row) || String(Object.values(row)[0]) }));
  return make("div", { class: "sample" }, make("p", { text: text(shown.length === matched ? "exactly" : "example", { n: matched }) }), make("ul", {}, ...lines));
}
