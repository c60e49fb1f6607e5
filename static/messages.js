// Every sentence of the elements and the page, and how numbers and times are written. Replace entries of `texts`
// before the elements are used to speak another language; `{name}` is filled in, a function may decide.

export const texts = {
  // statuses
  scheduled: "Scheduled",
  preparing: "Preparing",
  queued: "Waiting",
  running: "Running",
  pausing: "Pausing",
  paused: "Paused",
  cancelling: "Cancelling",
  completed: "Done",
  partial: "Done, with failures",
  none: "Nothing succeeded",
  failed: "Stopped by an error",
  cancelled: "Cancelled",
  // verbs
  pause: "Pause",
  resume: "Resume",
  cancel: "Cancel",
  retry: "Retry failed",
  undo: "Undo",
  cancelSurely: "Cancel this job? What is done stays done.",
  cancelYes: "Cancel the job",
  cancelNo: "Keep going",
  // progress
  loading: "Loading…",
  preparingItems: "Finding the items…",
  progress: "{processed} of {total}",
  perSecond: "{rate}/s",
  left: "about {time} left",
  took: "took {time}",
  failedCount: "{count} failed",
  skipped: "{count} skipped",
  failures: ({ count }) => (count === "1" ? "Why 1 failed" : `Why ${count} failed`),
  failureGroup: "{count} × {code}: {message} (first: {item})",
  report: "Report (CSV)",
  reportFailed: "Failed items (CSV)",
  undoUntil: "can be undone until {time}",
  announce: "{label}: {percent}, {processed} of {total}",
  announceStatus: "{label}: {status}",
  announceEnd: "{label}: {status}. {succeeded} succeeded, {failed} failed, {skipped} skipped.",
  gone: "This job does not exist, or is not yours to see.",
  // the start of an action
  looking: "Counting…",
  ask: "{action} {count} {resource}?",
  askAll: "{action} {resource}?",
  someOf: "{eligible} of {matched} matching {resource} will be acted on.",
  allOf: "{matched} {resource} match.",
  nothing: "Nothing matches.",
  leftAlone: "{count} left alone:",
  goesToo: "With them go {list}.",
  rows: "{count} rows of {table}",
  files: ({ count }) => (count === "1" ? "1 file" : `${count} files`),
  estimate: "Estimated time: {time}.",
  example: "For example",
  typeWord: "Type {word} to confirm exactly {count} {resource}",
  typeWordOnly: "Type {word} to confirm",
  startButton: "{action} {count} {resource}",
  close: "Not now",
  again: "Count again",
  starting: "Starting…",
  // what goes wrong
  offline: "The server cannot be reached.",
  // times
  seconds: "{n} s",
  minutes: "{n} min",
  hours: "{n} h {m} min",
  // the page
  title: "bulkops",
  live: "Live",
  liveSse: "Live (stream)",
  livePoll: "Live (polling)",
  reconnecting: "Reconnecting…",
  notConnected: "Not connected",
  welcome: "Delete in bulk, watch it happen, take it back.",
  loginHint: "Open the one-time link that “bulkops serve” printed, or log in with an API key.",
  key: "API key",
  logIn: "Log in",
  logOut: "Log out",
  loginFailed: "This key or link does not work. A link opens the page once, for ten minutes.",
  loggedOut: "Your session has ended. Log in again.",
  api: "API reference",
  examples: "Examples",
  resources: "Resources",
  noResources: "No resource is configured that you may see. Declare one in bulkops.toml.",
  countItems: ({ count }) => (count === "1" ? "1 item" : `${count} items`),
  countUnknown: "Many items",
  inTrash: "{count} deleted",
  deleteBy: "Delete by filter",
  everything: "No condition: everything would be deleted.",
  column: "Column",
  operator: "Comparison",
  value: "Value",
  addCondition: "Add a condition",
  removeCondition: "Remove this condition",
  tenant: "Tenant",
  tenantHint: "All tenants",
  is: "is",
  isNot: "is not",
  contains: "contains",
  atLeast: "is at least",
  below: "is below",
  isEmpty: "is empty",
  previewDelete: "Preview and delete…",
  jobs: "Jobs",
  noJobs: "No job yet. What you start appears here and stays up to date by itself.",
  more: "Show older jobs",
  by: "{user}, {time}",
  ofTenant: "of {tenant}",
  selectedIds: "{count} chosen by id",
  selectedAll: "everything",
  undoOf: "puts back an earlier job",
  retryOf: "retries an earlier job",
};

const locale = globalThis.document?.documentElement.lang || undefined;
const integer = new Intl.NumberFormat(locale);
const tenth = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
const share = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 1, roundingMode: "floor" });
const instant = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
const byteUnits = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

/** Write the text called `name`, with `values` filled in. */
export function text(name, values = {}) {
  const entry = texts[name] ?? name;
  if (typeof entry === "function") return entry(values);
  return entry.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

export const count = (n) => integer.format(n);
export const percent = (n) => share.format(n / 100 + 1e-9); // a floor must not fall through a binary fraction
export const rate = (n) => (n < 10 ? tenth : integer).format(n);
export const time = (iso) => instant.format(new Date(iso));

export function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 90) return text("seconds", { n: count(whole) });
  const minutes = Math.round(whole / 60);
  if (minutes < 90) return text("minutes", { n: count(minutes) });
  return text("hours", { n: count(Math.floor(minutes / 60)), m: count(minutes % 60) });
}

export function bytes(n) {
  const step = Math.min(4, Math.floor(Math.log10(Math.max(1, n)) / 3));
  const style = { style: "unit", unit: byteUnits[step], unitDisplay: "short", maximumFractionDigits: step ? 1 : 0 };
  return new Intl.NumberFormat(locale, style).format(n / 1000 ** step);
}
