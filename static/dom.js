// How the elements and the page build their nodes. Data becomes text and attributes; nothing here, or anywhere
// in this folder, parses it as HTML.

/** Make an element: properties (`class`, `text`, `on`: listeners, else attributes), then children. */
export function make(tag, { class: names, text, on = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (names) element.className = names;
  if (text !== undefined) element.textContent = text;
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Write `value` into an element unless it stands there: screen readers hear only what changes. */
export function write(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** Tell what happened on `element`; returns false when a listener prevented what would follow. */
export function tell(element, name, detail) {
  return element.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true, cancelable: true }));
}

/** Call `act` at once, then at most every `ms` while it is asked again; stops with `signal`. */
export function atMostEvery(ms, act, signal) {
  let timer = null, again = false;
  signal?.addEventListener("abort", () => clearTimeout(timer));
  const run = () => {
    again = false;
    timer = setTimeout(() => { timer = null; if (again) run(); }, ms);
    act();
  };
  return () => {
    if (signal?.aborted) return;
    if (timer) again = true;
    else run();
  };
}
