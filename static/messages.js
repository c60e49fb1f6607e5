// How texts are filled in, and how numbers, times and sizes are written: texts in the language of the document,
// numbers and times as the reader's browser is set.

import { texts } from "./texts.js";

export { texts };

const PARTS = /\{(\w+)\}/g;
const locales = (globalThis.navigator?.languages ?? []).filter(isLocale);
const integer = new Intl.NumberFormat(locales, { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat(locales, { maximumFractionDigits: 1 });
const share = new Intl.NumberFormat(locales, { style: "percent", maximumFractionDigits: 1, roundingMode: "floor" });
const instant = new Intl.DateTimeFormat(locales, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(locales, { timeStyle: "short" });
const exact = new Intl.DateTimeFormat(locales, { dateStyle: "full", timeStyle: "long" });
const relative = new Intl.RelativeTimeFormat(locales, { numeric: "auto" });
const byteUnits = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
const STEPS = [["day", 86_400], ["hour", 3_600], ["minute", 60]];
let plural;

function isLocale(name) {
  try {
    return Boolean(new Intl.Locale(name));
  } catch {
    return false; // what a system without a language says: "C", "en-US@posix"
  }
}

/** Write the text called `name`, with `values` filled in; numbers among them as the reader writes numbers. */
export function text(name, values = {}) {
  let entry = texts[name] ?? name;
  if (typeof entry === "object") entry = entry[formOf(values.n)] ?? entry.other;
  if (typeof entry === "function") entry = entry(values);
  return entry.replace(PARTS, (whole, key) => {
    const value = values[key];
    return typeof value === "number" ? count(value) : (value ?? whole);
  });
}

function formOf(n) {
  plural ??= new Intl.PluralRules(globalThis.document?.documentElement.lang || "en");
  return plural.select(n ?? 0);
}

/** Say a name of the API, such as `is_deleted`, as words; names that have a text of their own say that. */
export function named(name, prefix = "") {
  const key = prefix && prefix + name;
  return texts[key] ? text(key) : name.replaceAll("_", " ").replace(/^./u, (first) => first.toUpperCase());
}

export const count = (n) => integer.format(n);
export const percent = (n) => share.format(n / 100 + 1e-9); // a floor must not fall through a binary fraction
export const rate = (n) => (n < 10 ? tenth : integer).format(n);
export const time = (iso) => instant.format(new Date(iso));
export const exactTime = (iso) => exact.format(new Date(iso));

/** Write when something was, short: the time of today, else the day. */
export function when(iso) {
  const at = new Date(iso);
  return at.toDateString() === new Date().toDateString() ? clock.format(at) : instant.format(at);
}

const INSTANT = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?$/;

/** Read a text of a row as an instant; null when it is none. */
export function instantIn(value) {
  if (typeof value !== "string" || value.length >= 40 || !INSTANT.test(value)) return null;
  const iso = value.replace(" ", "T");
  return Number.isNaN(Date.parse(iso)) ? null : iso;
}

/** Write how far off an instant is: "in 29 days", "5 minutes ago". */
export function fromNow(iso) {
  const seconds = (new Date(iso) - Date.now()) / 1000;
  const [unit, size] = STEPS.find(([, each]) => Math.abs(seconds) >= each) ?? ["second", 1];
  return relative.format(Math.round(seconds / size), unit);
}

export function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 90) return text("seconds", { n: count(whole) });
  const minutes = Math.round(whole / 60);
  if (minutes < 90) return text("minutes", { n: count(minutes) });
  return text("hours", { n: count(Math.floor(minutes / 60)), m: count(minutes % 60) });
}

export function bytes(n) {
  const step = Math.min(4, Math.floor(Math.log10(Math.max(1, n)) / 3));
  const style = { style: "unit", unit: byteUnits[step], unitDisplay: step ? "short" : "long", maximumFractionDigits: step ? 1 : 0 };
  return new Intl.NumberFormat(locales, style).format(n / 1000 ** step);
}
